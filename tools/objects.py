"""Objects that commands name: existing containers, what a path or pattern means there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from alpyne_grid.manager import AsyncContainer, AsyncManager, JobObject
from alpyne_grid.tools.remote_paths import RemotePath

from alpyne_proto.errors import AlpyneError, ErrorCode

AT_ONCE = 16


class NothingThere(AlpyneError):
    """No object, or no container, is where the command looked."""

    code = ErrorCode.NOT_FOUND


async def existing(grid: AsyncManager, name: str) -> AsyncContainer:
    """Return a container that there is; to look must not make one. Raises NothingThere."""
    known = [row.name for row in await grid.containers()]
    if name not in known:
        listed = ", ".join(known[:8]) or "none"
        raise NothingThere(f"container {name!r}: there is none; you have {listed} (`alpyne ls`)")
    return grid.container(name)


def objects_at(
    container: AsyncContainer, place: RemotePath, *, allow_stale: bool = False
) -> AsyncIterator[JobObject]:
    """Iterate over the objects that a folder or a pattern names, in path order."""
    if place.is_pattern:
        return container.glob(place.path, allow_stale=allow_stale)
    return container.ls(place.path, allow_stale=allow_stale)


async def one_object(
    container: AsyncContainer, place: RemotePath, *, allow_stale: bool = False
) -> JobObject:
    """Return the object under a path; NothingThere says so where it is a folder."""
    from alpyne_grid.manager import ObjectNotFound

    try:
        return await container.stat(place.path, allow_stale=allow_stale)
    except ObjectNotFound as error:
        async for _ in container.ls(f"{place.path}/", allow_stale=True):
            raise NothingThere(
                f"{place}: a folder, not an object; write {place}/ for all that is in it"
            ) from None
        raise NothingThere(f"{error}; `alpyne ls {place.container}:` lists what there is") from None


def object_as_dict(container: str, item: JobObject) -> dict[str, Any]:
    """Return an object for JSON."""
    return {
        "container": container,
        "path": item.path,
        "size_bytes": item.size,
        "sha256": item.sha256.hex(),
        "version": item.counter,
        "copies": len(item.holders),
    }


async def side_by_side(
    work: Iterable[Callable[[], Awaitable[Any]]], at_once: int = AT_ONCE
) -> None:
    """Do all of ``work``, some at once; the first failure ends the rest and is raised."""
    waiting = iter(work)

    async def lane() -> None:
        for one in waiting:
            await one()

    lanes = [asyncio.ensure_future(lane()) for _ in range(at_once)]
    try:
        await asyncio.gather(*lanes)
    finally:
        for one in lanes:
            one.cancel()
