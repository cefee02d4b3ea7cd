"""What comes in: frames of a decrypted record, looked up in the table, turned into events.

The order is always the same: bound, inflate, parse, look up, act. Whatever is not in the table of
the present state is a connection error, except unknown frames of an odd type in state OPEN.

Source: spec/PROTOCOL.md, "Frames" and "States".
"""

from collections.abc import Callable, Mapping
from struct import Struct

from alpyne_proto import limits
from alpyne_proto.codec import decode, decode_as
from alpyne_proto.compression import Inflater, declared_size
from alpyne_proto.errors import (
    CompressionError,
    ErrorCode,
    FrameError,
    RemoteProtocolError,
)
from alpyne_proto.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    InterruptAcked,
    InterruptReceived,
    Payload,
    RequestAcked,
    RequestReceived,
    ResponseReceived,
    StateChanged,
    StopReceived,
    StreamReset,
)
from alpyne_proto.frame import Flags, Frame, FrameType, split
from alpyne_proto.interrupts import InterruptReceiver
from alpyne_proto.messages import control
from alpyne_proto.outbox import Outbox
from alpyne_proto.registry import Message, Role, Shape, Spec, State
from alpyne_proto.scheduler import DEFAULT_URGENCY
from alpyne_proto.streams import RECEIVED, Incoming, Outgoing, Stream, StreamTable
from alpyne_proto.table import (
    RULES,
    STEP_TO,
    PhaseMachine,
    Scope,
    Side,
    legal_frames,
    legal_messages,
)

_OFFSET = Struct(">Q")
_END = int(Flags.END)
_ACK = int(Flags.ACK)
_ZSTD = int(Flags.ZSTD)


