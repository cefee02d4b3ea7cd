"""A compute node's requests: parsed and bounded here, decided by the job table."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.job import Job, Settled
from alpyne_grid.nodes.compute.push import Pusher
from alpyne_grid.nodes.compute.runner import JobRunner, Stores
from alpyne_grid.wire import Connection, FileBody, Request

from alpyne_proto import limits
from alpyne_proto.codec import RowReader, decode_as, encode_row, read_rows
from alpyne_proto.errors import AlpyneError, CodecError, ErrorCode, Outcome, RequestFailed
from alpyne_proto.messages.compute import (
    CancelJobs,
    GetResult,
    JobAnswer,
    JobEvent,
    JobRow,
    JobSpec,
    ListJobs,
    OutputFollows,
    OutputRow,
    PutBlob,
    ReadOutput,
    ResultFollows,
    SettleJobs,
    SettleRow,
    SubmitJobs,
    Subscribe,
    Subscribed,
)
from alpyne_proto.messages.control import Done, RowsFollow
from alpyne_proto.registry import Message, State

REPLY_MAX = 48 * 1024  # an answer up to this leaves in one frame, without a task
LIST_BYTES = 32 * 1024  # rows of a list that are made at once
SETTLE_BYTES = limits.SUBMIT_BATCH * 128
UNKNOWN_JOB = "no such job at this node; it was never submitted here, or was dropped after its time"

_T = TypeVar("_T")
Handler = Callable[[Request], Awaitable[None] | None]


class QuotaOf(Protocol):
    """An account's quota."""

    def __call__(self, account: bytes) -> int:
        """Return bytes; 0 = no limit."""


