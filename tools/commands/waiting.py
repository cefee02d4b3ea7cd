"""`alpyne wait` and `alpyne cancel`: the end of jobs that go on elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from alpyne_grid.tools import job_ids
from alpyne_grid.tools.exit_codes import ExitCode
from alpyne_grid.tools.option_types import as_json, duration
from alpyne_grid.tools.screen import note, print_facts, print_json

if TYPE_CHECKING:
    from alpyne_grid.manager import AsyncJob, AsyncManager

CANCEL_WAIT_S = 30.0


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--tag", default="", metavar="TAG", help="All jobs with this tag.")
@click.option("--timeout", type=duration, help="Wait no longer than this, as 10m.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    metavar="FOLDER",
    help="Where files that come back go (default: here).",
)
@as_json
def wait(ids: tuple[str, ...], tag: str, timeout: float | None, into: Path, as_json: bool) -> int:
    """Wait for jobs and print their results.

    They come in the order given, with --json one document per line. Waiting fetches a job's result:
    the node keeps it for one hour more. Exit code 1 if one of the jobs has failed, 6 if the timeout
    is over before all have ended.
    """
    from alpyne_grid.tools.grid import with_grid
    from alpyne_grid.tools.job_ends import EndOptions

    check_chosen(ids, tag)
    return with_grid(lambda grid: _wait(grid, ids, tag, timeout, EndOptions(as_json, into)))


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--tag", default="", metavar="TAG", help="All jobs with this tag.")
@as_json
def cancel(ids: tuple[str, ...], tag: str, as_json: bool) -> int:
    """End jobs with all their processes.

    It returns when the nodes have confirmed it. A job that has ended already stays as it is.
    """
    from alpyne_grid.tools.grid import with_grid

    check_chosen(ids, tag)
    return with_grid(lambda grid: _cancel(grid, ids, tag, as_json))


def check_chosen(ids: Sequence[str], tag: str) -> None:
    """Raise UsageError unless either ids or a tag is given."""
    if bool(ids) == bool(tag):
        raise click.UsageError("give the ids of jobs (`alpyne jobs` lists them), or --tag")


async def find_jobs(grid: "AsyncManager", ids: Sequence[str], tag: str) -> "list[AsyncJob]":
    """Return the jobs that ids (whole or shortened) or a tag name; raises JobNotFound."""
    wholes = [job_ids.parse_full(text) for text in ids]
    if ids and None not in wholes:
        return [await grid.job(whole) for whole in wholes if whole is not None]
    known = await grid.jobs(tag=tag)
    if tag:
        if not known:
            raise job_ids.JobNotFound(f"no job has the tag {tag!r}; `alpyne jobs` lists them")
        return list(known)
    by_id = {job.job_id: job for job in known}
    return [by_id[found] for found in job_ids.find_all(ids, by_id)]


async def _wait(
    grid: "AsyncManager", ids: Sequence[str], tag: str, timeout: float | None, options: Any
) -> ExitCode:
    import asyncio

    from alpyne_grid.manager import ResultTimeout
    from alpyne_grid.tools.job_ends import show_end

    jobs = await find_jobs(grid, ids, tag)
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    code = ExitCode.OK
    for job in jobs:
        try:
            await job.wait(None if deadline is None else max(0.0, deadline - loop.time()))
        except ResultTimeout:
            note(f"job {job_ids.full_text(job.job_id)} is {job.state.name.lower()} and goes on")
            code = ExitCode.TIMEOUT
            continue
        if len(jobs) > 1:
            note(f"job {job_ids.full_text(job.job_id)} {job.name}: {job.state.name.lower()}")
        ended = show_end(job, options)
        code = code if code is ExitCode.TIMEOUT else max(code, ended)
    return code


async def _cancel(grid: "AsyncManager", ids: Sequence[str], tag: str, as_json: bool) -> ExitCode:
    import asyncio

    jobs = await find_jobs(grid, ids, tag)
    waits = [asyncio.ensure_future(cancel_job(job)) for job in jobs]
    ends = [await one for one in waits]
    if as_json:
        print_json(ends)
    else:
        print_facts((end["id"], _line(end)) for end in ends)
    return ExitCode.FAILED if any(end["processes_left"] for end in ends) else ExitCode.OK


async def cancel_job(job: "AsyncJob") -> dict[str, Any]:
    """End one job, and return its end for JSON once its node has confirmed it."""
    receipt = await job.cancel().wait(CANCEL_WAIT_S)
    return {
        "id": job_ids.full_text(job.job_id),
        "state": job.state.name,
        "node": job.node,
        "processes_ended": receipt.ended,
        "processes_left": receipt.left,
    }


def _line(end: dict[str, Any]) -> str:
    processes = f"{end['processes_ended']} processes ended"
    left = f", {end['processes_left']} could not be ended" if end["processes_left"] else ""
    word = end["state"].lower()
    return f"{word}: {processes}{left}" if word == "killed" else f"was {word} already"
