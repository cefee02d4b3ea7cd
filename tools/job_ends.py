"""Following jobs on the command line: their output as it comes, and what they end with."""

import asyncio
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from alpyne_grid.manager import AsyncJob, CommandResult, JobFailed
from alpyne_grid.tools import job_ids
from alpyne_grid.tools.exit_codes import ExitCode
from alpyne_grid.tools.screen import note, print_json
from alpyne_grid.tools.usage import usage_as_dict

from alpyne_proto.errors import AlpyneError
from alpyne_proto.messages.compute import Usage

STDERR = 2  # descriptor of OutputRow
CANCEL_WAIT_S = 20.0
_JSON_DEPTH = 20


@dataclass(frozen=True, slots=True)
class EndOptions:
    """How a job's end is shown. ``into``: where files of a command go."""

    as_json: bool
    into: Path


async def follow(job: AsyncJob, options: EndOptions) -> ExitCode:
    """Pass on a job's output until it ends, then show its end; return the exit code.

    Ctrl-C ends the job, and a second one leaves at once.
    """
    try:
        await pass_on_output(job, all_to_stderr=options.as_json)
        await job.wait()
    except asyncio.CancelledError:
        return await _end_interrupted(job)
    except BrokenPipeError:  # nobody reads what it writes
        job.cancel()
        await job.wait(CANCEL_WAIT_S)
        raise
    return show_end(job, options)


async def pass_on_output(job: AsyncJob, *, all_to_stderr: bool) -> None:
    """Copy a job's stdout and stderr to ours until it ends."""
    try:
        async for descriptor, data in job.output().chunks():
            write_output(descriptor, data, all_to_stderr=all_to_stderr)
    except AlpyneError as error:
        note(f"its output cannot be read: {error}")


def write_output(descriptor: int, data: bytes, *, all_to_stderr: bool = False) -> None:
    """Write bytes of a job to the stream that they belong to."""
    stream = sys.stderr if descriptor == STDERR or all_to_stderr else sys.stdout
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()


async def _end_interrupted(job: AsyncJob) -> ExitCode:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    note(f"\nInterrupted: ending job {job_ids.full_text(job.job_id)}. Ctrl-C again leaves it.")
    receipt = await job.cancel().wait(CANCEL_WAIT_S)
    if receipt.left:
        note(f"{receipt.left} of its processes could not be ended.")
    return ExitCode.INTERRUPTED


def show_end(job: AsyncJob, options: EndOptions) -> ExitCode:
    """Print the value of a job that is done, or its failure; return the exit code."""
    try:
        value = job.value()
    except JobFailed as error:
        if options.as_json:
            print_json(end_as_dict(job, error=error))
        else:
            click.echo(f"alpyne: {error}", err=True)
        return ExitCode.FAILED
    files = _save(value, options.into) if isinstance(value, CommandResult) else []
    if options.as_json:
        print_json(end_as_dict(job, value=value, files=files))
        return ExitCode.OK
    if isinstance(value, CommandResult):
        for file in files:
            note(f"written: {file}")
    elif value is not None:
        text = value if isinstance(value, str) else repr(value)
        click.echo(text.encode(errors="backslashreplace"))
    return ExitCode.OK


def _save(result: CommandResult, into: Path) -> list[Path]:
    return result.save(into) if result.files else []


def end_as_dict(
    job: AsyncJob, *, value: Any = None, error: JobFailed | None = None, files: Sequence[Path] = ()
) -> dict[str, Any]:
    """Return a job's end for JSON; a value that JSON cannot hold is given as text."""
    usage = job.usage
    result: dict[str, Any] = {"result": None}
    if isinstance(value, CommandResult):
        result = {"exit_status": value.exit_status, "files": [str(file) for file in files]}
    elif value is not None:
        result = {"result": value} if fits_json(value) else {"result_text": repr(value)}
    failure = None
    if error is not None:
        failure = {
            "cause": error.cause.name,
            "reason": error.reason,
            "traceback": error.traceback,
            "exit_status": error.exit_status,
        }
    return {
        "id": job_ids.full_text(job.job_id),
        "state": job.state.name,
        "node": job.node,
        **result,
        "error": failure,
        "usage": usage_as_dict(usage or Usage()),
    }


def fits_json(value: Any, depth: int = _JSON_DEPTH) -> bool:
    """Say whether JSON gives ``value`` back as it is."""
    if value is None or type(value) in (bool, int, str):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if depth == 0:
        return False
    if type(value) is list:
        return all(fits_json(item, depth - 1) for item in value)
    return type(value) is dict and all(
        type(key) is str and fits_json(item, depth - 1) for key, item in value.items()
    )