class ComputeService:
    """The handlers of one compute node."""

    def __init__(
        self, runner: JobRunner, stores: Stores, pusher: Pusher, quota_of: QuotaOf
    ) -> None:
        self._runner = runner
        self._table = runner.table
        self._stores = stores
        self._pusher = pusher
        self._quota_of = quota_of

    def handlers(self) -> dict[type[Message], Handler]:
        """Return the handlers by message."""
        return {
            SubmitJobs: self._submit,
            PutBlob: self._put_blob,
            GetResult: self._get_result,
            SettleJobs: self._settle,
            ListJobs: self._list,
            ReadOutput: self._read_output,
            Subscribe: self._subscribe,
        }

    def on_interrupt(self, connection: Connection, message: Message) -> None:
        """Cancel jobs. Ids that are not the account's own are passed over without a word."""
        if isinstance(message, CancelJobs) and connection.state is State.OPEN:
            self._runner.handle(ev.JobsCancelled(connection.account, message.job_ids))

    def kept(self, account: bytes) -> int:
        """Return the bytes that the account keeps here: jobs, results, output, blobs."""
        stores = self._stores
        kept = self._table.bytes_kept(account)
        return kept + stores.blobs.kept(account) + stores.outputs.kept(account)

    # ---- jobs in ----

    def _submit(self, request: Request) -> Awaitable[None] | None:
        if not request.is_whole:
            return self._submit_long(request)
        rows = read_rows(bytes(request.payload), (JobSpec.SPEC.code,))
        self._take_jobs(request, rows, lambda answers: self._reply_rows(request, answers))
        return None

    async def _submit_long(self, request: Request) -> None:
        rows = await _rows(request, JobSpec, limits.SUBMIT_BYTES)
        answered: asyncio.Future[tuple[JobAnswer, ...]]
        answered = asyncio.get_running_loop().create_future()
        self._take_jobs(request, rows, lambda answers: _set(answered, answers))
        self._reply_rows(request, await answered)

    def _take_jobs(
        self,
        request: Request,
        rows: list[tuple[Message, bytes]],
        answer: Callable[[tuple[JobAnswer, ...]], None],
    ) -> None:
        _check_count(request.message.count, len(rows), "JobSpec")
        account = request.connection.account
        jobs = tuple(
            self._new_job(account, spec, payload)
            for spec, payload in rows
            if isinstance(spec, JobSpec)
        )
        self._runner.submit(account, jobs, self._room(account), answer)

    def _reply_rows(self, request: Request, rows: Iterable[Message]) -> None:
        encoded = [encode_row(row) for row in rows]
        body = b"".join(encoded)
        if len(body) <= REPLY_MAX:
            request.reply_nowait(RowsFollow(len(encoded)), body)
        else:
            self._runner.in_background(_reply_long(request, RowsFollow(len(encoded)), body))

    def _new_job(self, account: bytes, spec: JobSpec, payload: bytes) -> ev.NewJob:
        if not spec.bundle and not spec.payload_sha256:
            return ev.NewJob(spec, payload)
        named = [sha256 for sha256 in (spec.bundle, spec.payload_sha256) if sha256]
        return ev.NewJob(spec, payload, self._stores.blobs.missing(account, named))

    def _room(self, account: bytes) -> int | None:
        quota = self._quota_of(account)
        if not quota:
            return None
        stores = self._stores
        return quota - stores.blobs.kept(account) - stores.outputs.kept(account)

    async def _put_blob(self, request: Request) -> None:
        message: PutBlob = request.message
        if message.size > limits.BLOB_MAX:
            raise RequestFailed(
                ErrorCode.BAD_REQUEST,
                f"blob: expected at most {limits.BLOB_MAX} bytes, got {message.size}; "
                "put it on a data node and give the job the object",
            )
        account = request.connection.account
        await self._stores.blobs.put(
            account,
            message.sha256,
            message.size,
            request.body,
            quota_bytes=self._quota_of(account) or None,
            used_elsewhere=self._table.bytes_kept(account) + self._stores.outputs.kept(account),
            in_use=lambda: self.blobs_in_use(account),
        )
        request.reply_nowait(Done())

    def blobs_in_use(self, account: bytes) -> set[bytes]:
        """Return the hashes of the blobs that the account's unfinished jobs name."""
        jobs = [job for job in self._table.jobs(account) if not job.finished]
        return {job.spec.bundle for job in jobs} | {job.spec.payload_sha256 for job in jobs}

    # ---- jobs out ----

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

    def _settle(self, request: Request) -> Awaitable[None] | None:
        if not request.is_whole:
            return self._settle_long(request)
        rows = read_rows(bytes(request.payload), (SettleRow.SPEC.code,))
        self._take_marks(request, rows, lambda refused: _confirm(request, refused))
        return None

    async def _settle_long(self, request: Request) -> None:
        rows = await _rows(request, SettleRow, SETTLE_BYTES)
        answered: asyncio.Future[ev.Refuse | None] = asyncio.get_running_loop().create_future()
        self._take_marks(request, rows, lambda refused: _set(answered, refused))
        _confirm(request, await answered)

    def _take_marks(
        self,
        request: Request,
        rows: list[tuple[Message, bytes]],
        done: Callable[[ev.Refuse | None], None],
    ) -> None:
        _check_count(request.message.count, len(rows), "SettleRow")
        marks = tuple(row for row, _ in rows if isinstance(row, SettleRow))
        self._runner.settle(request.connection.account, marks, done)

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
        *((end.usage, end.text) if end is not None else ()),
    )


def _set(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():  # the peer may have given the request up
        future.set_result(value)


def _confirm(request: Request, refused: ev.Refuse | None) -> None:
    if refused is None:
        request.reply_nowait(Done())
    else:
        request.fail(refused.code, refused.text, retryable=True)


async def _reply_long(request: Request, head: Message, body: bytes) -> None:
    with contextlib.suppress(AlpyneError):  # the peer or the connection is gone
        await request.reply(head, body)


async def _rows(
    request: Request, kind: type[Message], most_bytes: int
) -> list[tuple[Message, bytes]]:
    """Read all rows of a request whose body did not come whole."""
    reader = RowReader((kind.SPEC.code,))
    rows: list[tuple[Message, bytes]] = []
    async for chunk in request.body:
        rows.extend(reader.feed(bytes(chunk)))
        if request.body.received > most_bytes or len(rows) > limits.SUBMIT_BATCH:
            request.body.cancel(ErrorCode.BAD_REQUEST)
            raise RequestFailed(
                ErrorCode.BAD_REQUEST,
                f"{kind.__name__}: expected at most {limits.SUBMIT_BATCH} rows and {most_bytes} "
                "bytes in one request, got more; send several requests",
                outcome=Outcome.NOT_STARTED,
            )
    reader.finish()
    return rows


def _check_count(announced: int, got: int, name: str) -> None:
    if not 1 <= got <= limits.SUBMIT_BATCH or announced != got:
        raise CodecError(
            f"{name}: expected 1 to {limits.SUBMIT_BATCH} rows, as many as the request's count "
            f"{announced} says, got {got}"
        )