class Inbox:
    """Takes the records of one connection apart."""

    __slots__ = (
        "_handlers",
        "_inflater",
        "_interrupts",
        "_is_open",
        "_legal",
        "_now",
        "_outbox",
        "_peer_roles",
        "_phases",
        "_pinged",
        "_sender",
        "_streams",
        "_takes_zstd",
        "_urgent_at",
        "closed",
        "events",
        "pings_sent",
    )

    def __init__(
        self,
        phases: PhaseMachine,
        streams: StreamTable,
        outbox: Outbox,
        events: list[Event],
        *,
        sender: Side,
        peer_roles: Role,
        takes_zstd: bool,
    ) -> None:
        """sender, peer_roles: the peer's; takes_zstd: whether our hello says so."""
        self._phases = phases
        self._streams = streams
        self._outbox = outbox
        self._sender = sender
        self._peer_roles = peer_roles
        self._takes_zstd = takes_zstd
        self._inflater: Inflater | None = None
        self._interrupts = InterruptReceiver()
        self._pinged = 0  # the last token of ours that came back
        self._now = 0.0
        self._urgent_at = 0  # where the next interrupt goes among the events
        self.events = events
        self.closed: control.Close | None = None
        self.pings_sent = 0
        self.look_up()

    def look_up(self) -> None:
        """Take what is legal in the present state from the tables."""
        state = self._phases.state
        self._is_open = state is State.OPEN  # where what is unknown and odd is skipped
        legal = legal_frames(state, self._sender)
        self._handlers = {type: entry for type, entry in _HANDLERS.items() if type in legal}
        self._legal = {
            shape: legal_messages(state, self._peer_roles, shape)
            for shape in (Shape.REQUEST, Shape.RESPONSE, Shape.INTERRUPT, Shape.TRAILER)
        }

    def take_record(self, record: bytes, now: float) -> None:
        """Handle the frames of one record: add to ``events``, set ``closed`` on CLOSE.

        Raises RemoteProtocolError at the first violation; the events of the frames before stand.
        """
        self._now = now
        self._urgent_at = len(self.events)
        for frame in split(record):
            entry = self._handlers.get(frame.type)
            if entry is None:
                self._skip(frame.type)
                continue
            handler, forbidden, on_connection, no_payload, no_meta = entry
            if (
                frame.flags & forbidden
                or (on_connection and frame.stream_id)
                or (no_payload and frame.payload)
                or (no_meta and frame.meta)
            ):
                raise FrameError(
                    f"{FrameType(frame.type).name}: flags {frame.flags:#04x}, id "
                    f"{frame.stream_id}, {len(frame.meta)} bytes of meta, {len(frame.payload)} of "
                    "payload; it may not have all of these"
                )
            handler(self, frame)
            if self.closed is not None:
                return

    def _skip(self, type: int) -> None:
        """Skip a frame of an unknown type where that is allowed."""
        if self._is_open and type & 1:
            return
        name = FrameType(type).name if type in _NUMBERS else f"type {type:#04x}"
        raise FrameError(
            f"frame {name}: not legal from the {self._sender.name.lower()} "
            f"in state {self._phases.state.name}"
        )

    def _parse(self, frame: Frame, shape: Shape) -> Message:
        message = decode(frame.meta, (shape,), lenient=self._is_open)
        if message.SPEC.code not in self._legal[shape]:
            raise RemoteProtocolError(
                f"{message.SPEC.name}: not legal from a {self._peer_roles.name} "
                f"in state {self._phases.state.name}"
            )
        return message

    # --- frames of the connection -----------------------------------------------------------

    def _take_pad(self, frame: Frame) -> None:
        """Whatever it holds, it means nothing."""

    def _take_settings(self, frame: Frame) -> None:
        message = decode_as(frame.meta, control.Settings, lenient=self._is_open)
        step = STEP_TO.get(message.state)
        if step is None or not self._phases.may(step):
            raise RemoteProtocolError(
                f"SETTINGS: {message.state.name} is not legal in state {self._phases.state.name}"
            )
        self._phases.move(step)
        self.look_up()
        self.events.append(StateChanged(message.state, message.role))

    def _take_ping(self, frame: Frame) -> None:
        message = decode_as(frame.meta, control.Ping, lenient=self._is_open)
        if not frame.flags & _ACK:
            self._outbox.send_control(FrameType.PING, message, flags=_ACK)
        elif not self._pinged < message.token <= self.pings_sent:
            raise FrameError(f"PING: an answer to {message.token}, which does not wait for one")
        else:
            self._pinged = message.token

    def _take_goaway(self, frame: Frame) -> None:
        message = decode_as(frame.meta, control.GoAway, lenient=self._is_open)
        last = message.last_stream
        self._streams.peer_refuses_above = min(self._streams.peer_refuses_above, last)
        self.events.append(GoAwayReceived(last, message.code, message.text))
        self._outbox.forget_unopened(last)
        for stream in list(self._streams.live.values()):
            if stream.is_ours and stream.id > last:
                waited_for = not (stream.discards or stream.receiving in RECEIVED)
                stream.kill()
                self._outbox.drop(stream)
                self._outbox.discard(stream)
                if waited_for:
                    self.events.append(StreamReset(stream.id, message.code, message.text))

    def _take_close(self, frame: Frame) -> None:
        self.closed = decode_as(frame.meta, control.Close, lenient=self._is_open)

    def _take_max_data(self, frame: Frame) -> None:
        message = decode_as(frame.meta, control.MaxData, lenient=self._is_open)
        if self._outbox.credit.raise_to(message.maximum):
            self._outbox.feed_starved()

    def _take_max_streams(self, frame: Frame) -> None:
        message = decode_as(frame.meta, control.MaxStreams, lenient=self._is_open)
        if message.maximum > self._streams.peer_max:
            self._streams.peer_max = message.maximum
            self._outbox.wake_unopened()

    # --- frames of a stream -----------------------------------------------------------------

    def _take_request(self, frame: Frame) -> None:
        stream_id = frame.stream_id
        self._streams.check_new(stream_id)
        message = self._parse(frame, Shape.REQUEST)
        ends = bool(frame.flags & _END)
        check_body(message.SPEC, len(frame.payload), ends)
        if self._streams.goaway_above is not None:
            self._refuse(frame, ends)
            return
        stream = self._streams.accept(stream_id, message.SPEC, DEFAULT_URGENCY)
        payload = self._take_body(stream, frame.flags, frame.payload)
        if ends:
            stream.receive(Incoming.END)
        if frame.flags & _ACK:
            self._outbox.send_control(FrameType.REQ_ACK, stream_id=stream_id)
        self.events.append(RequestReceived(stream_id, message, payload, ends))

    def _refuse(self, frame: Frame, ends: bool) -> None:
        """Refuse a request that came after our GOAWAY."""
        code, text = ErrorCode.SHUTTING_DOWN, "no new requests after GOAWAY"
        if self._streams.refuse():
            self._outbox.announce_streams()
        self._pass_over(frame.stream_id, frame.flags, frame.payload)
        self._outbox.send_control(FrameType.RESET, control.Reset(code, text), frame.stream_id)
        if not ends:
            self._outbox.send_control(FrameType.STOP, control.Stop(code, text), frame.stream_id)

    def _take_response(self, frame: Frame) -> None:
        stream_id = frame.stream_id
        stream = self._streams.live.get(stream_id)
        if stream is None or not stream.is_ours or stream.unopened:
            raise FrameError(f"RESPONSE: stream {stream_id} has no request that waits for one")
        stream.receive(Incoming.RESPONSE)
        message = self._parse(frame, Shape.RESPONSE)
        if message.SPEC.code not in stream.request.answers and type(message) is not control.Error:
            raise RemoteProtocolError(
                f"{message.SPEC.name}: it does not answer {stream.request.name}"
            )
        ends = bool(frame.flags & _END)
        check_body(message.SPEC, len(frame.payload), ends)
        payload = self._take_body(stream, frame.flags, frame.payload)
        if ends:
            stream.receive(Incoming.END)
        if stream.discards:
            self._outbox.discard(stream)
            return
        self.events.append(ResponseReceived(stream_id, message, payload, ends))
        if ends:
            self._outbox.close_if_done(stream)

    def _take_data(self, frame: Frame) -> None:
        payload = frame.payload
        if len(payload) < limits.DATA_OFFSET:
            raise FrameError(f"DATA: {len(payload)} bytes, no room for its offset")
        offset: int = _OFFSET.unpack_from(payload)[0]
        payload = payload[limits.DATA_OFFSET :]
        stream = self._find(frame)
        ends = bool(frame.flags & _END)
        if not payload and not ends:
            raise FrameError(f"DATA: stream {frame.stream_id}, no bytes and no end")
        if stream is None:
            self._pass_over(frame.stream_id, frame.flags, payload)
            return
        stream.receive(Incoming.DATA)
        if offset != stream.incoming.received:
            raise FrameError(
                f"DATA: stream {stream.id}, expected offset {stream.incoming.received}, "
                f"got {offset}"
            )
        trailer = None
        if frame.meta:
            if not ends:
                raise FrameError(f"DATA: stream {stream.id}, a trailer before the end")
            trailer = self._parse(frame, Shape.TRAILER)
        data = self._take_body(stream, frame.flags, payload)
        if ends:
            stream.receive(Incoming.END)
        if stream.discards:
            self._outbox.discard(stream)
            return
        self.events.append(DataReceived(stream.id, data, ends, trailer))
        if ends:
            self._outbox.close_if_done(stream)

    def _take_reset(self, frame: Frame) -> None:
        message = decode_as(frame.meta, control.Reset, lenient=self._is_open)
        if frame.stream_id == self._streams.next_peer:
            # The peer gave a request up before it was sent, and uses its id up.
            self._streams.check_new(frame.stream_id)
            if self._streams.refuse():
                self._outbox.announce_streams()
            return
        stream = self._find(frame)
        if stream is None:
            return
        stream.receive(Incoming.RESET)
        if stream.discards:
            self._outbox.discard(stream)
            return
        self.events.append(StreamReset(stream.id, message.code, message.text))
        self._outbox.close_if_done(stream)

    def _take_stop(self, frame: Frame) -> None:
        message = decode_as(frame.meta, control.Stop, lenient=self._is_open)
        stream = self._find(frame)
        if stream is None or not stream.may_send(Outgoing.STOP):
            return  # it crossed the end of our side
        stream.send(Outgoing.STOP)
        self._outbox.abandon(stream, control.Reset(message.code, "stopped by the receiver"))
        self.events.append(StopReceived(stream.id, message.code, message.text))
        self._outbox.close_if_done(stream)

    def _take_max_stream_data(self, frame: Frame) -> None:
        message = decode_as(frame.meta, control.MaxStreamData, lenient=self._is_open)
        stream = self._find(frame)
        if stream is not None and stream.outgoing.raise_to(message.maximum) and stream.queued:
            self._outbox.scheduler.add(stream)

    def _take_req_ack(self, frame: Frame) -> None:
        stream = self._streams.live.get(frame.stream_id)
        if stream is None or not stream.awaits_ack or stream.unopened:
            raise FrameError(f"REQ_ACK: stream {frame.stream_id} does not wait for one")
        stream.awaits_ack = False
        self.events.append(RequestAcked(frame.stream_id))

    def _find(self, frame: Frame) -> Stream | None:
        """Return the stream of a frame, None for one that has ended."""
        stream = self._streams.find(frame.stream_id, frame.type)
        if stream is not None and stream.unopened:
            raise FrameError(f"frame {frame.type:#04x}: stream {stream.id} was never opened")
        return stream

    # --- interrupts -------------------------------------------------------------------------

    def _take_interrupt(self, frame: Frame) -> None:
        if len(frame.meta) > limits.INTERRUPT_MAX - limits.FRAME_HEADER:
            raise FrameError(f"INTERRUPT: {len(frame.meta)} bytes of meta, too many")
        is_new = self._interrupts.is_new(frame.stream_id, self._now)
        message = self._parse(frame, Shape.INTERRUPT)
        self._outbox.send_control(FrameType.INTERRUPT_ACK, stream_id=frame.stream_id)
        if is_new:
            self.events.insert(self._urgent_at, InterruptReceived(frame.stream_id, message))
            self._urgent_at += 1

    def _take_interrupt_ack(self, frame: Frame) -> None:
        self._outbox.interrupts.acknowledge(frame.stream_id, self._now)
        self.events.append(InterruptAcked(frame.stream_id))

    # --- bodies -----------------------------------------------------------------------------

    def _size_of(self, flags: int, payload: Payload) -> int:
        """Return how many body bytes a payload stands for, before anything is inflated."""
        if not flags & _ZSTD:
            return len(payload)
        if not self._takes_zstd:
            raise CompressionError("zstd payload: our hello does not name this codec")
        return declared_size(payload)

    def _take_body(self, stream: Stream, flags: int, payload: Payload) -> Payload:
        """Count a piece of a body against its credit, then return it inflated."""
        size = self._size_of(flags, payload)
        stream.incoming.take(size, f"stream {stream.id}")
        self._outbox.receive_credit.take(size, "connection")
        if not flags & _ZSTD or stream.discards:
            return payload
        if self._inflater is None:
            self._inflater = Inflater()
        return self._inflater.inflate(payload)

    def _pass_over(self, stream_id: int, flags: int, payload: Payload) -> None:
        """Count bytes of a stream that has ended; they are neither inflated nor kept."""
        size = self._size_of(flags, payload)
        self._streams.take_late_bytes(stream_id, size)
        self._outbox.receive_credit.take(size, "connection")
        self._outbox.refund_connection(size)


