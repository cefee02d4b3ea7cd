"""AsyncContainer: objects of one container, with their versions and copies."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpyne_grid.manager import contents, results, trees
from alpyne_grid.manager.containers import Containers
from alpyne_grid.manager.errors import (
    ContainerError,
    ObjectNotFound,
)
from alpyne_grid.manager.listing import Listing
from alpyne_grid.manager.program import value_rows
from alpyne_grid.manager.reads import ReadNodes, Reads
from alpyne_grid.manager.safe_files import Place
from alpyne_grid.manager.versions import Descriptor, Newest, Version, newest, version_of
from alpyne_grid.manager.writes import ANYTHING, Condition, Writes

from alpyne_proto.container import check_path, check_pattern, check_prefix
from alpyne_proto.jobobject import TO_THE_END, JobObject, ObjectReader
from alpyne_proto.messages import data as messages

VersionLike = JobObject | Version


@dataclass(frozen=True, slots=True)
class Store:
    """What all containers of a manager share."""

    nodes: ReadNodes
    containers: Containers
    reads: Reads
    writes: Writes
    reader: Callable[[], ObjectReader | None]  # what objects handed out are read with


class AsyncContainer:
    """A named tree of objects, each kept in k copies on the container's data nodes.

    It is looked up, or made, on first use. ``copies``: k; ``members``: keys of its data nodes; both
    only where it is made.
    """

    def __init__(
        self, store: Store, name: str, copies: int | None = None, members: Collection[bytes] = ()
    ) -> None:
        self.name = name
        self.id = store.containers.id_of(name)
        self._store = store
        self._copies = copies
        self._members = tuple(members)
        self._descriptor: Descriptor | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<container {self.name!r}>"

    async def describe(self) -> Descriptor:
        """Return who keeps its objects, and in how many copies."""
        if self._descriptor is None:
            async with self._opening:
                if self._descriptor is None:
                    self._descriptor = await self._store.containers.open(
                        self.name, self._copies, self._members
                    )
        return self._descriptor

    async def reconfigure(
        self, *, copies: int | None = None, members: Collection[bytes] = ()
    ) -> Descriptor:
        """Change copies or members from now on; objects that are there stay where they are."""
        before = await self.describe()
        self._descriptor = await self._store.containers.reconfigure(
            before, copies or before.copies, tuple(members) or before.members
        )
        return self._descriptor

    # --- writing ----------------------------------------------------------------------------

    async def put(
        self,
        path: str,
        content: contents.Given,
        *,
        if_absent: bool = False,
        if_version: VersionLike | None = None,
    ) -> JobObject:
        """Write a new version of an object: bytes, a pathlib.Path, a binary file, or an iterable.

        Readers see the old version or the new one, whole. ``if_absent``: only where there is none;
        ``if_version``: only where exactly this version stands. Raises VersionConflict,
        NotEnoughCopies, NameRefused.
        """
        check_path(path)
        condition = condition_of(if_absent=if_absent, if_version=if_version)
        where = await self.describe()
        content_found = await contents.content_of(content)
        try:
            version, holders = await self._store.writes.put(where, path, content_found, condition)
            sha256 = content_found.sha256()
            return self._object(path, version, content_found.size, sha256, holders)
        finally:
            content_found.close()

    async def put_value(self, path: str, value: Any, **how: Any) -> JobObject:
        """Write a value, so that ``.value()`` of the object returns it, here and in jobs."""
        return await self.put(path, value_rows(value), **how)

    async def delete(
        self, path: str, *, if_version: VersionLike | None = None, missing_ok: bool = False
    ) -> None:
        """Delete an object. Raises ObjectNotFound, VersionConflict, NotEnoughCopies."""
        check_path(path)
        where = await self.describe()
        before = await self._store.writes.ask_newest(where, path)
        if not before.exists:
            if missing_ok:
                return
            raise self._not_found(path)
        await self._store.writes.delete(where, path, condition_of(if_version=if_version))

    # --- reading ----------------------------------------------------------------------------

    async def stat(self, path: str, *, allow_stale: bool = False) -> JobObject:
        """Return the newest version of an object.

        Raises ObjectNotFound, and MaybeStale where fewer than n - k + 1 members answer.
        """
        check_path(path)
        where = await self.describe()
        needed = 1 if allow_stale else where.answers_needed
        found = await self._store.writes.ask_newest(where, path, needed=needed)
        return self._of(path, found)

    async def exists(self, path: str, *, allow_stale: bool = False) -> bool:
        """Return whether there is an object under ``path``."""
        try:
            await self.stat(path, allow_stale=allow_stale)
        except ObjectNotFound:
            return False
        return True

    async def get(
        self,
        path: str | JobObject,
        offset: int = 0,
        length: int = TO_THE_END,
        *,
        allow_stale: bool = False,
    ) -> bytes:
        """Return an object's bytes; where a node fails, they come from another.

        Raises ObjectNotFound, MaybeStale, ObjectUnavailable.
        """
        item = await self._resolved(path, allow_stale=allow_stale)
        return await self._store.reads.read(item, offset, length)

    async def stream(
        self, path: str | JobObject, *, allow_stale: bool = False
    ) -> AsyncIterator[bytes]:
        """Yield an object's bytes as they come; its SHA-256 is checked at the end."""
        item = await self._resolved(path, allow_stale=allow_stale)
        async for piece in self._store.reads.stream(item):
            yield piece

    async def value(self, path: str | JobObject) -> Any:
        """Return the value that a value object holds."""
        item = await self._resolved(path, allow_stale=False)
        return results.decode_value(await self._store.reads.read(item), item.codec)

    async def pull(
        self, path: str | JobObject, target: str | Path, *, allow_stale: bool = False
    ) -> JobObject:
        """Write an object to a file, which appears whole or not at all; return what was read."""
        item = await self._resolved(path, allow_stale=allow_stale)
        place = Place.of_file(Path(target))
        await self.pull_to(item, place)
        return item

    async def pull_to(self, item: JobObject, place: Place) -> None:
        """Write ``item`` to a place below an open folder."""
        loop = asyncio.get_running_loop()
        temporary = await loop.run_in_executor(None, place.temporary)
        try:
            descriptor = await self._store.reads.to_file(item, temporary.open_empty)
            os.close(descriptor)
            await loop.run_in_executor(None, temporary.publish)
        finally:
            await loop.run_in_executor(None, temporary.discard)

    # --- lists ------------------------------------------------------------------------------

    def ls(
        self, prefix: str = "", *, after: str = "", allow_stale: bool = False
    ) -> AsyncIterator[JobObject]:
        """Iterate over the objects whose path begins with ``prefix``, in path order."""
        check_prefix(prefix)
        return self._list(prefix=prefix, after=after, allow_stale=allow_stale)

    def glob(self, pattern: str, *, allow_stale: bool = False) -> AsyncIterator[JobObject]:
        """Iterate over the objects that match: ``*`` within a segment, ``**`` across them."""
        check_pattern(pattern)
        return self._list(pattern=pattern, allow_stale=allow_stale)

    async def _list(
        self, *, prefix: str = "", pattern: str = "", after: str = "", allow_stale: bool = False
    ) -> AsyncIterator[JobObject]:
        where = await self.describe()
        request = messages.ListObjects(where.container_id, prefix, pattern, after, 0, True)
        lists = Listing(self._store.nodes, where, request, 1 if allow_stale else None)
        try:
            await lists.begin()
            async for path, answers in lists:
                found = newest(answers)
                if found.exists:
                    yield self._of(path, found)
        finally:
            lists.close()

    # --- folders ----------------------------------------------------------------------------

    async def push_tree(self, folder: str | Path, **how: Any) -> trees.Transfer:
        """Write the files below a folder, under their relative paths; see trees.push_tree."""
        return await trees.push_tree(self, Path(folder), **how)

    async def pull_tree(self, folder: str | Path, **how: Any) -> trees.Transfer:
        """Write the objects as files below a folder; see trees.pull_tree."""
        return await trees.pull_tree(self, Path(folder), **how)

    # --- private ----------------------------------------------------------------------------

    async def _resolved(self, path: str | JobObject, *, allow_stale: bool) -> JobObject:
        if isinstance(path, JobObject):
            return path
        return await self.stat(path, allow_stale=allow_stale)

    def _of(self, path: str, found: Newest) -> JobObject:
        info = found.info
        if info is None or info.deleted:
            raise self._not_found(path)
        return self._object(path, version_of(info), info.size, info.sha256, found.holders)

    def _object(
        self, path: str, version: Version, size: int, sha256: bytes, holders: tuple[bytes, ...]
    ) -> JobObject:
        reader = self._store.reader()
        return JobObject(self.id, path, *version, size, sha256, holders, reader=reader)

    def _not_found(self, path: str) -> ObjectNotFound:
        return ObjectNotFound(f"object {path!r}: there is none in container {self.name!r}")


def condition_of(*, if_absent: bool = False, if_version: VersionLike | None = None) -> Condition:
    """Return the condition that the program's words mean."""
    if if_absent and if_version is not None:
        raise ContainerError("if_absent and if_version exclude each other; give one of them")
    if if_absent:
        return Condition(messages.Expect.ABSENT)
    if if_version is None:
        return ANYTHING
    if isinstance(if_version, JobObject):
        if_version = (if_version.counter, if_version.writer)
    return Condition(messages.Expect.VERSION, if_version)
