"""A data back end on a bench: the shortest ways to put things into it, and to read them again."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from alpyne_grid.nodes.data.backends.base import DataBackend
from alpyne_grid.nodes.data.records import (
    Cutoffs,
    Descriptor,
    KeepContainer,
    ObjectKey,
    ObjectRecord,
    ObjectSpan,
    Publish,
    Staged,
    Version,
)

ANN, BOB = b"a" * 32, b"b" * 32
BOX = b"c" * 16
JOB = b"j" * 16
LARGE = bytes(range(256)) * 2800  # some 700 KB: more than any back end keeps in a row
NEVER = Cutoffs(0, 0, 0)
ALWAYS = Cutoffs(1 << 60, 1 << 60, 1 << 60)


def key(path: str, owner: bytes = ANN) -> ObjectKey:
    return ObjectKey(owner, BOX, path)


def version(counter: int) -> Version:
    return Version(counter, b"w" * 16)


def descriptor(counter: int = 1, container: bytes = BOX, copies: int = 2) -> Descriptor:
    members = (b"m" * 32, b"n" * 32)
    return Descriptor(container, f"name {container[0]}", copies, members, version(counter))


async def stage(backend: DataBackend, data: bytes, owner: bytes = ANN) -> Staged:
    """Bring a body in, in pieces."""
    incoming = backend.stage(owner, len(data))
    view = memoryview(data)
    for at in range(0, len(view), 50_000):
        if not incoming.feed(view[at : at + 50_000]):
            room = asyncio.Event()
            incoming.when_room(room.set)
            await room.wait()
    return await incoming.finish()


async def publish(
    backend: DataBackend, path: str, counter: int, data: bytes | None, owner: bytes = ANN
) -> ObjectRecord:
    """Put (or, with None, delete) as the object table would."""
    previous = (await backend.look_up(key(path, owner), b"")).current
    staged = None if data is None else await stage(backend, data, owner)
    record = ObjectRecord(version(counter), deleted=True, modified_at_ms=counter)
    if staged is not None:
        record = ObjectRecord(version(counter), staged.size, staged.sha256, False, counter)
    await backend.commit([Publish(key(path, owner), record, previous, staged, counter)])
    return record


async def read(
    backend: DataBackend,
    path: str,
    at: Version | None = None,
    offset: int = 0,
    length: int | None = None,
    owner: bytes = ANN,
) -> bytes | None:
    """Return bytes of a version; None where there is none, or a tombstone."""
    content = await backend.open(key(path, owner), at)
    if content is None or isinstance(content, ObjectRecord):
        return None
    length = content.record.size - offset if length is None else length
    chunks = content.chunks(offset, length)
    assert isinstance(chunks, AsyncGenerator)
    async with contextlib.aclosing(chunks):
        return b"".join([bytes(chunk) async for chunk in chunks])


async def paths(backend: DataBackend, span: ObjectSpan = ObjectSpan(), **more: Any) -> list[str]:  # noqa: B008
    """Return all paths of a span, page by page."""
    found: list[str] = []
    after: str | None = span.after
    while after is not None:
        span = ObjectSpan(span.prefix, after, span.tombstones)
        page = await backend.objects(ANN, BOX, span, more.get("accepts"), more.get("limit", 2))
        assert page is not None
        assert len(page.rows) <= more.get("limit", 2)
        found += [path for path, _ in page.rows]
        after = page.after
    return found


class DataBench:
    """Makes the back end; the parts of the contract inherit it."""

    def opened(self, folder: Path) -> AbstractAsyncContextManager[DataBackend]:
        """Return a context in which a started back end lives; ``folder`` is all it may use."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def with_boxes(self, folder: Path) -> "AsyncGenerator[DataBackend, None]":
        """Open a back end where two accounts have a container of the same id."""
        async with self.opened(folder) as backend:
            await backend.commit([KeepContainer(o, descriptor(), True) for o in (ANN, BOB)])
            yield backend