def check_body(spec: Spec, size: int, ends: bool) -> None:
    """Raise FrameError where a message without a body has one."""
    if not spec.body and (size or not ends):
        raise FrameError(f"{spec.name}: it has no body, expected no payload and the flag END")


_NUMBERS = frozenset(FrameType)
_TAKES: Mapping[FrameType, Callable[[Inbox, Frame], None]] = {
    FrameType.PAD: Inbox._take_pad,
    FrameType.SETTINGS: Inbox._take_settings,
    FrameType.PING: Inbox._take_ping,
    FrameType.GOAWAY: Inbox._take_goaway,
    FrameType.CLOSE: Inbox._take_close,
    FrameType.MAX_DATA: Inbox._take_max_data,
    FrameType.MAX_STREAMS: Inbox._take_max_streams,
    FrameType.REQUEST: Inbox._take_request,
    FrameType.RESPONSE: Inbox._take_response,
    FrameType.DATA: Inbox._take_data,
    FrameType.RESET: Inbox._take_reset,
    FrameType.STOP: Inbox._take_stop,
    FrameType.MAX_STREAM_DATA: Inbox._take_max_stream_data,
    FrameType.REQ_ACK: Inbox._take_req_ack,
    FrameType.INTERRUPT: Inbox._take_interrupt,
    FrameType.INTERRUPT_ACK: Inbox._take_interrupt_ack,
}
# Handler, flags it may not have, must be on the connection, has no payload, has no meta.
_HANDLERS = {
    int(type): (
        take,
        0xFF & ~int(RULES[type].flags),
        RULES[type].scope is Scope.CONNECTION,
        not RULES[type].has_payload,
        RULES[type].meta is None,
    )
    for type, take in _TAKES.items()
}
