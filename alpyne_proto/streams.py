"""Streams: one request and its answer each, and the table of those that are alive.

The dialler's ids are 1, 3, 5, ..., the acceptor's 2, 4, 6, ...; a side uses its ids in order, each
one once. An id above the last one used was never opened, one at or below it and not in the table
has ended: so a closed stream costs no memory.

Source: spec/PROTOCOL.md, "Streams"; RFC 9113, section 5.1 (half-closed streams).
"""

from collections import deque
from collections.abc import Mapping
from enum import Enum

from alpyne_proto import limits
from alpyne_proto.errors import FlowError, FrameError, LocalProtocolError
from alpyne_proto.flow import ReceiveCredit, SendCredit
from alpyne_proto.frame import FrameType
from alpyne_proto.registry import Spec
from alpyne_proto.table import Side

_LATE_FRAMES = 8  # control frames that may cross the end of one stream
_LATE_FRAMES_MOST = 8192
_ANNOUNCE_PART = 4  # a new limit is sent when a quarter of the streams have ended


class Receiving(Enum):
    """The peer's side of a stream."""

    __hash__ = object.__hash__  # looked up for each frame; by name, as an Enum does, is slower

    RESPONSE_AWAITED = "response awaited"
    BODY = "body"
    ENDED = "ended"
    RESET = "reset"


class Incoming(Enum):
    """What the peer may do to its side of a stream."""

    __hash__ = object.__hash__

    RESPONSE = "RESPONSE"
    DATA = "DATA"
    END = "END"
    RESET = "RESET"


RECEIVING_MOVES: Mapping[tuple[Receiving, Incoming], Receiving] = {
    (Receiving.RESPONSE_AWAITED, Incoming.RESPONSE): Receiving.BODY,
    (Receiving.RESPONSE_AWAITED, Incoming.RESET): Receiving.RESET,
    (Receiving.BODY, Incoming.DATA): Receiving.BODY,
    (Receiving.BODY, Incoming.END): Receiving.ENDED,
    (Receiving.BODY, Incoming.RESET): Receiving.RESET,
}


class Sending(Enum):
    """Our side of a stream."""

    __hash__ = object.__hash__

    UNANSWERED = "unanswered"  # the peer's request; no answer was given yet
    BODY = "body"  # head given, more may follow
    FINISHED = "finished"  # all was given, not all is sent
    ENDED = "ended"  # all is sent
    RESET = "reset"  # by us
    STOPPED = "stopped"  # reset because the peer wants no more of it


class Outgoing(Enum):
    """What we may do to our side of a stream."""

    __hash__ = object.__hash__

    ANSWER = "answer"
    GIVE = "give data"
    FINISH = "give the last data"
    END = "send the last frame"
    RESET = "reset"
    STOP = "be stopped"


SENDING_MOVES: Mapping[tuple[Sending, Outgoing], Sending] = {
    (Sending.UNANSWERED, Outgoing.ANSWER): Sending.BODY,
    (Sending.UNANSWERED, Outgoing.RESET): Sending.RESET,
    (Sending.UNANSWERED, Outgoing.STOP): Sending.STOPPED,
    (Sending.BODY, Outgoing.GIVE): Sending.BODY,
    (Sending.BODY, Outgoing.FINISH): Sending.FINISHED,
    (Sending.BODY, Outgoing.RESET): Sending.RESET,
    (Sending.BODY, Outgoing.STOP): Sending.STOPPED,
    (Sending.FINISHED, Outgoing.END): Sending.ENDED,
    (Sending.FINISHED, Outgoing.RESET): Sending.RESET,
    (Sending.FINISHED, Outgoing.STOP): Sending.STOPPED,
}

RECEIVED = frozenset({Receiving.ENDED, Receiving.RESET})
SENT = frozenset({Sending.ENDED, Sending.RESET, Sending.STOPPED})


