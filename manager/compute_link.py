"""What the manager says to one compute node: submissions, settlements, cancels; and what it hears.

Submissions of one turn of the loop leave as one request of up to 256 jobs, and the next do not wait
for its answer. Events arrive on the stream that the node opened for our subscription and are taken
as they are read from the socket.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from alpyne_grid.manager.links import Link
from alpyne_grid.wire import Answer, Connection, OutgoingStream, Request
from alpyne_grid.wire.log import Log

from alpyne_proto import limits
from alpyne_proto.codec import RowReader, encode_row, read_rows
from alpyne_proto.errors import AlpyneError, ConnectionLost, ErrorCode, RequestFailed
from alpyne_proto.messages import compute as messages
from alpyne_proto.messages.control import Done
from alpyne_proto.registry import Message

BATCH_BYTES = 47 * 1024  # of one submission: one frame; a larger job travels alone
SETTLE_AFTER_S = 0.02  # settlements gather for so long: nobody waits for them
RESULT_MAX = 1 << 30  # bytes of one result, where the job names no limit; as on the nodes
_EVENT_ROWS = (
    messages.JobEvent.SPEC.code,
    messages.LoadEvent.SPEC.code,
    messages.EventGap.SPEC.code,
)

EventRow = tuple[Message, bytes]
Order = messages.CancelJobs | messages.SuspendJobs | messages.ResumeJobs


@dataclass(frozen=True, slots=True)
class Submission:
    """One job on its way to a node.

    ``row``: its encoded JobSpec. ``blob``: returns the bytes of a hash that the node asks for.
    """

    job_id: bytes
    row: bytes
    blob: Callable[[bytes], bytes | None]


@dataclass(slots=True)
class _Blobs:
    """Blobs on their way to the node, so that each goes once."""

    tasks: dict[bytes, asyncio.Task[None]] = field(default_factory=dict)


class ComputeLink:
    """One compute node.

    ``answered(link, answer)`` is called for each JobAnswer, ``pushed(link, rows)`` for the event
    rows of one read, both on the event loop.
    """

    def __init__(
        self,
        link: Link,
        *,
        answered: Callable[["ComputeLink", messages.JobAnswer], None],
        pushed: Callable[["ComputeLink", Sequence[EventRow]], None],
    ) -> None:
        self.link = link
        self.key = link.key
        self._answered = answered
        self._pushed = pushed
        self._log = Log("manager.compute", node=link.name)
        self._queue: list[Submission] = []
        self._settling: dict[bytes, messages.SettleRow] = {}
        self._settle_timer: asyncio.TimerHandle | None = None
        self._blobs = _Blobs()
        self._sequences: dict[bytes, int] = {}  # by journal: newest event seen
        self._tasks: set[asyncio.Task[None]] = set()

    # --- submissions ------------------------------------------------------------------------

    def submit(self, submission: Submission) -> None:
        """Let a job leave with the next ``flush``."""
        self._queue.append(submission)

    def flush(self) -> None:
        """Send the jobs that were submitted; dropped where the node is not connected."""
        queue, self._queue = self._queue, []
        connection = self.link.connection
        if connection is None:
            return  # the table sends them again when the node is back
        batch: list[Submission] = []
        size = 0
        for submission in queue:
            full = len(batch) >= limits.SUBMIT_BATCH or size + len(submission.row) > BATCH_BYTES
            if batch and full:
                self._send(connection, batch, size)
                batch, size = [], 0
            batch.append(submission)
            size += len(submission.row)
        if batch:
            self._send(connection, batch, size)

    def _send(self, connection: Connection, batch: list[Submission], size: int) -> None:
        message = messages.SubmitJobs(len(batch))
        body = b"".join(submission.row for submission in batch)
        if size > BATCH_BYTES:  # one large job
            self._spawn(self._take_answers(connection, connection.call(message, body), batch))
            return
        try:
            stream = connection.send(message, body)
        except AlpyneError as error:
            self._not_submitted(batch, error)
            return
        # Without a task: for small jobs these would cost more than the answers.
        stream.answered.add_done_callback(lambda _: self._take_answer(connection, stream, batch))

    def _take_answer(
        self, connection: Connection, stream: OutgoingStream, batch: list[Submission]
    ) -> None:
        """Take the answer that has come; where its rows are still coming, wait for them."""
        try:
            body = stream.result().body
            if body.has_ended:
                rows = read_rows(body.take(), (messages.JobAnswer.SPEC.code,))
                self._take_verdicts(connection, batch, rows)
            else:
                self._spawn(self._take_answers(connection, stream.answer(), batch))
        except AlpyneError as error:
            self._not_submitted(batch, error)

    async def _take_answers(
        self, connection: Connection, answer: Awaitable[Answer], batch: list[Submission]
    ) -> None:
        try:
            rows = [row async for row in (await answer).body.rows(messages.JobAnswer)]
        except AlpyneError as error:
            self._not_submitted(batch, error)
        else:
            self._take_verdicts(connection, batch, rows)

    def _take_verdicts(
        self, connection: Connection, batch: list[Submission], rows: Sequence[EventRow]
    ) -> None:
        by_id = {submission.job_id: submission for submission in batch}
        for row, _ in rows:
            assert isinstance(row, messages.JobAnswer)
            submission = by_id.pop(row.job_id, None)
            if submission is not None and row.verdict is messages.Verdict.NEED_BLOB:
                self._spawn(self._send_blobs(connection, submission, row.missing))
            else:
                self._answered(self, row)

    def _not_submitted(self, batch: Sequence[Submission], error: AlpyneError) -> None:
        if isinstance(error, ConnectionLost):
            return  # sent again when the node is back
        retryable = error.retryable if isinstance(error, RequestFailed) else True
        for submission in batch:
            self._refuse(submission.job_id, error, retryable=retryable)

    def _refuse(self, job_id: bytes, error: AlpyneError, *, retryable: bool) -> None:
        answer = messages.JobAnswer(
            job_id,
            messages.Verdict.REFUSED,
            error.code,
            str(error)[:1000],
            retryable=retryable,
        )
        self._answered(self, answer)

    async def _send_blobs(
        self, connection: Connection, submission: Submission, missing: Sequence[bytes]
    ) -> None:
        try:
            for sha256 in missing:
                await asyncio.shield(self._blob_task(connection, submission, sha256))
        except ConnectionLost:
            return
        except AlpyneError as error:
            retryable = isinstance(error, RequestFailed) and error.retryable
            self._refuse(submission.job_id, error, retryable=retryable)
            return
        self.submit(submission)
        self.flush()

    def _blob_task(
        self, connection: Connection, submission: Submission, sha256: bytes
    ) -> asyncio.Task[None]:
        task = self._blobs.tasks.get(sha256)
        if task is None:
            task = asyncio.ensure_future(self._put_blob(connection, submission, sha256))
            self._blobs.tasks[sha256] = task
            task.add_done_callback(lambda _: self._blobs.tasks.pop(sha256, None))
        return task

    async def _put_blob(
        self, connection: Connection, submission: Submission, sha256: bytes
    ) -> None:
        data = submission.blob(sha256)
        if data is None:
            raise RequestFailed(
                ErrorCode.BAD_REQUEST,
                f"the node asks for {sha256.hex()[:12]}, which we never named",
            )
        answer = await connection.call(messages.PutBlob(sha256, len(data)), data)
        answer.body.cancel()

    # --- settlements and orders -------------------------------------------------------------

    def settle(self, job_id: bytes, allocation: int, attempt: int) -> None:
        """Tell the node, soon, that this execution's result was delivered."""
        self._settling[job_id] = messages.SettleRow(job_id, allocation, attempt)
        if self._settle_timer is None:
            loop = asyncio.get_running_loop()
            self._settle_timer = loop.call_later(SETTLE_AFTER_S, self._settle_soon)

    def _settle_soon(self) -> None:
        self._settle_timer = None
        self._spawn(self.settle_now())

    async def settle_now(self) -> None:
        """Send all settlements; those that do not get through wait for the next connection."""
        connection = self.link.connection
        if connection is None:
            return
        # What comes meanwhile waits for its time: else each answer would bring forth a request.
        rows, self._settling = list(self._settling.values()), {}
        for first in range(0, len(rows), limits.SUBMIT_BATCH):
            some = rows[first : first + limits.SUBMIT_BATCH]
            try:
                body = b"".join(map(encode_row, some))
                answer = await connection.call(messages.SettleJobs(len(some)), body)
                answer.body.cancel()
            except AlpyneError as error:
                self._log.debug("settle_failed", error=error)
                if isinstance(error, ConnectionLost):
                    for row in rows[first:]:
                        self._settling.setdefault(row.job_id, row)
                    return

    def cancel(self, job_ids: Sequence[bytes]) -> None:
        """Tell the node to end these jobs; dropped where it is not connected."""
        self.order(messages.CancelJobs, job_ids)

    def order(self, what: type[Order], job_ids: Sequence[bytes]) -> None:
        """Tell the node to end, suspend or resume these jobs; dropped where it is not connected."""
        connection = self.link.connection
        if connection is None:
            return
        for first in range(0, len(job_ids), limits.CANCEL_IDS):
            some = tuple(job_ids[first : first + limits.CANCEL_IDS])
            try:
                connection.interrupt_nowait(what(some))
            except AlpyneError as error:
                self._log.debug("order_failed", what=what.__name__, error=error)

    # --- events -----------------------------------------------------------------------------

    async def subscribe(self, journal: bytes, *, load: bool, fresh: bool = False) -> None:
        """Have the node push the events of ``journal``'s jobs, first all that we have not seen."""
        if fresh:
            self._sequences.pop(journal, None)
        kinds = messages.SUBSCRIBE_JOBS | (messages.SUBSCRIBE_LOAD if load else 0)
        after = self._sequences.get(journal, 0)
        answer = await self.link.call(messages.Subscribe(kinds, journal, after), timeout_s=10.0)
        answer.body.cancel()

    async def take_events(self, request: Request) -> None:
        """Handle PushEvents: take rows as they are read, for as long as the stream lives."""
        await request.body.pour(_EventSink(self))
        request.reply_nowait(Done())

    def take_rows(self, rows: Sequence[EventRow]) -> None:
        """Take the event rows of one read."""
        for row, _ in rows:
            if isinstance(row, messages.JobEvent):
                self._sequences[row.job_id[:8]] = row.sequence
        self._pushed(self, rows)

    # --- results ----------------------------------------------------------------------------

    async def result(
        self, job_id: bytes, most: int = RESULT_MAX
    ) -> tuple[messages.ResultFollows, bytes]:
        """Return a finished job's epoch, and its result's bytes, checked against their hash.

        ``most``: bytes; a longer result raises RequestFailed.
        """
        import hashlib

        answer = await self.link.call(messages.GetResult(job_id))
        head = answer.message
        assert isinstance(head, messages.ResultFollows)
        if head.size > most:
            answer.body.cancel()
            raise RequestFailed(
                ErrorCode.BAD_REQUEST,
                f"job {job_id.hex()}: its result has {head.size} bytes, at most {most} are taken; "
                "write it into a container, or raise result= of the job",
            )
        body = await answer.body.read(head.size)
        if len(body) != head.size or hashlib.sha256(body).digest() != head.sha256:
            raise RequestFailed(
                ErrorCode.DIGEST_MISMATCH, f"job {job_id.hex()}: the result's bytes are damaged"
            )
        return head, body

    async def jobs(self, query: messages.ListJobs) -> list[messages.JobRow]:
        """Return the jobs that ``query`` asks for."""
        answer = await self.link.call(query, timeout_s=30.0)
        return [row async for row, _ in answer.body.rows() if isinstance(row, messages.JobRow)]

    # --- private ----------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Send what is to be settled, and end what is under way."""
        if self._settle_timer is not None:
            self._settle_timer.cancel()
        await self.settle_now()
        for task in list(self._tasks):
            task.cancel()


class _EventSink:
    """Takes the bytes of a subscription's stream."""

    def __init__(self, link: ComputeLink) -> None:
        self._link = link
        self._reader = RowReader(_EVENT_ROWS)

    def feed(self, data: bytes | bytearray | memoryview) -> bool:
        rows = list(self._reader.feed(bytes(data)))
        if rows:
            self._link.take_rows(rows)
        return True

    def when_room(self, callback: Callable[[], None]) -> None:
        callback()


def event_of(row: messages.JobRow) -> messages.JobEvent:
    """Return a job's row of a list as an event that has no result with it."""
    return messages.JobEvent(
        sequence=0,
        job_id=row.job_id,
        allocation=row.allocation,
        attempt=row.attempt,
        state=row.state,
        cause=row.cause,
        result_bytes=row.result_bytes,
        text=row.text,
        usage=row.usage,
    )
