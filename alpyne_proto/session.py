"""A connection without I/O: bytes and the time in, events and records out.

A driver does these things, in any order and as often as it likes:

- ``receive_data`` with whatever came, ``receive_eof`` when nothing more will come;
- ``tick`` at ``next_deadline``;
- ``next_record`` whenever the transport can take more, until it returns None;
- ``events`` after calls of the other methods: they may have had something to tell, too.

After ConnectionClosed it sends what ``next_record`` still gives and closes the transport. Once the
connection has ended, methods on streams do nothing: the driver may not have read that event yet.

The class has more methods than is usual here because it is the whole surface of the protocol; the
work is done in handshake, inbox, outbox, streams and table.

Source: spec/PROTOCOL.md.
"""

from alpyne_proto import limits
from alpyne_proto.codec import encode
from alpyne_proto.compression import Compression, Compressor
from alpyne_proto.errors import (
    AlpyneError,
    ConnectionLost,
    ErrorCode,
    FrameError,
    HandshakeFailed,
    LocalProtocolError,
    RecordError,
    RemoteProtocolError,
)
from alpyne_proto.events import ConnectionClosed, Event, HandshakeCompleted, StreamWritable
from alpyne_proto.flow import ReceiveCredit, SendCredit
from alpyne_proto.frame import Flags, FrameType
from alpyne_proto.handshake import Handshake, RefusedPreface, SessionConfig, roles_of
from alpyne_proto.inbox import Inbox
from alpyne_proto.liveness import Due, Liveness
from alpyne_proto.messages import control
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.messages.hello import CODEC_ZSTD, AcceptorHello, DiallerHello
from alpyne_proto.outbox import Data, Outbox, control_frame
from alpyne_proto.record import RecordReader, RecordWriter
from alpyne_proto.registry import Message, Shape, Spec, State
from alpyne_proto.scheduler import DEFAULT_URGENCY, LEAST_URGENT, MOST_URGENT
from alpyne_proto.stream_frames import check_answer
from alpyne_proto.streams import RECEIVED, Outgoing, Receiving, Sending, Stream, StreamTable
from alpyne_proto.table import STEP_TO, Phase, PhaseMachine, Step, legal_messages

__all__ = ["Session", "SessionConfig"]

_HELD_MAX = limits.RECORD_HEADER + limits.RECORD_MAX
_TEXT_MAX = 512  # bytes of a reason; see messages.control
_SETTLED = frozenset({Phase.UNKNOWN, Phase.BEARER, Phase.OPEN})


