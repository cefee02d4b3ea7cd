"""Changes in groups: what waits while one transaction runs goes into the next.

commit(changes) --> queue --> group --> draft of the documents --> one transaction --> done
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from alpyne_grid.nodes.data.backends.mongo.changes import ChangeRefused, Draft, blob_of
from alpyne_grid.nodes.data.backends.mongo.link import MongoLink, Session
from alpyne_grid.nodes.data.backends.mongo.schema import box_of
from alpyne_grid.nodes.data.backends.mongo.transactions import Effect, Transactor
from alpyne_grid.nodes.data.records import Change, KeepContainer, Publish, RaiseFence, Refresh
from alpyne_grid.nodes.store import StoreFailed

GROUP_MAX = 64  # batches of one transaction; bounds how long the first waits for the last
GROUP_BYTES = 4 << 20  # of small contents in one transaction


@dataclass(slots=True)
class _Batch:
    changes: Sequence[Change]
    done: "asyncio.Future[None]"
    size: int  # bytes of small contents


class Committer:
    """Commits batches in the order of the calls."""

    def __init__(self, link: MongoLink, transactor: Transactor) -> None:
        self._link = link
        self._transactor = transactor
        self._queue: deque[_Batch] = deque()
        self._task: asyncio.Task[None] | None = None

    async def commit(self, changes: Sequence[Change]) -> None:
        """Return when ``changes`` are committed. Raises StoreFailed."""
        done = asyncio.get_running_loop().create_future()
        self._queue.append(_Batch(changes, done, _small_bytes(changes)))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        await done

    async def close(self) -> None:
        """Return when what waits is committed, or has failed."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    # ---- groups ----

    async def _drain(self) -> None:
        try:
            while self._queue:
                await self._commit_group(self._next_group())
        finally:
            self._task = None

    def _next_group(self) -> list[_Batch]:
        group = [self._queue.popleft()]
        size = group[0].size
        while self._queue and len(group) < GROUP_MAX:
            size += self._queue[0].size
            if size > GROUP_BYTES:
                break
            group.append(self._queue.popleft())
        return group

    async def _commit_group(self, group: list[_Batch]) -> None:
        refused: dict[int, ChangeRefused] = {}

        async def write(session: Session) -> tuple[None, Effect]:
            refused.clear()
            draft = await self._read(group, session)
            for at, batch in enumerate(group):
                try:
                    draft.take(batch.changes)
                except ChangeRefused as error:
                    refused[at] = error
            for collection, writes in draft.writes(self._transactor.run_name).items():
                await self._link[collection].bulk_write(writes, session=session)
            return None, Effect(dict(draft.usages), frozenset(draft.files))

        try:
            await self._transactor.run(write, "committing changes")
        except StoreFailed as error:
            for batch in group:
                _settle(batch, StoreFailed(str(error)))
            return
        for at, batch in enumerate(group):
            why = refused.get(at)
            _settle(batch, StoreFailed(f"{why}; nothing was changed; try again") if why else None)

    async def _read(self, group: list[_Batch], session: Session) -> Draft:
        """Return a draft of all documents that the group may change."""
        boxes, jobs = set(), set()
        places: dict[bytes, list[str]] = {}
        for change in (change for batch in group for change in batch.changes):
            if isinstance(change, Publish | Refresh):
                boxes.add(box_of(change.key))
                places.setdefault(box_of(change.key), []).append(change.key.path)
            elif isinstance(change, KeepContainer):
                boxes.add(change.owner + change.descriptor.container_id)
            elif isinstance(change, RaiseFence):
                jobs.add(change.owner + change.epoch.job_id)
        draft, link = Draft(), self._link
        if boxes:
            async for doc in link["containers"].find(
                {"_id": {"$in": list(boxes)}}, session=session
            ):
                draft.containers[doc["_id"]] = doc
        for box, paths in places.items():
            wanted = {"box": box, "path": {"$in": paths}}
            async for doc in link["objects"].find(wanted, session=session):
                draft.objects[box, doc["path"]] = doc
        if jobs:
            async for doc in link["fences"].find({"_id": {"$in": list(jobs)}}, session=session):
                draft.fences[doc["_id"]] = doc
        return draft


def _small_bytes(changes: Sequence[Change]) -> int:
    staged = (change.staged for change in changes if isinstance(change, Publish | Refresh))
    return sum(each.size for each in staged if each and blob_of(each).chunks is not None)


def _settle(batch: _Batch, error: StoreFailed | None) -> None:
    if batch.done.done():  # whoever waited has been cancelled
        return
    if error is None:
        batch.done.set_result(None)
    else:
        batch.done.set_exception(error)
