"""A back end of dictionaries: shows that the seam can be filled without SQLite and files."""

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from alpyne_grid.nodes.data.backends.base import PAGE, Content, Data
from alpyne_grid.nodes.data.records import (
    Change,
    ContainerEntry,
    Cutoffs,
    Descriptor,
    Found,
    KeepContainer,
    ObjectKey,
    ObjectPage,
    ObjectRecord,
    ObjectSpan,
    Publish,
    Refresh,
    Staged,
    Swept,
    Usage,
    Version,
)
from alpyne_grid.nodes.store import StoreFailed

Box = tuple[bytes, bytes]


class DictStage:
    """A body on its way in."""

    def __init__(self, owner: bytes) -> None:
        self._owner = owner
        self._data = bytearray()

    def feed(self, data: Data) -> bool:
        self._data += data
        return True

    def when_room(self, callback: Callable[[], None]) -> None:
        callback()

    async def finish(self) -> Staged:
        data = bytes(self._data)
        return Staged(self._owner, len(data), hashlib.sha256(data).digest(), data)

    async def discard(self) -> None:
        self._data.clear()


class DictContent:
    """The bytes of a version."""

    def __init__(self, record: ObjectRecord, data: bytes) -> None:
        self.record = record
        self._data = data

    async def chunks(self, offset: int, length: int) -> AsyncIterator[Data]:
        if length:
            yield self._data[offset : offset + length]


class DictBackend:
    """Keeps everything in memory, and loses it with the process."""

    def __init__(self) -> None:
        self._boxes: dict[Box, Descriptor] = {}
        self._current: dict[ObjectKey, ObjectRecord] = {}
        self._superseded: dict[tuple[ObjectKey, Version], tuple[ObjectRecord, int]] = {}
        self._bytes: dict[tuple[bytes, bytes], bytes] = {}
        self._fences: dict[tuple[bytes, bytes], tuple[int, int, int]] = {}

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def usages(self) -> Mapping[bytes, Usage]:
        sizes: defaultdict[bytes, list[int]] = defaultdict(list)
        for owner, _ in self._boxes:
            sizes[owner].append(0)
        for key, record in self._current.items():
            sizes[key.owner].append(record.size)
        for (key, _), (record, _) in self._superseded.items():
            sizes[key.owner].append(record.size)
        for owner, _ in self._fences:
            sizes[owner].append(0)
        return {owner: Usage(sum(each), len(each)) for owner, each in sizes.items()}

    async def look_up(self, key: ObjectKey, job_id: bytes) -> Found:
        if key[:2] not in self._boxes:
            return Found(False)
        fence = self._fences.get((key.owner, job_id), (0, 0, 0))
        return Found(True, self._current.get(key), fence[:2])

    async def container(self, owner: bytes, container_id: bytes) -> Descriptor | None:
        return self._boxes.get((owner, container_id))

    async def containers(
        self, owner: bytes, after: bytes, limit: int = PAGE
    ) -> Sequence[ContainerEntry]:
        ids = sorted(box for who, box in self._boxes if who == owner and box > after)[:limit]
        return [self._entry(owner, each) for each in ids]

    def _entry(self, owner: bytes, box: bytes) -> ContainerEntry:
        live = [r for k, r in self._current.items() if k[:2] == (owner, box) and not r.deleted]
        return ContainerEntry(self._boxes[owner, box], len(live), sum(r.size for r in live))

    async def objects(
        self,
        owner: bytes,
        container_id: bytes,
        span: ObjectSpan,
        accepts: Callable[[str], bool] | None,
        limit: int = PAGE,
    ) -> ObjectPage | None:
        if (owner, container_id) not in self._boxes:
            return None
        rows = [
            (key.path, record)
            for key, record in sorted(self._current.items())
            if key[:2] == (owner, container_id)
            and key.path.startswith(span.prefix)
            and key.path > span.after
            and (span.tombstones or not record.deleted)
            and (accepts is None or accepts(key.path))
        ]
        return ObjectPage(tuple(rows[:limit]), rows[limit - 1][0] if len(rows) > limit else None)

    async def commit(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Publish) and change.key[:2] not in self._boxes:
                raise StoreFailed("no such container")
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        if isinstance(change, KeepContainer):
            self._boxes[change.owner, change.descriptor.container_id] = change.descriptor
        elif isinstance(change, Publish):
            previous = change.previous
            if previous is not None and not previous.deleted:
                self._superseded[change.key, previous.version] = (previous, change.at_ms)
            self._current[change.key] = change.record
            self._keep(change.staged)
        elif isinstance(change, Refresh):
            self._keep(change.staged)
        else:
            fence = (*change.epoch[1:], change.at_ms)
            job = change.owner, change.epoch.job_id
            self._fences[job] = max(fence, self._fences.get(job, fence))

    def _keep(self, staged: Staged | None) -> None:
        if staged is not None:
            assert isinstance(staged.handle, bytes)
            self._bytes[staged.owner, staged.sha256] = staged.handle

    async def sweep(self, cutoffs: Cutoffs, limit: int) -> Swept:
        freed: dict[bytes, Usage] = {}
        old = [k for k, (_, at) in self._superseded.items() if at < cutoffs.superseded_ms][:limit]
        dead = [
            key
            for key, record in self._current.items()
            if record.deleted and record.modified_at_ms < cutoffs.tombstones_ms
        ][:limit]
        for each in old:
            self._free(freed, each[0].owner, self._superseded.pop(each)[0].size)
        for key in dead:
            self._free(freed, key.owner, self._current.pop(key).size)
        past = [j for j, (*_, at) in self._fences.items() if at < cutoffs.fences_ms][:limit]
        for job in past:
            self._free(freed, job[0], 0)
            del self._fences[job]
        return Swept(freed, limit in (len(old), len(dead), len(past)))

    def _free(self, freed: dict[bytes, Usage], owner: bytes, size: int) -> None:
        before = freed.get(owner, Usage())
        freed[owner] = Usage(before.size_bytes + size, before.rows + 1)

    def stage(self, owner: bytes, size: int) -> DictStage:
        return DictStage(owner)

    async def discard(self, staged: Staged) -> None: ...

    async def open(self, key: ObjectKey, version: Version | None) -> Content | ObjectRecord | None:
        found = self._current.get(key)
        if version is not None and (found is None or found.version != version):
            found = self._superseded.get((key, version), (None, 0))[0]
        if found is None or found.deleted:
            return found
        return DictContent(found, self._bytes[key.owner, found.sha256])

    async def corrupt(self, owner: bytes, limit: int) -> Sequence[ObjectKey]:
        return []
