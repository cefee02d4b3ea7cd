"""Requests that we made: the stream that carries one, and its answer."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alpyne_grid.wire.body import BodyReader
from alpyne_grid.wire.writer import BodyWriter

from alpyne_proto.errors import (
    AlpyneError,
    ConnectionLost,
    ErrorCode,
    Outcome,
    RequestFailed,
)
from alpyne_proto.messages.control import Error
from alpyne_proto.registry import Message

if TYPE_CHECKING:
    from alpyne_grid.wire.connection import Connection


@dataclass(slots=True)
class Answer:
    """What a request was answered with; a body that is not read must be cancelled."""

    message: Message
    body: BodyReader


class RequestLost(ConnectionLost):
    """The connection ended before the request was answered.

    ``outcome``: NOT_STARTED where no byte of the request can have left, else MAYBE.
    """

    def __init__(self, text: str, code: ErrorCode, outcome: Outcome) -> None:
        super().__init__(text, code)
        self.outcome = outcome


class RequestTimedOut(RequestFailed):
    """No answer came within the caller's time; the request was cancelled, its outcome is MAYBE."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.CANCELLED, text, retryable=True, outcome=Outcome.MAYBE)


class OutgoingStream(BodyWriter):
    """A request that we opened, with a body that we write as we go; see Connection.open."""

    def __init__(self, connection: "Connection", stream_id: int, request: Message) -> None:
        super().__init__(connection, stream_id)
        self._request = request
        self._records_before = connection.records_written
        self.acknowledged = False  # the peer has handed the request to its handler
        self.body = BodyReader(connection, stream_id, request.SPEC.answer_rows)
        self._answered: asyncio.Future[None] = connection.loop.create_future()
        self._message: Message | None = None
        self._failure: Exception | None = None

    async def answer(self) -> Answer:
        """Return the answer.

        Raises RequestFailed for an Error, a reset or a full stop, and RequestLost where the
        connection ended first; both say by ``outcome`` what is known of the request's effect.
        """
        if not self._answered.done():
            await asyncio.shield(self._answered)
        return self.result()

    def result(self) -> Answer:
        """Return the answer that has come, or raise as `answer` does."""
        if self._failure is not None:
            raise self._failure
        assert self._message is not None, "result() is called once the future is done"
        return Answer(self._message, self.body)

    def cancel(self, code: ErrorCode = ErrorCode.CANCELLED, text: str = "") -> None:
        """Give the request up: nothing more is sent or taken, and its handler is told."""
        self.reset(code, text)
        self.body.cancel(code, text)  # which also makes the connection forget the stream
        self._settle()

    # ---- from the connection ----

    @property
    def answered(self) -> "asyncio.Future[None]":
        """Done once there is an answer or a failure; `result` says which."""
        return self._answered

    def take_response(self, message: Message, payload: bytes | memoryview, end: bool) -> None:
        """Take the RESPONSE frame."""
        if type(message) is Error:
            self._failure = RequestFailed(
                message.code,
                message.text or message.code.name,
                retryable=message.retryable,
                retry_after_ms=message.retry_after_ms,
                outcome=message.outcome,
            )
        else:
            self._message = message
        self.take_data(payload, end, None)
        self._settle()

    def take_data(self, data: bytes | memoryview, end: bool, trailer: Message | None) -> None:
        """Take bytes of the answer's body."""
        self.body.push(data, end=end, trailer=trailer)
        if end:
            self.reset(text=_ANSWERED)

    def take_source_end(self, task: "asyncio.Task[None]") -> None:
        """The task that wrote the body has ended; where its source failed, so does the request."""
        error = None if task.cancelled() else task.exception()
        if error is not None and error is not self._error and not self._answered.done():
            assert isinstance(error, Exception), "a task passes on nothing else"
            self._failure = error
            self.cancel(text="the source of the body failed")

    def take_reset(self, code: ErrorCode, text: str, outcome: Outcome) -> None:
        """The peer gave up its side: the answer will not come, or not be finished."""
        failure = RequestFailed(
            code,
            text or f"the peer gave up: {code.name}",
            retryable=outcome is Outcome.NOT_STARTED,
            outcome=outcome,
        )
        if not self._answered.done():
            self._failure = failure
        self.body.fail(failure)
        self.reset()
        self._settle()

    def lose(self, error: AlpyneError) -> None:
        """The connection has ended."""
        untouched = self._connection.records_written == self._records_before
        outcome = Outcome.NOT_STARTED if untouched else Outcome.MAYBE
        lost = RequestLost(str(error), error.code, outcome)
        if not self._answered.done():
            self._failure = lost
        self.body.fail(lost)
        self.fail(lost)
        self._settle()

    def _settle(self) -> None:
        if not self._answered.done():
            if self._message is None and self._failure is None:
                self._failure = RequestFailed(
                    ErrorCode.CANCELLED, "the request was cancelled here", outcome=_MAYBE
                )
            self._answered.set_result(None)


_MAYBE = Outcome.MAYBE
_ANSWERED = "the peer has answered and needs no more of the body"