class Session:
    """One side of one connection."""

    def __init__(self, config: SessionConfig, now: float) -> None:
        """Begin a connection at ``now``, in seconds of a monotonic clock, as are all times here."""
        self._config = config
        self._phases = PhaseMachine(Phase.MESSAGE_2 if config.is_dialler else Phase.PREFACE)
        self._handshake = Handshake(config, self._phases)
        self._raw = self._handshake.begin() if config.is_dialler else b""
        self._events: list[Event] = []
        self._buffer = bytearray()  # of the handshake; then what came before ``promote``
        self._liveness = Liveness(now)
        self._now = now
        self._writer: RecordWriter | None = None
        self._farewell: bytes | None = None  # the CLOSE frame that is still to be sent
        self._flushes = False  # whether what is ready goes along with CLOSE
        self._roles = config.roles
        self._writers: dict[int, Stream] = {}  # streams whose send_room was 0 when last asked
        self._reader: RecordReader
        self._streams: StreamTable
        self._outbox: Outbox
        self._inbox: Inbox

    # --- what is known ----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the connection may do: HANDSHAKE until SETTINGS; after the end as it was last."""
        return self._phases.state

    @property
    def closed(self) -> bool:
        """Whether the connection has ended; ``next_record`` may still have a last record."""
        return self._phases.phase is Phase.CLOSED

    @property
    def peer_hello(self) -> AcceptorHello | DiallerHello | None:
        """The peer's hello; None before HandshakeCompleted."""
        return self._handshake.peer_hello

    @property
    def remote_static(self) -> bytes:
        """The peer's proven X25519 key, 32 bytes; LocalProtocolError before HandshakeCompleted."""
        return self._handshake.remote_static

    @property
    def handshake_hash(self) -> bytes:
        """A value that only the two ends of this connection have (Noise 11.2, channel binding)."""
        return self._handshake.handshake_hash

    @property
    def open_room(self) -> int:
        """Streams that can be opened now without waiting for the peer's MAX_STREAMS."""
        return self._streams.open_room if self._phases.phase in _SETTLED else 0

    @property
    def has_output(self) -> bool:
        """Whether ``next_record`` may have something; False means that it has not."""
        if self._raw or self._farewell:
            return True
        return self._phases.phase in _SETTLED and not self._outbox.is_empty

    # --- bytes and time in ------------------------------------------------------------------

    def events(self) -> list[Event]:
        """Return, once, what has happened and was not returned yet."""
        events = self._events[:]
        self._events.clear()
        return events

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """Take bytes from the transport, in any pieces; return what they mean."""
        self._now = now
        if not self.closed:
            try:
                self._receive(data)
            except RemoteProtocolError as error:
                self._fail(error)
            if self._writers:
                self._tell_writers()
        return self.events()

    def receive_eof(self, now: float) -> list[Event]:
        """Take the end of the transport; without CLOSE before it, it is never a clean one."""
        self._now = now
        if self._phases.phase is Phase.CLOSED:
            return self.events()
        if self._writer is None:
            self._end(
                HandshakeFailed(
                    "the peer closed the connection during the handshake: it is no Alpyne node, or "
                    "its key is not the one that was expected"
                )
            )
        else:
            self._end(ConnectionLost("the connection ended without CLOSE (truncated)"))
        return self.events()

    def tick(self, now: float) -> list[Event]:
        """Do what is due at ``now``: ping a silent peer, give up a dead one."""
        self._now = now
        if self.closed:
            return self.events()
        due = self._liveness.due(self._phases.phase, now)
        if due is Due.PING:
            self._inbox.pings_sent += 1
            self._outbox.send_control(FrameType.PING, control.Ping(self._inbox.pings_sent))
        elif due is Due.GIVE_UP_HANDSHAKE:
            self._fail(HandshakeFailed("handshake: it was not finished in time"))
        elif due is Due.DEAD:
            text = f"nothing came for {limits.DEAD_AFTER_S:g} s"
            self._say_goodbye(ErrorCode.IDLE_TIMEOUT, text)
            self._end(ConnectionLost(f"the peer is silent: {text}", ErrorCode.IDLE_TIMEOUT))
        return self.events()

    def next_deadline(self) -> float | None:
        """Return when ``tick`` wants to be called; None once the connection has ended."""
        if self._events:
            return self._now
        if self.closed:
            return None
        deadline = self._liveness.deadline(self._phases.phase)
        if self._phases.phase not in _SETTLED:
            return deadline
        ready_at = self._outbox.interrupts.ready_at(self._now)
        return deadline if ready_at is None else min(deadline, ready_at)

    # --- bytes out --------------------------------------------------------------------------

    def next_record(self, now: float) -> bytes | bytearray | None:
        """Return the next bytes to send, None for now where there are none.

        Ask only when the transport can take them: what is most urgent is decided here. What was
        returned must be sent, in order.
        """
        if self._raw:
            raw, self._raw = self._raw, b""
            return raw
        writer = self._writer
        if writer is None:
            return None
        if self._farewell is not None:
            return self._last_record(writer, now)
        outbox = self._outbox
        if outbox.is_empty:
            return None
        parts = outbox.take(now, limits.RECORD_PLAIN_MAX)
        if self._writers:
            self._tell_writers()
        return writer.seal(parts) if parts else None

    def _last_record(self, writer: RecordWriter, now: float) -> bytearray:
        parts: list[Data] = []
        farewell = self._farewell or b""
        if self._flushes:
            parts = self._outbox.take(now, limits.RECORD_PLAIN_MAX - len(farewell))
        self._farewell = self._writer = None
        return writer.seal([*parts, farewell])

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
        if self._phases.phase not in _SETTLED:
            raise LocalProtocolError(f"{message.SPEC.name}: the connection is not open")
        self._check_legal(message, Shape.REQUEST, payload, end)
        if not MOST_URGENT <= urgency <= LEAST_URGENT:
            raise LocalProtocolError(f"urgency: expected 1 to 7, got {urgency}")
        streams = self._streams
        if streams.next_own > streams.peer_refuses_above:
            raise LocalProtocolError(f"{message.SPEC.name}: the peer goes away; use another node")
        head = encode(message)
        stream = streams.open(message.SPEC, urgency)
        stream.head = head
        stream.awaits_ack = want_ack
        stream.head_flags = Flags.ACK if want_ack else 0
        self._outbox.give(stream, _flat(payload))
        if end:
            stream.send(Outgoing.FINISH)
        self._outbox.open(stream)
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
        """Answer a request; arguments as for ``open_stream``.

        Nothing happens where the peer wants no answer any more. Raises LocalProtocolError where
        there is one already, or where ``message`` is none to this request.
        """
        stream = self._find(stream_id)
        if stream is None or stream.sending is Sending.STOPPED:
            return
        check_answer(stream.request, message, LocalProtocolError)
        self._check_legal(message, Shape.RESPONSE, payload, end)
        head = encode(message)
        stream.send(Outgoing.ANSWER)
        if urgency is not None and not stream.scheduled:
            stream.urgency = min(max(urgency, MOST_URGENT), LEAST_URGENT)
        stream.head = head
        self._outbox.give(stream, _flat(payload))
        if end:
            stream.send(Outgoing.FINISH)
        self._outbox.scheduler.add(stream)

    def send_data(
        self, stream_id: int, data: Data, *, end: bool = False, trailer: Message | None = None
    ) -> None:
        """Send more of a body, or its end; ``data`` must not change any more.

        All of it is taken, whatever ``send_room`` says. trailer: a message of shape TRAILER, with
        ``end`` only. Nothing happens where the peer wants no more of it. Raises LocalProtocolError
        where the body has ended or has not begun.
        """
        stream = self._find(stream_id)
        if stream is None or stream.sending is Sending.STOPPED:
            return
        if trailer is not None:
            if not end:
                raise LocalProtocolError("trailer: only with the end of the body")
            self._check_legal(trailer, Shape.TRAILER, b"", True)
            stream.trailer = encode(trailer)
        stream.send(Outgoing.FINISH if end else Outgoing.GIVE)
        self._outbox.give(stream, _flat(data))
        self._outbox.scheduler.add(stream)

    def send_room(self, stream_id: int) -> int:
        """Return the bytes that ``send_data`` takes now without queueing more than is useful.

        After 0, StreamWritable tells when to ask again; not so where the stream has ended.
        """
        stream = self._find(stream_id)
        if stream is None or not stream.may_send(Outgoing.GIVE):
            return 0
        room = self._outbox.room_of(stream)
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
        self._outbox.close_if_done(stream)

    # --- ends of streams --------------------------------------------------------------------

    def reset(self, stream_id: int, code: ErrorCode, text: str = "") -> None:
        """End our side of a stream unfinished; nothing happens where it has ended."""
        stream = self._find(stream_id)
        if stream is None or not stream.may_send(Outgoing.RESET):
            return
        if stream.unopened:
            stream.discards = True
            stream.receiving = Receiving.RESET
        stream.send(Outgoing.RESET)
        self._outbox.abandon(stream, control.Reset(code, _cut(text)))
        self._outbox.close_if_done(stream)
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
            self._outbox.send_control(FrameType.STOP, control.Stop(code, _cut(text)), stream_id)
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
            self.reset(stream_id, ErrorCode.INTERNAL, "the handler ended without an answer")
        if stream.receiving not in RECEIVED or stream.incoming.outstanding:
            self.stop(stream_id, ErrorCode.NO_ERROR, "the rest is not needed")
        self._outbox.close_if_done(stream)

    # --- the connection ---------------------------------------------------------------------

    def interrupt(self, message: Message) -> int:
        """Send an urgent message ahead of everything; return its id, which InterruptAcked names.

        It waits where more than 50 a second are sent. Raises LocalProtocolError where it is not
        legal now or larger than 1 KiB.
        """
        if self._phases.phase not in _SETTLED:
            raise LocalProtocolError(f"{message.SPEC.name}: the connection is not open")
        self._check_legal(message, Shape.INTERRUPT, b"", True)
        meta = encode(message)
        size = limits.FRAME_HEADER + len(meta)
        if size > limits.INTERRUPT_MAX:
            raise LocalProtocolError(
                f"{message.SPEC.name}: {size} bytes, at most {limits.INTERRUPT_MAX}"
            )
        return self._outbox.interrupts.queue(meta)

    def promote(self, state: State, role: AccountRole = AccountRole.NONE) -> None:
        """Acceptor: say what the connection may do from now on (SETTINGS).

        What the peer sent in advance is handled at once; see ``events``.
        """
        if self.closed:
            return
        step = STEP_TO.get(state)
        if self._config.is_dialler or step is None:
            raise LocalProtocolError(f"promote: an acceptor's, and not to {state.name}")
        self._phases.move(step)
        self._outbox.settle(control.Settings(state, role))
        self._inbox.look_up()
        if self._buffer:
            held = bytes(self._buffer)
            self._buffer.clear()
            self._events.extend(self.receive_data(held, self._now))

    def go_away(self, code: ErrorCode = ErrorCode.SHUTTING_DOWN, text: str = "") -> None:
        """Take no new requests; those that came are still served."""
        if self._phases.phase in _SETTLED and not self._streams.refuses_new:
            self._streams.refuses_new = True
            last = self._streams.last_peer_id
            self._outbox.send_control(FrameType.GOAWAY, control.GoAway(last, code, _cut(text)))

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """End the connection; what is ready and fits into one record goes out with CLOSE."""
        if self.closed:
            return
        self._flushes = self._phases.phase in _SETTLED
        self._say_goodbye(code, text)
        clean = code is ErrorCode.NO_ERROR
        self._end(None if clean else ConnectionLost(f"closed by this side: {text}", code))

    # --- inside -----------------------------------------------------------------------------

    def _receive(self, data: bytes | bytearray | memoryview) -> None:
        if self._writer is None:
            self._buffer += data
            self._raw += self._handshake.advance(self._buffer)
            if not self._handshake.done:
                return
            self._begin()
            data = b""
            if self._config.is_dialler:
                data = bytes(self._buffer)
                self._buffer.clear()
        if self._phases.phase is Phase.SETTLING and not self._config.is_dialler:
            self._buffer += data
            if len(self._buffer) > _HELD_MAX:
                raise FrameError(f"record: more than {_HELD_MAX} bytes came before SETTINGS")
            return
        inbox, now = self._inbox, self._now
        for record in self._reader.feed(data):
            self._liveness.hear(now)
            inbox.take_record(record, now)
            if inbox.closed is not None:
                self._take_close(inbox.closed)
                return

    def _begin(self) -> None:
        """Set up everything that needs the keys and the peer's hello."""
        config, handshake = self._config, self._handshake
        ours, theirs = config.hello, handshake.peer_hello
        assert theirs is not None  # the handshake is done
        sending, receiving = handshake.split()
        self._writer = RecordWriter(sending)
        self._reader = RecordReader(receiving)
        self._streams = StreamTable(
            config.side,
            window=ours.max_stream_data,
            streams_window=ours.max_streams,
            peer_window=theirs.max_stream_data,
            peer_max=theirs.max_streams,
        )
        compressor = None
        if config.compression is not Compression.OFF and theirs.codecs & CODEC_ZSTD:
            compressor = Compressor(config.compression)
        self._outbox = Outbox(
            self._streams, SendCredit(theirs.max_data), ReceiveCredit(ours.max_data), compressor
        )
        self._inbox = Inbox(
            self._phases,
            self._streams,
            self._outbox,
            self._events,
            sender=config.side.other,
            peer_roles=roles_of(theirs),
            takes_zstd=bool(ours.codecs & CODEC_ZSTD),
        )
        self._liveness.hear(self._now)
        self._events.append(HandshakeCompleted(theirs, handshake.remote_static))

    def _take_close(self, message: control.Close) -> None:
        self._writer = None  # whoever sent CLOSE reads nothing more
        error = None
        if message.code is not ErrorCode.NO_ERROR:
            text = f"the peer closed the connection: {message.code.name}: {message.text}"
            error = ConnectionLost(text, message.code)
        self._end(error)

    def _fail(self, error: RemoteProtocolError) -> None:
        """End the connection for what the peer did."""
        if isinstance(error, HandshakeFailed | RecordError):
            # Nothing that tells failures apart goes on the wire.
            self._raw = error.preface if isinstance(error, RefusedPreface) else b""
            self._writer = None
        else:
            self._say_goodbye(error.code, str(error))
        self._end(error)

    def _say_goodbye(self, code: ErrorCode, text: str) -> None:
        if self._writer is None:
            self._raw = b""
        else:
            self._farewell = control_frame(FrameType.CLOSE, control.Close(code, _cut(text)))

    def _end(self, error: AlpyneError | None) -> None:
        self._phases.move(Step.CLOSE)
        self._buffer.clear()
        self._writers.clear()
        self._events.append(ConnectionClosed(error))

    def _find(self, stream_id: int) -> Stream | None:
        """Return a stream; None where it, or the connection, has ended."""
        if self._phases.phase not in _SETTLED:
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
        spec: Spec = message.SPEC
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
            elif self._outbox.room_of(stream):
                del self._writers[stream_id]
                self._events.append(StreamWritable(stream_id))


def _flat(data: Data) -> Data:
    """Return ``data`` with items of one byte, so that its length is its size."""
    return data if type(data) is bytes else memoryview(data).cast("B")


def _cut(text: str) -> str:
    """Return as much of a reason as a frame takes."""
    return text.encode()[:_TEXT_MAX].decode(errors="ignore")
