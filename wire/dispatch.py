"""Dispatch: the events of a connection handed to its streams, its service and its handlers."""

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from alpyne_grid.wire.call import OutgoingStream
from alpyne_grid.wire.log import Log, place_of
from alpyne_grid.wire.service import Request, Service
from alpyne_grid.wire.shell import Shell

from alpyne_proto import events as ev
from alpyne_proto.errors import ConnectionLost, ErrorCode, Outcome, RequestFailed
from alpyne_proto.handshake import SessionConfig
from alpyne_proto.limits import STREAM_ID_MAX
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello
from alpyne_proto.registry import State

if TYPE_CHECKING:
    from alpyne_grid.wire.connection import Connection

_MAYBE, _NOT_STARTED = Outcome.MAYBE, Outcome.NOT_STARTED


class Dispatch(Shell):
    """What a connection knows of its peer, of our requests and of the peer's; see Connection."""

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
    def _whole(self) -> "Connection":
        """This object as its callers know it: Connection is the only subclass."""
        return cast("Connection", self)

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
            self._when_connected(self._whole)
        self.guard("on_connect", self.service.on_connect, self._whole)

    def _on_state(self, event: ev.StateChanged) -> None:
        self.role = event.role
        self._set_ready()
        self.guard("on_state", self.service.on_state, self._whole, event.state, event.role)

    def _on_request(self, event: ev.RequestReceived) -> None:
        request = Request(self._whole, event.stream_id, event.message, event.payload, event.end)
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
        self.guard("on_interrupt", self.service.on_interrupt, self._whole, event.message)

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
            self.guard("on_disconnect", self.service.on_disconnect, self._whole)
        if self._when_lost is not None:
            self._when_lost(self._whole)


def _given_up(event: ev.StreamReset | ev.StopReceived) -> RequestFailed:
    text = event.text or f"the peer needs no more of this stream ({event.code.name})"
    return RequestFailed(event.code, text, outcome=Outcome.MAYBE)


def _refuse(request: Request) -> None:
    name = type(request.message).__name__
    request.fail(ErrorCode.UNSUPPORTED, f"{name} is not served here; ask another kind of node")


_HANDLERS: Final[dict[type[ev.Event], Callable[[Dispatch, Any], None]]] = {
    ev.HandshakeCompleted: Dispatch._on_handshake,
    ev.StateChanged: Dispatch._on_state,
    ev.RequestReceived: Dispatch._on_request,
    ev.ResponseReceived: Dispatch._on_response,
    ev.DataReceived: Dispatch._on_data,
    ev.StreamReset: Dispatch._on_reset,
    ev.StopReceived: Dispatch._on_stop,
    ev.RequestAcked: Dispatch._on_request_acked,
    ev.StreamWritable: Dispatch._on_writable,
    ev.InterruptReceived: Dispatch._on_interrupt,
    ev.InterruptAcked: Dispatch._on_interrupt_acked,
    ev.GoAwayReceived: Dispatch._on_go_away,
}
