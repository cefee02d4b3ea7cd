"""A connection without I/O: bytes and the time in, events and records out.

A driver does these things, in any order and as often as it likes:

- ``receive_data`` with whatever came, ``receive_eof`` when nothing more will come;
- ``tick`` at ``next_deadline``;
- ``next_record`` whenever the transport can take more, until it returns None;
- ``events`` after calls of the other methods: they may have had something to tell, too.

After ConnectionClosed it sends what ``next_record`` still gives and closes the transport.

A session has more methods than is usual here because it is the whole surface of the protocol; the
work is done in handshake, inbox, outbox, streams and table.

Source: spec/PROTOCOL.md.
"""

from alpyne_proto import limits
from alpyne_proto.bodies import Bodies, Data
from alpyne_proto.calls import SETTLED, Calls, cut
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
from alpyne_proto.events import ConnectionClosed, Event, HandshakeCompleted
from alpyne_proto.flow import ReceiveCredit, SendCredit
from alpyne_proto.frame import FrameType
from alpyne_proto.handshake import Handshake, RefusedPreface, SessionConfig, roles_of
from alpyne_proto.inbox import Inbox
from alpyne_proto.liveness import Due, Liveness
from alpyne_proto.messages import control
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.messages.hello import CODEC_ZSTD, AcceptorHello, DiallerHello
from alpyne_proto.outbox import Outbox, control_frame
from alpyne_proto.record import RecordReader, RecordWriter
from alpyne_proto.registry import State
from alpyne_proto.streams import StreamTable
from alpyne_proto.table import STEP_TO, Phase, PhaseMachine, Step

__all__ = ["Session", "SessionConfig"]

_HELD_MAX = limits.RECORD_HEADER + limits.RECORD_MAX


class Session(Calls):
    """One side of one connection."""

    def __init__(self, config: SessionConfig, now: float) -> None:
        """Begin a connection at ``now``, in seconds of a monotonic clock, as are all times here."""
        self._config = config
        phases = PhaseMachine(Phase.MESSAGE_2 if config.is_dialler else Phase.PREFACE)
        super().__init__(phases, config.roles)
        self._handshake = Handshake(config, phases)
        self._raw = self._handshake.begin() if config.is_dialler else b""
        self._buffer = bytearray()  # of the handshake; then what came before ``promote``
        self._liveness = Liveness(now)
        self._now = now
        self._writer: RecordWriter | None = None
        self._farewell: bytes | None = None  # the CLOSE frame that is still to be sent
        self._flushes = False  # whether what is ready goes along with CLOSE
        self._reader: RecordReader
        self._inbox: Inbox

    # --- what is known ----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the connection may do: HANDSHAKE until SETTINGS; after the end as it was last."""
        return self._phases.state

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
    def has_output(self) -> bool:
        """Whether ``next_record`` may have something; False means that it has not."""
        if self._raw or self._farewell:
            return True
        return self._phases.phase in SETTLED and not self._outbox.is_empty

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
        if self._phases.phase not in SETTLED:
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

    # --- the connection ---------------------------------------------------------------------

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
        if self._phases.phase in SETTLED and not self._streams.refuses_new:
            self._streams.refuses_new = True
            last = self._streams.last_peer_id
            self._outbox.send_control(FrameType.GOAWAY, control.GoAway(last, code, cut(text)))

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """End the connection; what is ready and fits into one record goes out with CLOSE."""
        if self.closed:
            return
        self._flushes = self._phases.phase in SETTLED
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
        self._bodies = Bodies(self._streams, SendCredit(theirs.max_data), compressor)
        self._outbox = Outbox(self._streams, self._bodies, ReceiveCredit(ours.max_data))
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
            self._farewell = control_frame(FrameType.CLOSE, control.Close(code, cut(text)))

    def _end(self, error: AlpyneError | None) -> None:
        self._phases.move(Step.CLOSE)
        self._buffer.clear()
        self._writers.clear()
        self._events.append(ConnectionClosed(error))
