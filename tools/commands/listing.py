"""`alpyne ls` and `alpyne rm`: what containers hold."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from alpyne_grid.tools.exit_codes import ExitCode
from alpyne_grid.tools.option_types import as_json
from alpyne_grid.tools.quantities import size_text
from alpyne_grid.tools.remote_paths import RemotePath, remote_path
from alpyne_grid.tools.screen import Column, clean, note, print_json, print_table

if TYPE_CHECKING:
    from alpyne_grid.manager import AsyncContainer, AsyncManager, JobObject


# ---- ls ----


@click.command()
@click.argument("place", type=remote_path, required=False, metavar="[CONTAINER:[PATH]]")
@click.option("--long", "-l", "is_long", is_flag=True, help="Also sizes, versions and copies.")
@click.option(
    "--allow-stale", is_flag=True, help="Also when too few data nodes answer to know the newest."
)
@as_json
def ls(place: RemotePath | None, is_long: bool, allow_stale: bool, as_json: bool) -> int:
    """List your containers, or the objects of one.

    PATH is the beginning of paths, or a pattern ("**/*.txt", quoted).
    """
    from alpyne_grid.tools.grid import with_grid
    from alpyne_grid.tools.objects import object_as_dict

    if place is None:
        return with_grid(lambda grid: _list_containers(grid, is_long, as_json))
    where = place

    async def work(grid: "AsyncManager") -> list["JobObject"]:
        from alpyne_grid.tools.objects import existing, objects_at

        container = await existing(grid, where.container)
        found = []
        async for item in objects_at(container, where, allow_stale=allow_stale):
            found.append(item)
            if not (is_long or as_json):
                click.echo(clean(item.path))
        return found

    items = with_grid(work)
    if as_json:
        print_json([object_as_dict(where.container, item) for item in items])
    elif is_long:
        print_table(_OBJECT_COLUMNS, [_row(item) for item in items])
    if not items:
        note(f"{where}: no objects")
        return ExitCode.NOT_FOUND if where.path else ExitCode.OK
    return ExitCode.OK


_OBJECT_COLUMNS = [
    Column("SIZE", right=True),
    Column("VERSION", right=True),
    Column("COPIES", right=True),
    Column("SHA-256"),
    Column("PATH", wraps=True),
]


def _row(item: "JobObject") -> list[str]:
    copies = str(len(item.holders))
    return [size_text(item.size), str(item.counter), copies, item.sha256.hex()[:12], item.path]


async def _list_containers(grid: "AsyncManager", is_long: bool, as_json: bool) -> ExitCode:
    rows = []
    for container in await grid.containers():
        nodes = [grid.core.node_name(key) for key in container.members]
        entry: dict[str, Any] = {"name": container.name, "copies": container.copies, "nodes": nodes}
        if is_long:
            sizes = [item.size async for item in grid.container(container.name).ls()]
            entry |= {"objects": len(sizes), "size_bytes": sum(sizes)}
        rows.append(entry)
    if as_json:
        print_json(rows)
        return ExitCode.OK
    if not rows:
        note("You have no containers; `alpyne put FILE CONTAINER:` makes one.")
        return ExitCode.OK
    columns = [Column("CONTAINER"), Column("COPIES", right=True), Column("NODES", wraps=True)]
    lines = [[row["name"], str(row["copies"]), ", ".join(row["nodes"])] for row in rows]
    if is_long:
        columns[2:2] = [Column("OBJECTS", right=True), Column("SIZE", right=True)]
        for line, row in zip(lines, rows, strict=True):
            line[2:2] = [str(row["objects"]), size_text(row["size_bytes"])]
    print_table(columns, lines)
    return ExitCode.OK


# ---- rm ----


@click.command()
@click.argument("places", nargs=-1, required=True, type=remote_path, metavar="CONTAINER:PATH...")
@click.option("--recursive", "-r", is_flag=True, help="All objects below a PATH that ends in /.")
@click.option("--force", "-f", is_flag=True, help="It is well when there is nothing.")
@as_json
def rm(places: tuple[RemotePath, ...], recursive: bool, force: bool, as_json: bool) -> int:
    """Delete objects.

    PATH names one, a pattern (quoted) all that match, and with -r a path that ends in / all below
    it. Who reads a deleted version at the time may finish; it goes for good after an hour.
    """
    from alpyne_grid.tools.grid import with_grid

    for place in places:
        if place.is_folder and not recursive:
            raise click.UsageError(f"{place}: to delete all objects below it, give --recursive")
    removed = with_grid(lambda grid: _remove(grid, places, force=force))
    if as_json:
        print_json([str(place) for place in removed])
    else:
        note(f"{len(removed)} object{'' if len(removed) == 1 else 's'} deleted")
    return ExitCode.OK


async def _remove(
    grid: "AsyncManager", places: Sequence[RemotePath], *, force: bool
) -> list[RemotePath]:
    from alpyne_grid.tools.objects import (
        NothingThere,
        existing,
        objects_at,
        one_object,
        side_by_side,
    )

    chosen: dict[RemotePath, AsyncContainer] = {}
    for place in places:
        try:
            container = await existing(grid, place.container)
            if place.is_folder or place.is_pattern:
                found = [item.path async for item in objects_at(container, place)]
                if not found:
                    raise NothingThere(f"{place}: no object there")
            else:
                found = [(await one_object(container, place)).path]
        except NothingThere:
            if not force:
                raise
            continue
        chosen |= {RemotePath(place.container, path): container for path in found}

    def removal(place: RemotePath, container: "AsyncContainer") -> Callable[[], Awaitable[None]]:
        return lambda: container.delete(place.path, missing_ok=True)

    await side_by_side([removal(place, container) for place, container in chosen.items()])
    return list(chosen)
