"""`alpyne suspend` and `alpyne resume`: jobs that pause, and go on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from alpyne_grid.tools import job_ids
from alpyne_grid.tools.commands.waiting import check_chosen, find_jobs
from alpyne_grid.tools.exit_codes import ExitCode, exit_code_of
from alpyne_grid.tools.option_types import as_json
from alpyne_grid.tools.screen import note, print_facts, print_json

from alpyne_proto.errors import AlpyneError

if TYPE_CHECKING:
    from alpyne_grid.manager import AsyncJob, AsyncManager

PAUSE_WAIT_S = 30.0


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--tag", default="", metavar="TAG", help="All jobs with this tag.")
@as_json
def suspend(ids: tuple[str, ...], tag: str, as_json: bool) -> int:
    """Pause jobs with all their processes.

    It returns when the nodes have done it. A job that waits is paused as soon as it runs, one that
    has ended stays as it is. A paused job keeps its slots and memory, and its timeout does not go
    on; `alpyne resume` lets it go on, `alpyne cancel` ends it.
    """
    return _run(ids, tag, as_json, pause=True)


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--tag", default="", metavar="TAG", help="All jobs with this tag.")
@as_json
def resume(ids: tuple[str, ...], tag: str, as_json: bool) -> int:
    """Let paused jobs go on.

    It returns when the nodes have done it. A job that is not paused stays as it is.
    """
    return _run(ids, tag, as_json, pause=False)


def _run(ids: Sequence[str], tag: str, as_json: bool, *, pause: bool) -> int:
    from alpyne_grid.tools.grid import with_grid

    check_chosen(ids, tag)

    async def work(grid: "AsyncManager") -> ExitCode:
        jobs = await find_jobs(grid, ids, tag)
        return _show([await _pause(grid, job, pause=pause) for job in jobs], as_json)

    return with_grid(work)


Paused = tuple[dict[str, Any], AlpyneError | None]


async def _pause(grid: "AsyncManager", job: "AsyncJob", *, pause: bool) -> Paused:
    """Pause or resume one job; return how it stands for JSON, and why it could not be."""
    error = None
    state = job.state
    try:
        asked = job.suspend() if pause else job.resume()
        # The node's answer to this comes after it has heard the other: nothing is left on the way.
        state = (await grid.job(job.job_id)).state
        if not (pause and state.name in ("QUEUED", "STARTING")):
            state = await asked.wait(PAUSE_WAIT_S)
    except AlpyneError as why:
        error = why
    shown = {
        "id": job_ids.full_text(job.job_id),
        "state": state.name,
        "node": job.node,
        "error": str(error) if error is not None else None,
    }
    return shown, error


def _show(ends: list[Paused], as_json: bool) -> ExitCode:
    if as_json:
        print_json([shown for shown, _ in ends])
    else:
        print_facts((shown["id"], _line(shown)) for shown, error in ends if error is None)
    errors = [error for _, error in ends if error is not None]
    for error in errors:
        note(str(error))
    if not errors:
        return ExitCode.OK
    return exit_code_of(errors[0]) if len(errors) == len(ends) else ExitCode.PARTLY


def _line(shown: dict[str, Any]) -> str:
    word = str(shown["state"]).lower()
    return f"{word}: is suspended as soon as it runs" if word in ("queued", "starting") else word
