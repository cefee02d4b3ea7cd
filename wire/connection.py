"""Connection: calls, pushes and interrupts to one peer, and the requests that it makes."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final

from alpyne_grid.wire.call import Answer, OutgoingStream, RequestTimedOut
from alpyne_grid.wire.log import Log, place_of
from alpyne_grid.wire.service import Request, Service
from alpyne_grid.wire.shell import Shell
from alpyne_grid.wire.writer import Body, Data, Trailer, is_small, write_body

from alpyne_proto import events as ev
from alpyne_proto.errors import ConnectionLost, ErrorCode, Outcome, RequestFailed
from alpyne_proto.handshake import SessionConfig
from alpyne_proto.limits import STREAM_ID_MAX
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello
from alpyne_proto.registry import Message, State

_MAYBE, _NOT_STARTED = Outcome.MAYBE, Outcome.NOT_STARTED


class Connection(Shell):
    """One encrypted connection to one peer; made by `serve` and `dial`.

    ``account`` is for the layer that decides who the peer is.
    """

    def __init__(
        self,
        config: SessionConfig,
        service: Service,
        *,
        log: Log | None = None,
        when_connected: Callable[["Connection"], None] | None = None,
        when_lost: Callable[["Connection"], None] | None = None,
    ) -> None:
        """Make a connection; a transport then calls its `connection_made`.

        config: whether it dials, keys and hello. service: what the peer may ask. when_connected:
        called after the handshake, before the service is told. when_lost: called last of all,
        however far the connection came.
        """
        super().__init__(config)
        self.service = service
        self.log = (log or Log("wire")).bind(connection=secrets.token_hex(3))
        self.peer_key = b""  # its X25519 static key, 32 bytes, proven by the handshake
        self.peer_hello: AcceptorHello | DiallerHello | None = None  # what it said of itself
        self.account = b""  # the peer's account, 32 bytes, once it is known to be one
        self.role = AccountRole.NONE  # what the acceptor said the dialler is
        self.is_going_away = False  # one side takes no new requests
        self._when_connected = when_connected
        self._when_lost = when_lost
        self._connected = False  # the handshake is complete, the service was told
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._streams: dict[int, OutgoingStream] = {}
        self._requests: dict[int, Request] = {}
        self._interrupts: dict[int, asyncio.Future[None]] = {}
        self._idle: asyncio.Future[None] | None = None
        self._last_served = STREAM_ID_MAX  # of our streams; a GOAWAY lowers it

    # ---- state ----

    @property
    def state(self) -> State:
        """What the connection may do now."""
        return self.session.state

    @property
    def is_ready(self) -> bool:
        """Whether the acceptor has said what the dialler is, and the connection has not ended."""
        return self._ready.done() and not self._over

    @property
    def is_open(self) -> bool:
        """Whether the handshake is complete and the connection has not ended."""
        return self._connected and not self._over

    @property
    def has_work(self) -> bool:
        """Whether a request of either side is under way."""
        return bool(self._requests or self._streams)

    async def wait_ready(self) -> None:
        """Return once the acceptor has said what the dialler is; raises why the connection ended.

        ``state`` and ``role`` then stand.
        """
        if not self._ready.done():
            await asyncio.shield(self._ready)
        if self._over:
            raise self._why_lost()

    async def drain(self) -> None:
        """Return once all requests of the peer are answered and sent, or the connection has ended.

        Our own requests do not count: a push, for instance, ends when its owner ends it.
        """
        while self._requests and not self._over:
            self._idle = self._idle or self.loop.create_future()
            await asyncio.shield(self._idle)
        await self.flushed()

    # ---- what we ask of the peer ----

    async def call(
        self,
        message: Message,
        body: Body = b"",
        *,
        timeout_s: float | None = None,
        trailer: Trailer | None = None,
        urgency: int = 3,
    ) -> Answer:
        """Send a request and return its answer, whose body may still be coming.

        body: bytes, or an iterable or asynchronous iterable of bytes, taken as fast as the peer
        takes them; trailer: called at its end. timeout_s: for the answer to begin, not for its
        body. Raises RequestFailed for an Error (RequestTimedOut after timeout_s), RequestLost where
        the connection ended first; ``outcome`` says whether the request may have had effect.
        Cancelling the call cancels the request at the peer.
        """
        if timeout_s is None:
            return await self._call(message, body, trailer, urgency)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._call(message, body, trailer, urgency)
        except TimeoutError:
            name = type(message).__name__
            raise RequestTimedOut(f"{name}: no answer within {timeout_s:g} s") from None

    def send(self, message: Message, body: Data = b"", *, urgency: int = 3) -> OutgoingStream:
        """Send a request whose body fits into its frame (48 KiB), without waiting for anything.

        The stream's ``answered`` is done when the answer, or what prevents it, is there;
        ``result`` then returns or raises it. Raises as ``call`` does where nothing can be sent.
        """
        stream = self._open(message, bytes(body), end=True, urgency=urgency)
        stream.has_ended = True
        self.schedule_flush()
        return stream

    async def open(
        self, message: Message, *, urgency: int = 3, want_ack: bool = False
    ) -> OutgoingStream:
        """Send a request whose body is written bit by bit: for pushes, for instance."""
        stream = self._open(message, b"", end=False, urgency=urgency, want_ack=want_ack)
        self.schedule_flush()
        return stream

    async def interrupt(self, message: Message) -> None:
        """Send an interrupt and return when the peer has handed it to its handler."""
        interrupt_id = self.interrupt_nowait(message)
        acknowledged: asyncio.Future[None] = self.loop.create_future()
        self._interrupts[interrupt_id] = acknowledged
        try:
            await acknowledged
        finally:
            self._interrupts.pop(interrupt_id, None)
        if self._over:
            raise self._why_lost()

    def interrupt_nowait(self, message: Message) -> int:
        """Send an interrupt, ahead of everything else, and return its number."""
        self._check_usable()
        interrupt_id = self.session.interrupt(message)
        self._deadline_moved = True
        self.schedule_flush()
        return interrupt_id

    # ---- what we say of the connection ----

    def promote(self, state: State, role: AccountRole = AccountRole.NONE) -> None:
        """Acceptor only: tell the dialler what it is here; requests that waited are handled."""
        self.session.promote(state, role=role)
        self.role = role
        self._set_ready()
        self.schedule_flush()

    def go_away(self) -> None:
        """Take no new requests; those under way go on."""
        if self.is_open and not self.is_going_away:
            self.is_going_away = True
            self.session.go_away()
            self.schedule_flush()

    # ---- for the streams of this connection ----

    def give_credit(self, stream_id: int, size: int) -> None:
        """Tell the session that bytes were consumed."""
        if not self._over:
            self.session.consume(stream_id, size)
            self.schedule_flush()

    def stop_stream(self, stream_id: int, code: ErrorCode, text: str) -> None:
        """Ask the peer to send no more on a stream."""
        self._forget_stream(stream_id)
        if not self._over:
            self.session.stop(stream_id, code, text)
            self.schedule_flush()

    def forget_request(self, stream_id: int) -> None:
        """A handler has ended: its stream's place goes back to the peer."""
        if self._requests.pop(stream_id, None) is not None and not self._over:
            self.session.release(stream_id)
            self.schedule_flush()
        self._check_idle()

    # ---- private: our requests ----

    def _check_usable(self) -> None:
        if self._over or not self._connected:
            raise self._why_lost()
        if self.is_going_away:
            raise RequestFailed(
                ErrorCode.SHUTTING_DOWN,
                "the connection takes no new requests: one side is ending; dial again",
                retryable=True,
                outcome=Outcome.NOT_STARTED,
            )

    def _open(
        self, message: Message, payload: bytes, *, end: bool, urgency: int, want_ack: bool = False
    ) -> OutgoingStream:
        self._check_usable()
        stream_id = self.session.open_stream(
            message, payload, end=end, urgency=urgency, want_ack=want_ack
        )
        stream = OutgoingStream(self, stream_id, message)
        self._streams[stream_id] = stream
        return stream

    async def _call(
        self, message: Message, body: Body, trailer: Trailer | None, urgency: int
    ) -> Answer:
        feeding = None
        if trailer is None and is_small(body):
            stream = self.send(message, body, urgency=urgency)
        else:
            stream = self._open(message, b"", end=False, urgency=urgency)
            feeding = self.loop.create_task(write_body(stream, body, trailer))
            feeding.add_done_callback(stream.take_source_end)
        try:
            await stream.answered
        except BaseException:
            stream.cancel()
            raise
        finally:
            if feeding is not None and not feeding.done():
                feeding.cancel()
        return stream.result()

    def _forget_stream(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)

    def _check_idle(self) -> None:
        idle = self._idle
        if idle is not None and (self._over or not self._requests):
            self._idle = None
            idle.set_result(None)

    # ---- private: events ----

    def _handle(self, event: ev.Event) -> None:
        _HANDLERS[type(event)](self, event)

    def _on_handshake(self, event: ev.HandshakeCompleted) -> None:
        self._connected = True
        self.peer_key, self.peer_hello = event.remote_static, event.hello
        if self._when_connected is not None:
            self._when_connected(self)
        self.guard("on_connect", self.service.on_connect, self)

    def _on_state(self, event: ev.StateChanged) -> None:
        self.role = event.role
        self._set_ready()
        self.guard("on_state", self.service.on_state, self, event.state, event.role)

    def _on_request(self, event: ev.RequestReceived) -> None:
        request = Request(self, event.stream_id, event.message, event.payload, event.end)
        self._requests[event.stream_id] = request
        handler = self.service.handlers.get(type(event.message))
        request.run(handler if handler is not None else _refuse)

    def _on_response(self, event: ev.ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self.give_credit(event.stream_id, len(event.payload))
            return
        if event.end:
            self._forget_stream(event.stream_id)
        stream.take_response(event.message, event.payload, event.end)

    def _on_data(self, event: ev.DataReceived) -> None:
        if (stream := self._streams.get(event.stream_id)) is not None:
            if event.end:
                self._forget_stream(event.stream_id)
            stream.take_data(event.data, event.end, event.trailer)
        elif (request := self._requests.get(event.stream_id)) is not None:
            request.body.push(event.data, end=event.end, trailer=event.trailer)
        else:
            self.give_credit(event.stream_id, len(event.data))

    def _on_reset(self, event: ev.StreamReset) -> None:
        if (stream := self._streams.get(event.stream_id)) is not None:
            self._forget_stream(event.stream_id)
            refused = event.stream_id > self._last_served
            stream.take_reset(event.code, event.text, _NOT_STARTED if refused else _MAYBE)
        elif (request := self._requests.get(event.stream_id)) is not None:
            request.cancel(_given_up(event))

    def _on_stop(self, event: ev.StopReceived) -> None:
        if (stream := self._streams.get(event.stream_id)) is not None:
            stream.fail(_given_up(event))
        elif (request := self._requests.get(event.stream_id)) is not None:
            request.cancel(_given_up(event))

    def _on_request_acked(self, event: ev.RequestAcked) -> None:
        if (stream := self._streams.get(event.stream_id)) is not None:
            stream.acknowledged = True

    def _on_writable(self, event: ev.StreamWritable) -> None:
        if (writer := self.blocked.get(event.stream_id)) is not None:
            writer.pump()

    def _on_interrupt(self, event: ev.InterruptReceived) -> None:
        self.guard("on_interrupt", self.service.on_interrupt, self, event.message)

    def _on_interrupt_acked(self, event: ev.InterruptAcked) -> None:
        self._deadline_moved = True
        acknowledged = self._interrupts.get(event.interrupt_id)
        if acknowledged is not None and not acknowledged.done():
            acknowledged.set_result(None)

    def _on_go_away(self, event: ev.GoAwayReceived) -> None:
        self.is_going_away = True
        self._last_served = event.last_stream

    def guard(self, hook: str, call: Callable[..., object], *arguments: object) -> None:
        """Call what belongs to the service; its failure is logged and ends nothing."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - a hook's failure must not end the connection
            self.log.error("hook_failed", hook=hook, error=error, at=place_of(error))

    def _set_ready(self) -> None:
        self._deadline_moved = True  # from the handshake's to that of a quiet peer
        if not self._ready.done():
            self._ready.set_result(None)

    # ---- private: the end ----

    def _why_lost(self) -> ConnectionLost:
        if isinstance(self.error, ConnectionLost):
            return self.error
        if self.error is not None:
            return ConnectionLost(str(self.error), self.error.code)
        return ConnectionLost("the connection was closed", ErrorCode.NO_ERROR)

    def _lost(self) -> None:
        error = self._why_lost()
        self._set_ready()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lose(error)
        for acknowledged in self._interrupts.values():
            if not acknowledged.done():
                acknowledged.set_result(None)
        for request in tuple(self._requests.values()):
            request.cancel(error)
        self._check_idle()
        if self._connected:
            self.guard("on_disconnect", self.service.on_disconnect, self)
        if self._when_lost is not None:
            self._when_lost(self)


def _given_up(event: ev.StreamReset | ev.StopReceived) -> RequestFailed:
    text = event.text or f"the peer needs no more of this stream ({event.code.name})"
    return RequestFailed(event.code, text, outcome=Outcome.MAYBE)


def _refuse(request: Request) -> None:
    name = type(request.message).__name__
    request.fail(ErrorCode.UNSUPPORTED, f"{name} is not served here; ask another kind of node")


_HANDLERS: Final[dict[type[ev.Event], Callable[[Connection, Any], None]]] = {
    ev.HandshakeCompleted: Connection._on_handshake,
    ev.StateChanged: Connection._on_state,
    ev.RequestReceived: Connection._on_request,
    ev.ResponseReceived: Connection._on_response,
    ev.DataReceived: Connection._on_data,
    ev.StreamReset: Connection._on_reset,
    ev.StopReceived: Connection._on_stop,
    ev.RequestAcked: Connection._on_request_acked,
    ev.StreamWritable: Connection._on_writable,
    ev.InterruptReceived: Connection._on_interrupt,
    ev.InterruptAcked: Connection._on_interrupt_acked,
    ev.GoAwayReceived: Connection._on_go_away,
}
