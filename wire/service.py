"""What a peer may ask of us: a Service maps messages to handlers, a Request is one of them.

A handler takes a Request. A plain function runs at once, where the request is read from the socket:
it answers then or later, and must not block. A coroutine function gets a task, which is cancelled
when the peer gives the request up or the connection ends. A failing handler ends its request and
nothing else.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from alpyne_grid.wire.body import BodyReader
from alpyne_grid.wire.log import place_of
from alpyne_grid.wire.writer import Body, BodyWriter, Trailer, is_small, write_body

from alpyne_proto.errors import (
    AlpyneError,
    ConnectionLost,
    ErrorCode,
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    RequestFailed,
)
from alpyne_proto.messages.control import AccountRole, Error
from alpyne_proto.registry import Message, State

if TYPE_CHECKING:
    from alpyne_grid.wire.connection import Connection

Handler = Callable[["Request"], Awaitable[None] | None]
_WAIT_MAX_MS = 0xFFFF_FFFF  # what the field takes
_TEXT_MAX = 1000  # characters of an Error's text; the field takes 4,096 bytes


class Service:
    """Handlers by the class of their message; subclass it, or add handlers to one.

    A message without a handler is answered with Error UNSUPPORTED.
    """

    def __init__(self, handlers: Mapping[type[Message], Handler] | None = None) -> None:
        self.handlers: dict[type[Message], Handler] = dict(handlers or {})

    def add(self, handlers: Mapping[type[Message], Handler]) -> None:
        """Add handlers, replacing those of the same messages."""
        self.handlers.update(handlers)

    def on_connect(self, connection: "Connection") -> None:
        """The peer has proven its key. An acceptor promotes here or later; by default to UNKNOWN.

        Requests that came with the handshake wait until then.
        """
        if connection.is_acceptor:
            connection.promote(State.UNKNOWN)

    def on_state(self, connection: "Connection", state: State, role: AccountRole) -> None:
        """The acceptor has said what the dialler is to it."""

    def on_interrupt(self, connection: "Connection", message: Message) -> None:
        """An interrupt came; it is acknowledged already."""

    def on_disconnect(self, connection: "Connection") -> None:
        """The connection has ended, after on_connect; its handlers are being cancelled."""


class Request:
    """One request of the peer: its message, its body, and the ways to answer it."""

    __slots__ = (
        "_answered",
        "_deferred",
        "_finished",
        "_task",
        "_writer",
        "body",
        "connection",
        "is_cancelled",
        "message",
        "on_cancel",
        "payload",
        "stream_id",
    )

    def __init__(
        self,
        connection: "Connection",
        stream_id: int,
        message: Message,
        payload: bytes | memoryview,
        end: bool,
    ) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.message: Any = message  # of the class that the handler was registered for
        self.payload = payload if end else b""  # the body, where it came whole with the request
        self.body = BodyReader(connection, stream_id, message.SPEC.rows)
        self.body.push(payload, end=end)
        self.is_cancelled = False  # the peer wants no answer any more, or is gone
        self.on_cancel: Callable[[], None] | None = None  # called when that happens
        self._answered = False
        self._deferred = False  # a plain function returned; the request ends with its answer
        self._finished = False
        self._task: asyncio.Task[None] | None = None
        self._writer: BodyWriter | None = None

    @property
    def is_whole(self) -> bool:
        """Whether `payload` is the whole body: then nothing has to be awaited."""
        return self.body.has_ended and self.body.received == len(self.payload)

    def reply_nowait(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Answer, with a payload that fits one frame (about 48 KiB); see `reply` for more."""
        self._check_unanswered()
        if not self.is_cancelled:
            connection = self.connection
            connection.session.respond(self.stream_id, message, payload)
            connection.schedule_flush()
        self._answered = True
        self._after_answer()

    async def reply(
        self,
        message: Message,
        body: Body = b"",
        *,
        trailer: Trailer | None = None,
        urgency: int | None = None,
    ) -> None:
        """Answer, with a body of any size; returns when all of it is on its way.

        body: bytes, or an iterable or asynchronous iterable of bytes; trailer: called at its end.
        urgency: 1 (first) to 7 (last).
        """
        if trailer is None and is_small(body):
            self.reply_nowait(message, bytes(body))
        else:
            await write_body(self.start_reply(message, urgency=urgency), body, trailer)

    def start_reply(self, message: Message, *, urgency: int | None = None) -> BodyWriter:
        """Answer, and return the writer of the answer's body, which the caller must end."""
        self._check_unanswered()
        writer = BodyWriter(self.connection, self.stream_id)
        if self.is_cancelled:
            writer.fail(_gone())
        else:
            self.connection.session.respond(self.stream_id, message, end=False, urgency=urgency)
            self.connection.schedule_flush()
        self._answered, self._writer = True, writer
        writer.when_ended(self._after_answer)
        return writer

    def fail(
        self,
        code: ErrorCode,
        text: str,
        *,
        retryable: bool = False,
        retry_after_ms: int = 0,
        outcome: Outcome = Outcome.NOT_STARTED,
    ) -> None:
        """Answer with Error, or reset an answer that has begun."""
        if self._writer is not None:
            self._writer.reset(code, text)
        elif not self._answered:
            wait_ms = int(min(max(retry_after_ms, 0), _WAIT_MAX_MS))
            self.reply_nowait(Error(code, outcome, text[:_TEXT_MAX], retryable, wait_ms))

    # ---- from the connection ----

    def run(self, handler: Handler) -> None:
        """Call the handler, and keep its task if it is one."""
        try:
            pending = handler(self)
        except Exception as error:  # noqa: BLE001 - a handler's failure ends its request only
            self._fail_with(error)
            pending = None
        if pending is None:
            self._deferred = True
            if self._answered and (self._writer is None or self._writer.has_ended):
                self._finish()
            return
        self._task = self.connection.loop.create_task(_as_coroutine(pending))
        self._task.add_done_callback(self._task_done)

    def cancel(self, error: Exception) -> None:
        """The peer gave the request up, or the connection has ended."""
        if self.is_cancelled or self._finished:
            return
        self.is_cancelled = True
        self.body.fail(error)
        if self._writer is not None:
            self._writer.fail(error)
        if self._task is not None:
            self._task.cancel()
        if self.on_cancel is not None:
            self.connection.guard("on_cancel", self.on_cancel)

    # ---- private ----

    def _check_unanswered(self) -> None:
        if self._answered:
            raise LocalProtocolError(f"{type(self.message).__name__}: it was answered before")

    def _after_answer(self) -> None:
        if self._deferred:
            self._finish()

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail_with(error)
        elif not self._answered:
            if task.cancelled():
                self.fail(ErrorCode.CANCELLED, "the request was cancelled", outcome=Outcome.MAYBE)
            else:
                self._fail_with(RuntimeError("the handler ended without an answer"))
        elif self._writer is not None:
            self._writer.reset(ErrorCode.CANCELLED)
        self._finish()

    def _fail_with(self, error: BaseException) -> None:
        """Tell the peer, in the protocol's words, and the log, in one line, what went wrong."""
        if isinstance(error, RequestFailed):
            self.fail(
                error.code,
                str(error),
                retryable=error.retryable,
                retry_after_ms=error.retry_after_ms,
                outcome=error.outcome,
            )
        elif isinstance(error, RemoteProtocolError):
            self.fail(error.code, str(error), outcome=Outcome.MAYBE)
        elif not (self.is_cancelled and isinstance(error, ConnectionLost)):
            incident = secrets.token_hex(4)
            self.connection.log.error(
                "handler_failed",
                incident=incident,
                request=type(self.message).__name__,
                error=error,
                at=place_of(error),
            )
            text = f"internal error {incident}; the node's log tells more under this number"
            self.fail(ErrorCode.INTERNAL, text, outcome=Outcome.MAYBE)

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            if not self.body.has_ended:
                self.body.cancel(ErrorCode.NO_ERROR)
            self.connection.forget_request(self.stream_id)


def _gone() -> AlpyneError:
    return RequestFailed(
        ErrorCode.CANCELLED, "the peer wants no answer any more", outcome=Outcome.MAYBE
    )


def _as_coroutine(pending: Awaitable[None]) -> Coroutine[Any, Any, None]:
    if isinstance(pending, Coroutine):
        return pending

    async def wait() -> None:
        await pending

    return wait()
