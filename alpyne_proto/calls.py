"""The half of a session that concerns streams: requests, answers, bodies and their ends.

Once the connection has ended, these methods do nothing: whoever calls them may not have read that
event yet. The same holds for what a stream's peer has stopped.

Source: spec/PROTOCOL.md, "Streams".
"""

from alpyne_proto import limits
from alpyne_proto.bodies import Bodies, Data
from alpyne_proto.codec import encode
from alpyne_proto.errors import ErrorCode, LocalProtocolError
from alpyne_proto.events import Event, StreamWritable
from alpyne_proto.frame import Flags, FrameType
from alpyne_proto.messages import control
from alpyne_proto.outbox import Outbox
from alpyne_proto.registry import Message, Role, Shape
from alpyne_proto.scheduler import DEFAULT_URGENCY, LEAST_URGENT, MOST_URGENT
from alpyne_proto.stream_frames import check_answer
from alpyne_proto.streams import RECEIVED, Outgoing, Receiving, Sending, Stream, StreamTable
from alpyne_proto.table import Phase, PhaseMachine, legal_messages

SETTLED = frozenset({Phase.UNKNOWN, Phase.BEARER, Phase.OPEN})
_TEXT_MAX = 512  # bytes of a reason; see messages.control


class Calls:
    """Streams as their users see them; ``Session`` is the whole."""

    _streams: StreamTable
    _outbox: Outbox
    _bodies: Bodies

    def __init__(self, phases: PhaseMachine, roles: Role) -> None:
        """roles: what this side may send."""
        self._phases = phases
        self._roles = roles
        self._events: list[Event] = []
        self._writers: dict[int, Stream] = {}  # streams whose send_room was 0 when last asked

    @property
    def closed(self) -> bool:
        """Whether the connection has ended; ``next_record`` may still have a last record."""
        return self._phases.phase is Phase.CLOSED

    @property
    def open_room(self) -> int:
        """Streams that can be opened now without waiting for the peer's MAX_STREAMS."""
        return self._streams.open_room if self._phases.phase in SETTLED else 0

    # --- requests and bodies ----------------------------------------------------------------

    def open_stream(
        self,
        message: Message,
        payload: Data = b"",
        *,
        end: bool = True,
        urgency: int = DEFAULT_URGENCY,
        want_ack: bool = False,
    ) -> int:
        """Send a request on a stream of its own; return the stream's id.

        payload: the body's first bytes, or all of it with ``end``; it must not change any more.
        urgency: 1 (first) to 7. want_ack: RequestAcked tells when the peer's handler has it.
        Beyond the peer's MAX_STREAMS the request waits; see ``open_room``. Raises
        LocalProtocolError where the message is not legal now, the peer goes away, or all is over.
        """
        if self._phases.phase not in SETTLED:
            raise LocalProtocolError(f"{message.SPEC.name}: the connection is not open")
        self._check_legal(message, Shape.REQUEST, payload, end)
        if not MOST_URGENT <= urgency <= LEAST_URGENT:
            raise LocalProtocolError(f"urgency: expected 1 to 7, got {urgency}")
        streams = self._streams
        if streams.next_own > streams.peer_refuses_above:
            raise LocalProtocolError(f"{message.SPEC.name}: the peer goes away; use another node")
        payload = _flat(payload)
        head = encode(message)
        stream = streams.open(message.SPEC, urgency)
        stream.head = head
        if want_ack:
            stream.awaits_ack = True
            stream.head_flags = int(Flags.ACK)
        self._bodies.give(stream, payload)
        if end:
            stream.send(Outgoing.FINISH)
        self._bodies.open(stream)
        return stream.id

    def respond(
        self,
        stream_id: int,
        message: Message,
        payload: Data = b"",
        *,
        end: bool = True,
        urgency: int | None = None,
    ) -> None:
        """Answer a request; arguments as for ``open_stream``, urgency None keeps the request's.

        Raises LocalProtocolError where it was answered, or where ``message`` is no answer to it.
        """
        stream = self._find(stream_id)
        if stream is None or stream.sending is Sending.STOPPED:
            return
        check_answer(stream.request, message, LocalProtocolError)
        self._check_legal(message, Shape.RESPONSE, payload, end)
        payload = _flat(payload)
        head = encode(message)
        stream.send(Outgoing.ANSWER)
        if urgency is not None:
            stream.urgency = min(max(urgency, MOST_URGENT), LEAST_URGENT)
        stream.head = head
        self._bodies.give(stream, payload)
        if end:
            stream.send(Outgoing.FINISH)
        self._bodies.add(stream)

    def send_data(
        self, stream_id: int, data: Data, *, end: bool = False, trailer: Message | None = None
    ) -> None:
        """Send more of a body, or its end; ``data`` must not change any more.

        All of it is taken, whatever ``send_room`` says. trailer: a message of shape TRAILER, with
        ``end`` only. Raises LocalProtocolError where the body has ended or has not begun.
        """
        stream = self._find(stream_id)
        if stream is None or stream.sending is Sending.STOPPED:
            return
        meta = b""
        if trailer is not None:
            if not end:
                raise LocalProtocolError(f"{trailer.SPEC.name}: a trailer goes with the end only")
            self._check_legal(trailer, Shape.TRAILER, b"", True)
            meta = encode(trailer)
        data = _flat(data)
        stream.send(Outgoing.FINISH if end else Outgoing.GIVE)
        stream.trailer = meta
        self._bodies.give(stream, data)
        self._bodies.add(stream)

    def send_room(self, stream_id: int) -> int:
        """Return the bytes that ``send_data`` takes now without queueing more than is useful.

        After 0, StreamWritable tells when to ask again, unless our side of the stream ends before.
        """
        stream = self._find(stream_id)
        if stream is None or not stream.may_send(Outgoing.GIVE):
            return 0
        room = self._bodies.room_of(stream)
        if not room:
            self._writers[stream_id] = stream
        return room

    def consume(self, stream_id: int, size: int) -> None:
        """Say that ``size`` bytes of a stream's body were handed on, so that more may come."""
        stream = self._find(stream_id)
        if stream is None or stream.discards or not size:
            return
        if not 0 < size <= stream.incoming.outstanding:
            raise LocalProtocolError(
                f"stream {stream_id}: {size} bytes consumed, {stream.incoming.outstanding} came"
            )
        self._outbox.refund(stream, size)
        self._streams.forget_if_done(stream)

    # --- ends of streams --------------------------------------------------------------------

    def reset(self, stream_id: int, code: ErrorCode, text: str = "") -> None:
        """End our side of a stream unfinished; nothing happens where it has ended."""
        stream = self._find(stream_id)
        if stream is None or not stream.may_send(Outgoing.RESET):
            return
        if stream.unopened:
            stream.receiving = Receiving.RESET
        stream.send(Outgoing.RESET)
        self._outbox.abandon(stream, control.Reset(code, cut(text)))
        self._streams.forget_if_done(stream)
        self._tell_writers()

    def stop(self, stream_id: int, code: ErrorCode, text: str = "") -> None:
        """Ask for no more of a stream; what came and comes of it is dropped, without an event."""
        stream = self._find(stream_id)
        if stream is None or stream.discards:
            return
        if stream.unopened:
            self.reset(stream_id, code, text)
            return
        stream.discards = True
        if stream.receiving not in RECEIVED:
            self._outbox.send_control(FrameType.STOP, control.Stop(code, cut(text)), stream_id)
        self._outbox.discard(stream)

    def cancel(self, stream_id: int, code: ErrorCode = ErrorCode.CANCELLED, text: str = "") -> None:
        """End both sides of a stream: ``reset`` and ``stop``."""
        self.reset(stream_id, code, text)
        self.stop(stream_id, code, text)

    def release(self, stream_id: int) -> None:
        """Say that the work on a request of the peer has ended, which gives its place back.

        An answer that was not finished is reset, a body that was not read to its end is stopped.
        """
        stream = self._find(stream_id)
        if stream is None or stream.is_ours:
            return
        stream.released = True
        if stream.sending in (Sending.UNANSWERED, Sending.BODY):
            self.reset(stream_id, ErrorCode.INTERNAL, "the handler ended without a whole answer")
        if stream.receiving not in RECEIVED or stream.incoming.outstanding:
            self.stop(stream_id, ErrorCode.NO_ERROR, "the rest is not needed")
        self._streams.forget_if_done(stream)

    def interrupt(self, message: Message) -> int:
        """Send an urgent message ahead of everything; return its id, which InterruptAcked names.

        It waits where more than 50 a second are sent. Raises LocalProtocolError where it is not
        legal now or larger than 1 KiB.
        """
        if self._phases.phase not in SETTLED:
            raise LocalProtocolError(f"{message.SPEC.name}: the connection is not open")
        self._check_legal(message, Shape.INTERRUPT, b"", True)
        meta = encode(message)
        size = limits.FRAME_HEADER + len(meta)
        if size > limits.INTERRUPT_MAX:
            raise LocalProtocolError(
                f"{message.SPEC.name}: {size} bytes, at most {limits.INTERRUPT_MAX}"
            )
        return self._outbox.interrupts.queue(meta)

    # --- inside -----------------------------------------------------------------------------

    def _find(self, stream_id: int) -> Stream | None:
        """Return a stream; None where it, or the connection, has ended."""
        if self._phases.phase not in SETTLED:
            if self.closed:
                return None
            raise LocalProtocolError(f"stream {stream_id}: the connection is not open")
        streams = self._streams
        stream = streams.live.get(stream_id)
        if stream is None:
            following = streams.next_own if streams.is_own(stream_id) else streams.next_peer
            if not 0 < stream_id < following:
                raise LocalProtocolError(f"stream {stream_id}: there was never one")
        return stream

    def _check_legal(self, message: Message, shape: Shape, payload: Data, end: bool) -> None:
        spec = message.SPEC
        if spec.code not in legal_messages(self._phases.state, self._roles, shape):
            raise LocalProtocolError(
                f"{spec.name}: not a {shape.value} that a {self._roles.name} may send "
                f"in state {self._phases.state.name}"
            )
        if not spec.body and (payload or not end):
            raise LocalProtocolError(f"{spec.name}: it has no body")

    def _tell_writers(self) -> None:
        """Wake the writers whose streams have room again."""
        for stream_id, stream in list(self._writers.items()):
            if not stream.may_send(Outgoing.GIVE):
                del self._writers[stream_id]
            elif self._bodies.room_of(stream):
                del self._writers[stream_id]
                self._events.append(StreamWritable(stream_id))


def _flat(data: Data) -> Data:
    """Return ``data`` with items of one byte, so that its length is its size."""
    return data if type(data) is bytes else memoryview(data).cast("B")


def cut(text: str) -> str:
    """Return as much of a reason as a frame takes."""
    return text.encode()[:_TEXT_MAX].decode(errors="ignore")
