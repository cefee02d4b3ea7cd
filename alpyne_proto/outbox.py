"""What goes out: which frames stand in the next record, decided when the record is asked for.

Order in a record: SETTINGS, interrupts, control frames, credit, then bodies by urgency. Everything
before the bodies is exempt from flow control, so two sides whose windows are full still hear each
other.

Source: spec/PROTOCOL.md, "Priorities".
"""

from collections import deque

from alpyne_proto.bodies import Bodies, Data
from alpyne_proto.codec import encode
from alpyne_proto.errors import ErrorCode, RemoteProtocolError
from alpyne_proto.flow import ReceiveCredit
from alpyne_proto.frame import FrameType, pack
from alpyne_proto.interrupts import InterruptSender
from alpyne_proto.messages import control
from alpyne_proto.registry import Message
from alpyne_proto.streams import Receiving, Stream, StreamTable

_ANSWERS_MOST = 4096  # control frames that may wait for a peer that does not read; an honest one
# has at most STREAMS_MAX streams and INTERRUPT_BURST interrupts that make us answer


class Outbox:
    """Everything that waits to be sent on one connection."""

    __slots__ = (
        "_control",
        "_credit_due",
        "_max_data_due",
        "_settings",
        "_streams",
        "bodies",
        "interrupts",
        "receive_credit",
    )

    def __init__(self, streams: StreamTable, bodies: Bodies, receive_credit: ReceiveCredit) -> None:
        """receive_credit: what we let the peer send on the whole connection."""
        self._streams = streams
        self._settings: list[bytes] = []
        self._control: deque[bytes] = deque()
        self._credit_due: dict[int, Stream] = {}
        self._max_data_due = False
        self.bodies = bodies
        self.interrupts = InterruptSender()
        self.receive_credit = receive_credit

    @property
    def is_empty(self) -> bool:
        """Whether there is surely nothing to send."""
        return not (
            self._control
            or self.bodies.pending
            or self._max_data_due
            or self._credit_due
            or self._streams.credit_due
            or self.interrupts.waiting
            or self._settings
        )

    # --- what comes in ----------------------------------------------------------------------

    def settle(self, settings: control.Settings) -> None:
        """Queue SETTINGS, ahead of all else: what follows is legal only behind it."""
        self._settings.append(control_frame(FrameType.SETTINGS, settings))

    def send_control(
        self, type: FrameType, message: Message | None = None, stream_id: int = 0
    ) -> None:
        """Queue a control frame of our own accord."""
        self._control.append(control_frame(type, message, stream_id))

    def answer(
        self, type: FrameType, message: Message | None = None, stream_id: int = 0, flags: int = 0
    ) -> None:
        """Queue a control frame that something of the peer's has caused.

        Raises RemoteProtocolError (TOO_BUSY) where the peer makes us answer and does not read.
        """
        if len(self._control) >= _ANSWERS_MOST:
            error = RemoteProtocolError(
                f"{len(self._control)} control frames wait for a peer that does not read"
            )
            error.code = ErrorCode.TOO_BUSY
            raise error
        self._control.append(control_frame(type, message, stream_id, flags))

    def abandon(self, stream: Stream, reset: control.Reset) -> None:
        """Send RESET instead of the rest of a stream."""
        self.bodies.drop(stream)
        if stream.unopened:
            # Its id must be used up in its turn, but the peer shall not see the request.
            stream.head = encode(reset)
            stream.head_type = FrameType.RESET
            stream.head_flags = 0
            self.bodies.add(stream)
        else:
            stream.head = None
            self.send_control(FrameType.RESET, reset, stream.id)

    def discard(self, stream: Stream) -> None:
        """Consume all that came of a stream and that nobody will read."""
        rest = stream.incoming.outstanding
        if rest:
            stream.incoming.consumed += rest
            self.refund_connection(rest)
        self._streams.forget_if_done(stream)

    def refund(self, stream: Stream, size: int) -> None:
        """Give credit back for ``size`` consumed bytes of a stream."""
        if stream.incoming.consume(size) and stream.receiving is Receiving.BODY:
            self._credit_due[stream.id] = stream
        self.refund_connection(size)

    def refund_connection(self, size: int) -> None:
        """Give credit back for ``size`` consumed bytes, for the connection alone."""
        if self.receive_credit.consume(size):
            self._max_data_due = True

    # --- what goes out ----------------------------------------------------------------------

    def take(self, now: float, room: int) -> list[Data]:
        """Return the bytes of the next record's frames, at most ``room`` of them; [] for none."""
        parts: list[Data] = []
        if self._settings:
            parts += self._settings
            self._settings.clear()
            room -= sum(map(len, parts))
        if self.interrupts.waiting:
            for frame in self.interrupts.take(now, room):
                parts.append(frame)
                room -= len(frame)
        if self._max_data_due or self._credit_due or self._streams.credit_due:
            self._queue_credit()
        while self._control and len(self._control[0]) <= room:
            frame = self._control.popleft()
            parts.append(frame)
            room -= len(frame)
        if self.bodies.pending and not self._control:
            self.bodies.take(parts, room)
        return parts

    def _queue_credit(self) -> None:
        """Turn due credit into frames only now, so that each carries the newest limit."""
        if self._max_data_due:
            self._max_data_due = False
            self.send_control(FrameType.MAX_DATA, control.MaxData(self.receive_credit.announce()))
        if self._streams.credit_due:
            self.send_control(FrameType.MAX_STREAMS, control.MaxStreams(self._streams.announce()))
        for stream in self._credit_due.values():
            if stream.receiving is Receiving.BODY:
                limit = control.MaxStreamData(stream.incoming.announce())
                self.send_control(FrameType.MAX_STREAM_DATA, limit, stream.id)
        self._credit_due.clear()


def control_frame(
    type: FrameType, message: Message | None = None, stream_id: int = 0, flags: int = 0
) -> bytes:
    """Return a whole frame without payload."""
    return pack(type, flags, stream_id, b"" if message is None else encode(message))
