"""What comes in: frames of a decrypted record, looked up in the table, handed to their handlers.

The order is always the same: bound, inflate, parse, look up, act. Whatever is not in the table of
the present state is a connection error, except unknown frames of an odd type in state OPEN.

Source: spec/PROTOCOL.md, "Frames" and "States".
"""

from collections.abc import Callable
from typing import TypeVar

from alpyne_proto import connection_frames, stream_frames
from alpyne_proto.codec import decode, decode_as
from alpyne_proto.compression import Inflater, declared_size
from alpyne_proto.errors import CompressionError, FrameError, RemoteProtocolError
from alpyne_proto.events import Event, Payload
from alpyne_proto.frame import Flags, Frame, FrameType, split
from alpyne_proto.interrupts import InterruptReceiver
from alpyne_proto.messages import control
from alpyne_proto.outbox import Outbox
from alpyne_proto.registry import Message, Role, Shape, State
from alpyne_proto.streams import Stream, StreamTable
from alpyne_proto.table import (
    RULES,
    PhaseMachine,
    Scope,
    Side,
    legal_frames,
    legal_messages,
)

_ZSTD = int(Flags.ZSTD)
_NUMBERS = frozenset(FrameType)
_ControlT = TypeVar("_ControlT", bound=Message)


class Inbox:
    """Takes the records of one connection apart; the handlers' functions work on it."""

    __slots__ = (
        "_handlers",
        "_inflater",
        "_is_open",
        "_legal",
        "_peer_roles",
        "_sender",
        "_takes_zstd",
        "_urgent_at",
        "closed",
        "events",
        "interrupts",
        "now",
        "outbox",
        "phases",
        "pings_answered",
        "pings_sent",
        "streams",
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
        self.phases = phases
        self.streams = streams
        self.outbox = outbox
        self.events = events
        self.interrupts = InterruptReceiver()
        self.closed: control.Close | None = None
        self.now = 0.0
        self.pings_sent = 0
        self.pings_answered = 0
        self._sender = sender
        self._peer_roles = peer_roles
        self._takes_zstd = takes_zstd
        self._inflater: Inflater | None = None
        self._urgent_at = 0  # where the next interrupt goes among the events
        self.look_up()

    def look_up(self) -> None:
        """Take what is legal in the present state from the tables."""
        state = self.phases.state
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
        self.now = now
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
                    "payload; this type may not have all of these"
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
            f"in state {self.phases.state.name}"
        )

    # --- what the handlers use --------------------------------------------------------------

    def parse(self, frame: Frame, shape: Shape) -> Message:
        """Return the message in a frame's meta, if the peer may send it in this state."""
        message = decode(frame.meta, (shape,), lenient=self._is_open)
        if message.SPEC.code not in self._legal[shape]:
            raise RemoteProtocolError(
                f"{message.SPEC.name}: not legal from a {self._peer_roles.name} "
                f"in state {self.phases.state.name}"
            )
        return message

    def parse_control(self, frame: Frame, cls: type[_ControlT]) -> _ControlT:
        """Return the control message in a frame's meta."""
        return decode_as(frame.meta, cls, lenient=self._is_open)

    def put_urgent(self, event: Event) -> None:
        """Add an event ahead of those of its record, behind the urgent ones before it."""
        self.events.insert(self._urgent_at, event)
        self._urgent_at += 1

    def take_body(self, stream: Stream, flags: int, payload: Payload) -> Payload:
        """Count a piece of a body against its credit, then return it inflated."""
        size = self._size_of(flags, payload)
        stream.incoming.take(size, stream.id)
        self.outbox.receive_credit.take(size, 0)
        if not flags & _ZSTD or stream.discards:
            return payload
        if self._inflater is None:
            self._inflater = Inflater()
        return self._inflater.inflate(payload)

    def pass_over(self, stream_id: int, flags: int, payload: Payload) -> None:
        """Count bytes of a stream that has ended; they are neither inflated nor kept."""
        size = self._size_of(flags, payload)
        self.streams.take_late_bytes(stream_id, size)
        self.outbox.receive_credit.take(size, 0)
        self.outbox.refund_connection(size)

    def _size_of(self, flags: int, payload: Payload) -> int:
        """Return how many body bytes a payload stands for, before anything is inflated."""
        if not flags & _ZSTD:
            return len(payload)
        if not self._takes_zstd:
            raise CompressionError("zstd payload: our hello does not name this codec")
        return declared_size(payload)


_Entry = tuple[Callable[[Inbox, Frame], None], int, bool, bool, bool]
# By type: handler, flags it may not have, must be on the connection, has no payload, has no meta.
_HANDLERS: dict[int, _Entry] = {
    int(type): (
        handler,
        0xFF & ~int(RULES[type].flags),
        RULES[type].scope is Scope.CONNECTION,
        not RULES[type].has_payload,
        RULES[type].meta is None,
    )
    for type, handler in (*connection_frames.HANDLERS.items(), *stream_frames.HANDLERS.items())
}
