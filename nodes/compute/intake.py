"""What accounts bring to a compute node: jobs, blobs, and word of delivered results."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.runner import JobRunner, Stores
from alpyne_grid.nodes.compute.submissions import RETRY_MS
from alpyne_grid.wire import Handler, Request

from alpyne_proto import limits
from alpyne_proto.codec import RowReader, encode_row, read_rows
from alpyne_proto.errors import AlpyneError, CodecError, ErrorCode, RequestFailed
from alpyne_proto.messages.compute import (
    JobAnswer,
    JobSpec,
    PutBlob,
    SettleJobs,
    SettleRow,
    SubmitJobs,
)
from alpyne_proto.messages.control import Done, RowsFollow
from alpyne_proto.registry import Message

REPLY_MAX = 48 * 1024  # an answer up to this leaves in one frame, without a task
SETTLE_BYTES = limits.SUBMIT_BATCH * 128
ARRIVING_BYTES = 2 * limits.SUBMIT_BYTES  # of all submissions that arrive in pieces

_T = TypeVar("_T")


class QuotaOf(Protocol):
    """An account's quota."""

    def __call__(self, account: bytes) -> int:
        """Return bytes; 0 = no limit."""


class Intake:
    """The handlers of what comes in."""

    def __init__(self, runner: JobRunner, stores: Stores, quota_of: QuotaOf) -> None:
        self._runner = runner
        self._table = runner.table
        self._stores = stores
        self._quota_of = quota_of
        self._arriving_bytes = 0

    def handlers(self) -> dict[type[Message], Handler]:
        """Return the handlers by message."""
        return {
            SubmitJobs: self._submit,
            PutBlob: self._put_blob,
            SettleJobs: self._settle,
        }

    def blobs_in_use(self, account: bytes) -> set[bytes]:
        """Return the hashes of the blobs that the account's unfinished jobs name."""
        jobs = [job for job in self._table.jobs(account) if not job.finished]
        return {job.spec.bundle for job in jobs} | {job.spec.payload_sha256 for job in jobs}

    # ---- jobs ----

    def _submit(self, request: Request) -> Awaitable[None] | None:
        if not request.is_whole:
            return self._submit_long(request)
        rows = read_rows(bytes(request.payload), (JobSpec.SPEC.code,))
        self._take_jobs(request, rows, lambda answers: self._reply_rows(request, answers))
        return None

    async def _submit_long(self, request: Request) -> None:
        rows = await self._rows(request, JobSpec, limits.SUBMIT_BYTES)
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

    async def _rows(
        self, request: Request, kind: type[Message], most_bytes: int
    ) -> list[tuple[Message, bytes]]:
        """Read all rows of a request whose body did not come whole."""
        reader = RowReader((kind.SPEC.code,))
        rows: list[tuple[Message, bytes]] = []
        held = 0
        try:
            async for chunk in request.body:
                held += len(chunk)
                self._arriving_bytes += len(chunk)
                rows.extend(reader.feed(bytes(chunk)))
                self._check_arriving(request, kind, held, most_bytes, len(rows))
            reader.finish()
        finally:
            self._arriving_bytes -= held
        return rows

    def _check_arriving(
        self, request: Request, kind: type[Message], held: int, most_bytes: int, rows: int
    ) -> None:
        if held > most_bytes or rows > limits.SUBMIT_BATCH:
            request.body.cancel(ErrorCode.BAD_REQUEST)
            raise RequestFailed(
                ErrorCode.BAD_REQUEST,
                f"{kind.__name__}: expected at most {limits.SUBMIT_BATCH} rows and {most_bytes} "
                "bytes in one request, got more; send several requests",
            )
        if self._arriving_bytes > ARRIVING_BYTES:
            request.body.cancel(ErrorCode.OVERLOADED)
            raise RequestFailed(
                ErrorCode.OVERLOADED,
                f"{kind.__name__}: more than {ARRIVING_BYTES} bytes of submissions are arriving at "
                "this node; send fewer at once",
                retryable=True,
                retry_after_ms=RETRY_MS,
            )

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

    # ---- delivered results ----

    def _settle(self, request: Request) -> Awaitable[None] | None:
        if not request.is_whole:
            return self._settle_long(request)
        rows = read_rows(bytes(request.payload), (SettleRow.SPEC.code,))
        self._take_marks(request, rows, lambda refused: _confirm(request, refused))
        return None

    async def _settle_long(self, request: Request) -> None:
        rows = await self._rows(request, SettleRow, SETTLE_BYTES)
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


def _check_count(announced: int, got: int, name: str) -> None:
    if not 1 <= got <= limits.SUBMIT_BATCH or announced != got:
        raise CodecError(
            f"{name}: expected 1 to {limits.SUBMIT_BATCH} rows, as many as the request's count "
            f"{announced} says, got {got}"
        )
