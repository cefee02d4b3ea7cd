"""`alpyne output`: what a job has written."""

import json
from typing import TYPE_CHECKING

import click
from alpyne_grid.tools.exit_codes import ExitCode
from alpyne_grid.tools.option_types import as_json

if TYPE_CHECKING:
    from alpyne_grid.manager import AsyncJob, AsyncManager
    from alpyne_grid.wire import Answer


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@as_json
def output(job_id: str, follow: bool, as_json: bool) -> int:
    """Print what a job has written.

    Its stdout goes to stdout, its stderr to stderr. With --json one document per line of output.
    Reading output does not fetch the job's result.
    """
    from alpyne_grid.tools.grid import with_grid

    return with_grid(lambda grid: _output(grid, job_id, follow=follow, as_json=as_json))


async def _output(grid: "AsyncManager", text: str, *, follow: bool, as_json: bool) -> ExitCode:
    from alpyne_grid.manager.output import OutputReader
    from alpyne_grid.tools.commands.waiting import find_jobs
    from alpyne_grid.tools.job_ends import write_output

    [job] = await find_jobs(grid, [text], "")
    watched = WatchedJob(grid, job, follow=follow)
    reader = OutputReader(watched.read_from, lambda: watched.is_finished, follow=follow)
    if as_json:
        async for line in reader:
            click.echo(json.dumps({"descriptor": line.descriptor, "line": str(line)}))
    else:
        async for descriptor, data in reader.chunks():
            write_output(descriptor, data)
    return ExitCode.OK


class WatchedJob:
    """A job that is looked at from outside: waiting for it would fetch its result."""

    def __init__(self, grid: "AsyncManager", job: "AsyncJob", *, follow: bool) -> None:
        self._grid = grid
        self._job = job
        self._follow = follow

    @property
    def is_finished(self) -> bool:
        """Whether it had ended when it was looked at last."""
        from alpyne_grid.manager import JobState

        return self._job.state >= JobState.DONE

    async def read_from(self, offset: int) -> "Answer | None":
        """Ask the node that has the job by now for its output; None while no node has it."""
        from alpyne_grid.manager import UnknownJob

        from alpyne_proto.messages.compute import ReadOutput

        try:
            self._job = await self._grid.job(self._job.job_id)
        except UnknownJob:
            return None  # its node is away; it comes back, or the job moves
        key = self._job.node_key
        compute = self._grid.core.compute.get(key) if key is not None else None
        if compute is None:
            return None
        request = ReadOutput(self._job.job_id, offset, self._follow and not self.is_finished)
        return await compute.link.call(request)