class Stream:
    """One stream: both its sides, its credit, and what waits to be sent."""

    __slots__ = (
        "awaits_ack",
        "chunks",
        "discards",
        "head",
        "head_flags",
        "head_type",
        "id",
        "incoming",
        "is_ours",
        "outgoing",
        "plain_frames",
        "queued",
        "receiving",
        "released",
        "request",
        "scheduled",
        "sending",
        "trailer",
        "urgency",
    )

    def __init__(
        self,
        stream_id: int,
        is_ours: bool,
        request: Spec,
        incoming: ReceiveCredit,
        outgoing: SendCredit,
        urgency: int,
    ) -> None:
        self.id = stream_id
        self.is_ours = is_ours
        self.request = request
        self.incoming = incoming
        self.outgoing = outgoing
        self.urgency = urgency
        self.receiving = Receiving.RESPONSE_AWAITED if is_ours else Receiving.BODY
        self.sending = Sending.BODY if is_ours else Sending.UNANSWERED
        self.head: bytes | None = None  # meta of the REQUEST or RESPONSE that is not sent yet
        self.head_type = FrameType.REQUEST if is_ours else FrameType.RESPONSE
        self.head_flags = 0
        self.chunks: deque[bytes | memoryview] = deque()
        self.queued = 0  # bytes in chunks
        self.trailer = b""  # meta of the last DATA frame
        self.scheduled = False  # stands in the scheduler
        self.released = is_ours  # no handler of ours works on it (any more)
        self.discards = False  # the peer's side interests nobody any more
        self.awaits_ack = False
        self.plain_frames = 0  # that many frames are sent without trying to compress them

    @property
    def unopened(self) -> bool:
        """Whether it is ours and its REQUEST has not been sent."""
        return self.is_ours and self.head is not None

    @property
    def done(self) -> bool:
        """Whether nothing can happen to it any more."""
        return (
            self.receiving in RECEIVED
            and self.sending in SENT
            and self.released
            and not self.incoming.outstanding
        )

    def receive(self, what: Incoming) -> None:
        """Move the peer's side; FrameError where the table has no such move."""
        following = RECEIVING_MOVES.get((self.receiving, what))
        if following is None:
            raise FrameError(
                f"stream {self.id}: {what.value} while the peer's side is {self.receiving.value}"
            )
        self.receiving = following

    def send(self, what: Outgoing) -> None:
        """Move our side; LocalProtocolError where the table has no such move."""
        following = SENDING_MOVES.get((self.sending, what))
        if following is None:
            raise LocalProtocolError(
                f"stream {self.id}: cannot {what.value}, our side is {self.sending.value}"
            )
        self.sending = following

    def may_send(self, what: Outgoing) -> bool:
        """Whether our side may take this move."""
        return (self.sending, what) in SENDING_MOVES

    def kill(self) -> None:
        """End both sides at once: the peer has never looked at the stream, nor will it."""
        if self.receiving not in RECEIVED:
            self.receiving = Receiving.RESET
        if self.sending not in SENT:
            self.sending = Sending.STOPPED


