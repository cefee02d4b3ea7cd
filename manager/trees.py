"""Folders and containers: push_tree and pull_tree, and files that are written safely.

No path leaves its folder and no link is followed, in either direction.
"""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpyne_grid.manager.errors import UnsafePath
from alpyne_grid.manager.safe_files import Place
from alpyne_grid.manager.writes import all_or_none

from alpyne_proto.container import NameRefused, check_path, check_prefix
from alpyne_proto.jobobject import JobObject

if TYPE_CHECKING:
    from alpyne_grid.manager.objects import AsyncContainer

AT_ONCE = 16  # files under way


@dataclass(slots=True)
class Transfer:
    """What a push or pull of a folder did.

    ``files``, ``size_bytes``: transferred. ``unchanged``: there already. ``total``: files that
    there are to transfer. ``skipped``: path -> why
    (links, special files, names that are not legal).
    """

    files: int = 0
    size_bytes: int = 0
    unchanged: int = 0
    total: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


async def push_tree(
    container: "AsyncContainer",
    folder: Path,
    *,
    prefix: str = "",
    pattern: str = "**/*",
    at_once: int = AT_ONCE,
    on_progress: Callable[[Transfer], None] = lambda transfer: None,
) -> Transfer:
    """Write the files below ``folder`` that match ``pattern`` under ``prefix`` + relative path.

    Links are not followed. A file whose newest version has the same bytes is not sent. Raises what
    ``put`` raises; files that were written stay.
    """
    check_prefix(prefix)
    done = Transfer()
    loop = asyncio.get_running_loop()
    files = await loop.run_in_executor(None, _files_below, folder, pattern, done)
    known = {item.path: item async for item in container.ls(prefix)}

    async def push(file: Path, relative: str) -> None:
        path = prefix + relative
        size = await _push_one(container, file, path, known.get(path))
        if size < 0:
            done.unchanged += 1
        else:
            done.files += 1
            done.size_bytes += size
        on_progress(done)

    done.total = len(files)
    await _all_of([partial(push, *file) for file in files], at_once)
    return done


async def pull_tree(
    container: "AsyncContainer",
    folder: Path,
    *,
    prefix: str = "",
    pattern: str = "",
    at_once: int = AT_ONCE,
    on_progress: Callable[[Transfer], None] = lambda transfer: None,
) -> Transfer:
    """Write the objects below ``prefix``, or those that match ``pattern``, as files in ``folder``.

    ``folder`` is made where it is missing. Files that have the object's bytes are left as they are.
    Raises UnsafePath for a path that this system would understand as another, or that leads over a
    link, before anything is written outside; and what ``pull`` raises.
    """
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, lambda: folder.mkdir(parents=True, exist_ok=True))
    done = Transfer()
    found: AsyncIterator[JobObject]
    found = container.glob(pattern) if pattern else container.ls(prefix)

    async def pull(item: JobObject) -> None:
        relative = item.path.removeprefix(prefix)
        place = Place.below(folder, relative.removeprefix("/") if prefix else relative)
        if await loop.run_in_executor(None, _has_bytes, place, item):
            done.unchanged += 1
        else:
            await container.pull_to(item, place)
            done.files += 1
            done.size_bytes += item.size
        on_progress(done)

    work = [partial(pull, item) async for item in found]
    done.total = len(work)
    await _all_of(work, at_once)
    return done


def _has_bytes(place: Place, item: JobObject) -> bool:
    return place.digest() == (item.size, item.sha256)


def _files_below(folder: Path, pattern: str, done: Transfer) -> list[tuple[Path, str]]:
    """Return files and their relative paths; what cannot be pushed is noted in ``done``."""
    if not folder.is_dir():
        raise UnsafePath(f"{folder}: is no folder; to write one file use push")
    files = []
    for file in sorted(folder.glob(pattern)):
        relative = file.relative_to(folder).as_posix()
        why = _unfit(folder, file, relative)
        if why:
            done.skipped[relative] = why
        elif not file.is_dir():
            files.append((file, relative))
    return files


def _unfit(folder: Path, file: Path, relative: str) -> str:
    mode = file.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "a link"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "no regular file"
    parents = (parent for parent in file.parents if parent.is_relative_to(folder))
    if any(parent.is_symlink() for parent in parents if parent != folder):
        return "below a link"
    try:
        check_path(relative)
    except NameRefused as error:
        return str(error)
    return ""


async def _push_one(
    container: "AsyncContainer", file: Path, path: str, known: JobObject | None
) -> int:
    """Write one file; return its size, or -1 where the newest version has the same bytes."""
    loop = asyncio.get_running_loop()
    if known is not None:
        place = Place.of_file(file)
        if await loop.run_in_executor(None, place.digest) == (known.size, known.sha256):
            return -1
    return (await container.put(path, file)).size


async def _all_of(work: Sequence[Callable[[], Any]], at_once: int) -> None:
    """Run coroutines, so many at once; the first failure ends the others and is raised."""
    waiting = iter(work)

    async def lane() -> None:
        for make in waiting:
            await make()

    await all_or_none([lane() for _ in range(min(at_once, len(work)))])
