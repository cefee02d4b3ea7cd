"""`alpyne put` and `alpyne get`: files and folders to and from containers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from alpyne_grid.tools.exit_codes import ExitCode
from alpyne_grid.tools.option_types import as_json
from alpyne_grid.tools.quantities import size_text
from alpyne_grid.tools.remote_paths import RemotePath, remote_path
from alpyne_grid.tools.screen import note, print_json

if TYPE_CHECKING:
    from alpyne_grid.manager import AsyncContainer, AsyncManager
    from alpyne_grid.manager.trees import Transfer

_STDIN = "-"


# ---- put ----


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("target", type=remote_path, metavar="CONTAINER:[PATH]")
@click.option(
    "--copies",
    type=click.IntRange(1, 16),
    metavar="N",
    help="Data nodes that keep each object; of a new container (default: 2).",
)
@click.option("--if-absent", is_flag=True, help="Only where there is no object yet.")
@as_json
def put(
    sources: tuple[str, ...],
    target: RemotePath,
    copies: int | None,
    if_absent: bool,
    as_json: bool,
) -> int:
    """Write files and folders into a container.

    A file goes to PATH; with several of them, or a PATH that ends in /, below it under its own
    name. Of a folder all files go below PATH under their paths in it; those that are there already
    with the same bytes are not sent again. SOURCE - is standard input.
    """
    from alpyne_grid.tools.grid import with_grid

    folders = [source for source in sources if Path(source).is_dir()]
    if if_absent and folders:
        raise click.UsageError(f"--if-absent is for files, and {folders[0]} is a folder")
    for source in sources:
        if source != _STDIN and not Path(source).exists():
            raise click.UsageError(f"{source}: no such file or folder")
    places = {s: _place(s, sources, target) for s in sources if s not in folders}

    async def work(grid: "AsyncManager") -> list[dict[str, Any]]:
        container = grid.container(target.container, copies)
        await container.describe()  # what is wrong with the container is said first
        return [
            await _put_folder(container, Path(source), target)
            if source in folders
            else await _put_file(grid, container, source, places[source], if_absent)
            for source in sources
        ]

    done = with_grid(work)
    if as_json:
        print_json(done)
    return ExitCode.OK


def _place(source: str, sources: Sequence[str], target: RemotePath) -> RemotePath:
    """Return where a file goes."""
    if not target.is_folder and len(sources) == 1:
        return target
    if source == _STDIN:
        raise click.UsageError("standard input needs a PATH of its own: CONTAINER:PATH")
    slash = "" if target.is_folder else "/"
    return RemotePath(target.container, f"{target.path}{slash}{Path(source).name}")


async def _put_file(
    grid: "AsyncManager",
    container: "AsyncContainer",
    source: str,
    place: RemotePath,
    if_absent: bool,
) -> dict[str, Any]:
    from alpyne_grid.tools.objects import object_as_dict
    from alpyne_grid.tools.transfers import byte_bar

    if source == _STDIN:
        item = await container.put(place.path, sys.stdin.buffer, if_absent=if_absent)
    else:
        file = Path(source)
        total = _size(file) * (await container.describe()).copies
        async with byte_bar(grid, f"put {file.name}", total, sending=True):
            item = await container.put(place.path, file, if_absent=if_absent)
    copies = len(item.holders)
    note(f"{place}: {size_text(item.size)}, {copies} {'copy' if copies == 1 else 'copies'}")
    return object_as_dict(place.container, item)


def _size(file: Path) -> int:
    return file.stat().st_size


async def _put_folder(
    container: "AsyncContainer", folder: Path, target: RemotePath
) -> dict[str, Any]:
    from alpyne_grid.tools.transfers import file_bar

    slash = "" if target.is_folder else "/"
    prefix = f"{target.path}{slash}"
    with file_bar(f"put {folder}") as show:
        done = await container.push_tree(folder, prefix=prefix, on_progress=show)
    _say_transfer(f"{target.container}:{prefix}", done)
    return {"container": target.container, "prefix": prefix, **_transfer(done)}


# ---- get ----


@click.command()
@click.argument("source", type=remote_path, metavar="CONTAINER:[PATH]")
@click.argument("target", default="", metavar="[TARGET]")
@click.option(
    "--allow-stale",
    is_flag=True,
    help="One object: also when too few data nodes answer to know its newest version.",
)
@as_json
def get(source: RemotePath, target: str, allow_stale: bool, as_json: bool) -> int:
    """Read objects into files and folders.

    PATH names one object; TARGET is a file, a folder, or - for standard output (default: a file of
    its name here). A PATH that ends in /, or none, means all objects below it, and a pattern
    ("**/*.txt", quoted) all that match: TARGET is then a folder (default: here). Files that have
    the bytes already stay as they are. A file appears whole or not at all.
    """
    from alpyne_grid.tools.grid import with_grid

    async def work(grid: "AsyncManager") -> dict[str, Any]:
        from alpyne_grid.tools.objects import existing

        container = await existing(grid, source.container)
        if source.is_folder or source.is_pattern:
            return await _get_many(container, source, Path(target or "."))
        return await _get_one(grid, container, source, target, allow_stale)

    done = with_grid(work)
    if as_json and target != "-":
        print_json(done)
    return ExitCode.OK


async def _get_one(
    grid: "AsyncManager",
    container: "AsyncContainer",
    source: RemotePath,
    target: str,
    allow_stale: bool,
) -> dict[str, Any]:
    from alpyne_grid.tools.objects import object_as_dict, one_object
    from alpyne_grid.tools.transfers import byte_bar

    item = await one_object(container, source, allow_stale=allow_stale)
    result = object_as_dict(source.container, item)
    if target == "-":
        async for piece in container.stream(item):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return result
    file = Path(target) if target else Path(item.path.rpartition("/")[2])
    if target.endswith("/") or file.is_dir():
        file = file / item.path.rpartition("/")[2]
    async with byte_bar(grid, f"get {file.name}", item.size, sending=False):
        await container.pull(item, file)
    note(f"{file}: {size_text(item.size)}")
    return {**result, "file": str(file)}


async def _get_many(
    container: "AsyncContainer", source: RemotePath, folder: Path
) -> dict[str, Any]:
    from alpyne_grid.tools.objects import NothingThere, objects_at
    from alpyne_grid.tools.transfers import file_bar

    async for _ in objects_at(container, source):
        break
    else:
        raise NothingThere(f"{source}: no object there; `alpyne ls {source.container}:` lists them")
    which = {"pattern": source.path} if source.is_pattern else {"prefix": source.path}
    with file_bar(f"get {source}") as show:
        done = await container.pull_tree(folder, on_progress=show, **which)
    _say_transfer(str(folder), done)
    return {"container": source.container, **which, "folder": str(folder), **_transfer(done)}


# ---- what they say ----


def _transfer(done: "Transfer") -> dict[str, Any]:
    return {
        "files": done.files,
        "size_bytes": done.size_bytes,
        "unchanged": done.unchanged,
        "skipped": done.skipped,
    }


def _say_transfer(where: str, done: "Transfer") -> None:
    unchanged = f", {done.unchanged} unchanged" if done.unchanged else ""
    note(f"{where}: {done.files} files, {size_text(done.size_bytes)}{unchanged}")
    for path, why in done.skipped.items():
        note(f"skipped {path}: {why}")