class StreamTable:
    """The streams that are alive, the next ids, and the credit for new ones."""

    __slots__ = (
        "_announced",
        "_ended",
        "_late_bytes",
        "_late_frames",
        "_parity",
        "_peer_window",
        "_streams_window",
        "_window",
        "credit_due",
        "live",
        "next_own",
        "next_peer",
        "peer_max",
        "peer_refuses_above",
        "refuses_new",
    )

    def __init__(
        self, side: Side, *, window: int, streams_window: int, peer_window: int, peer_max: int
    ) -> None:
        """window: bytes we grant each stream; streams_window: streams the peer may have open."""
        self.live: dict[int, Stream] = {}
        self.next_own = 1 if side is Side.DIALLER else 2
        self.next_peer = 2 if side is Side.DIALLER else 1
        self.peer_max = peer_max
        self._streams_window = streams_window
        self.refuses_new = False  # after our GOAWAY
        self.credit_due = False  # a higher limit of streams should be announced
        self.peer_refuses_above = 1 << 64  # no id of ours, until the peer says GOAWAY
        self._parity = self.next_own & 1
        self._window = window
        self._peer_window = peer_window
        self._announced = streams_window
        self._ended = 0  # streams of the peer that gave their place back
        self._late_frames = _LATE_FRAMES
        self._late_bytes = 0

    @property
    def last_peer_id(self) -> int:
        """The highest id that the peer has used; below 1 where it has used none."""
        return max(0, self.next_peer - 2)

    @property
    def open_room(self) -> int:
        """Streams that may still be opened without waiting for the peer."""
        return max(0, self.peer_max - ordinal(self.next_own) + 1)

    def is_own(self, stream_id: int) -> bool:
        """Whether an id is one that we give out."""
        return stream_id & 1 == self._parity

    def open(self, request: Spec, urgency: int) -> Stream:
        """Make a stream of ours under the next id."""
        stream_id = self.next_own
        if stream_id > limits.STREAM_ID_MAX:
            raise LocalProtocolError("stream ids are used up: open a new connection")
        self.next_own = stream_id + 2
        return self._add(stream_id, True, request, urgency)

    def check_new(self, stream_id: int) -> None:
        """Take the id of a stream that the peer opens.

        Raises FrameError for one that is not its next, FlowError beyond MAX_STREAMS.
        """
        if stream_id != self.next_peer:
            raise FrameError(f"REQUEST: expected stream {self.next_peer}, got {stream_id}")
        if ordinal(stream_id) > self._announced:
            raise FlowError(f"REQUEST: stream {stream_id}, credit for {self._announced} streams")
        self.next_peer = stream_id + 2

    def accept(self, stream_id: int, request: Spec, urgency: int) -> Stream:
        """Make the stream that the peer opened under an id that was checked."""
        return self._add(stream_id, False, request, urgency)

    def pass_new(self) -> None:
        """Count a stream of the peer that ends as it begins."""
        self._late_bytes += self._window
        self._count_end(is_ours=False)

    def check_ended(self, stream_id: int, type: int) -> None:
        """Raise FrameError where a stream that is not alive was never opened."""
        following = self.next_own if self.is_own(stream_id) else self.next_peer
        if not 0 < stream_id < following:
            raise FrameError(f"frame {type:#04x}: stream {stream_id} was never opened")

    def take_late_frame(self, stream_id: int, type: int) -> None:
        """Count a control frame of a stream that has ended; FrameError for too many."""
        self._late_frames -= 1
        if self._late_frames < 0:
            raise FrameError(f"frame {type:#04x}: stream {stream_id} has ended")

    def take_late_bytes(self, stream_id: int, size: int) -> None:
        """Count body bytes of a stream that has ended; FrameError for more than were underway."""
        self._late_bytes -= size
        if self._late_bytes < 0:
            raise FrameError(f"DATA: stream {stream_id} has ended")

    def forget_if_done(self, stream: Stream) -> None:
        """Drop a stream where nothing can happen to it any more."""
        if stream.done and self.live.pop(stream.id, None) is not None:
            self._count_end(stream.is_ours)

    def announce(self) -> int:
        """Return the new limit of streams, and hold the peer to it."""
        self.credit_due = False
        self._announced = min(self._ended + self._streams_window, limits.STREAM_ID_MAX)
        return self._announced

    def _count_end(self, is_ours: bool) -> None:
        self._late_frames = min(self._late_frames + _LATE_FRAMES, _LATE_FRAMES_MOST)
        if not is_ours:
            self._ended += 1
            owed = self._ended + self._streams_window - self._announced
            if owed >= max(1, self._streams_window // _ANNOUNCE_PART):
                self.credit_due = True

    def _add(self, stream_id: int, is_ours: bool, request: Spec, urgency: int) -> Stream:
        stream = Stream(
            stream_id,
            is_ours,
            request,
            ReceiveCredit(self._window),
            SendCredit(self._peer_window),
            urgency,
        )
        self.live[stream_id] = stream
        return stream


def ordinal(stream_id: int) -> int:
    """Return which stream of its side an id names, from 1."""
    return (stream_id + 1) // 2
