"""What accounts ask a compute node for: results, lists, output, events."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from alpyne_grid.nodes.compute.job import Job, Settled
from alpyne_grid.nodes.compute.job_table import JobTable
from alpyne_grid.nodes.compute.push import Pusher
from alpyne_grid.nodes.compute.runner import Stores
from alpyne_grid.wire import FileBody, Handler, Request

from alpyne_proto.codec import decode_as, encode_row
from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.messages.compute import (
    GetResult,
    JobEvent,
    JobRow,
    ListJobs,
    OutputFollows,
    OutputRow,
    ReadOutput,
    ResultFollows,
    Subscribe,
    Subscribed,
    Usage,
)
from alpyne_proto.messages.control import RowsFollow
from alpyne_proto.registry import Message

LIST_BYTES = 32 * 1024  # rows of a list that are made at once
SUBSCRIPTIONS_MAX = 64  # on one connection, ended ones included
UNKNOWN_JOB = "no such job at this node; it was never submitted here, or was dropped after its time"


class Inquiry:
    """The handlers of what goes out."""

    def __init__(self, table: JobTable, stores: Stores, pusher: Pusher) -> None:
        self._table = table
        self._stores = stores
        self._pusher = pusher

    def handlers(self) -> dict[type[Message], Handler]:
        """Return the handlers by message."""
        return {
            GetResult: self._get_result,
            ListJobs: self._list,
            ReadOutput: self._read_output,
            Subscribe: self._subscribe,
        }

    def _job(self, request: Request, job_id: bytes) -> Job:
        job = self._table.job(request.connection.account, job_id)
        if job is None:
            raise RequestFailed(ErrorCode.NOT_FOUND, UNKNOWN_JOB)
        return job

    async def _get_result(self, request: Request) -> None:
        message: GetResult = request.message
        job = self._job(request, message.job_id)
        result = job.result
        if not job.finished or result is None:
            text = f"the job has not finished: it is {job.state.name}; wait for its event"
            raise RequestFailed(ErrorCode.NOT_FOUND, text, retryable=True)
        if message.offset > result.size:
            text = (
                f"offset: expected at most the result's {result.size} bytes, got {message.offset}"
            )
            raise RequestFailed(ErrorCode.BAD_REQUEST, text)
        head = ResultFollows(
            job.state, job.spec.allocation, job.attempt, result.size, result.sha256
        )
        data = self._stores.jobs.result(job)
        if data is not None:
            await request.reply(head, data[message.offset :])
            return
        path = self._stores.results.path(job.number, job.attempt)
        if result.in_row or not path.exists():
            raise RequestFailed(ErrorCode.NOT_FOUND, UNKNOWN_JOB)
        left = result.size - message.offset
        await request.reply(head, FileBody(path, offset=message.offset, length=left))

    async def _list(self, request: Request) -> None:
        message: ListJobs = request.message
        jobs = [job for job in self._table.jobs(request.connection.account) if _asked(message, job)]
        if message.limit:
            jobs = jobs[-message.limit :]
        await request.reply(RowsFollow(len(jobs)), _listed(jobs))

    async def _read_output(self, request: Request) -> None:
        message: ReadOutput = request.message
        job = self._job(request, message.job_id)
        pieces = self._stores.outputs.read(
            job.number,
            job.attempt,
            offset=message.offset,
            follow=lambda: message.follow and not job.finished,
        )

        async def rows() -> AsyncIterator[bytes]:
            async for some in pieces:
                yield b"".join(
                    encode_row(OutputRow(piece.descriptor, piece.offset), piece.data)
                    for piece in some
                )

        await request.reply(OutputFollows(job.spec.allocation, job.attempt), rows())

    async def _subscribe(self, request: Request) -> None:
        message: Subscribe = request.message
        connection = request.connection
        number = self._pusher.number(connection)
        if number > SUBSCRIPTIONS_MAX:
            raise RequestFailed(
                ErrorCode.OVERLOADED,
                f"subscribe: at most {SUBSCRIPTIONS_MAX} times on one connection; use one that "
                "there is, or dial again",
            )
        request.reply_nowait(Subscribed(number, self._table.sequence(connection.account)))
        await self._pusher.begin(connection, number, message)


def _asked(asked: ListJobs, job: Job) -> bool:
    """Return whether ``job`` is one of those that ``asked`` asks for."""
    spec = job.spec
    return not (
        (asked.job_id and spec.job_id != asked.job_id)
        or (asked.journal and not spec.job_id.startswith(asked.journal))
        or (asked.group and spec.group != asked.group)
        or (asked.tag and asked.tag not in spec.tags)
        or (asked.states and not asked.states >> job.state & 1)
    )


async def _listed(jobs: Iterable[Job]) -> AsyncIterator[bytes]:
    rows: list[bytes] = []
    size = 0
    for job in jobs:
        rows.append(encode_row(_row(job)))
        size += len(rows[-1])
        if size >= LIST_BYTES:
            yield b"".join(rows)
            rows, size = [], 0
            await asyncio.sleep(0)  # a long list leaves the loop to others in between
    if rows:
        yield b"".join(rows)


def _row(job: Job) -> JobRow:
    spec = job.spec
    end = decode_as(job.end, JobEvent, lenient=True) if job.end else None
    return JobRow(
        spec.job_id,
        job.state,
        spec.allocation,
        job.attempt,
        spec.form,
        spec.name,
        spec.group,
        spec.tags,
        spec.index,
        job.submitted_at_ms,
        job.cause,
        job.settled is Settled.DELIVERED,
        job.result.size if job.result is not None else 0,
        spec.codec,
        end.usage if end is not None else Usage(),
        end.text if end is not None else "",
        spec.items,
    )
