"""What the frames of the connection do: SETTINGS, PING, GOAWAY, credit, interrupts, CLOSE.

Source: spec/PROTOCOL.md, "Frames".
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from alpyne_proto import limits
from alpyne_proto.errors import FrameError, RemoteProtocolError
from alpyne_proto.events import (
    GoAwayReceived,
    InterruptAcked,
    InterruptReceived,
    StateChanged,
    StreamReset,
)
from alpyne_proto.frame import Flags, Frame, FrameType
from alpyne_proto.messages import control
from alpyne_proto.registry import Shape
from alpyne_proto.streams import RECEIVED
from alpyne_proto.table import STEP_TO

if TYPE_CHECKING:
    from alpyne_proto.inbox import Inbox

_ACK = int(Flags.ACK)


def take_pad(inbox: "Inbox", frame: Frame) -> None:
    """Whatever it holds, it means nothing."""


def take_settings(inbox: "Inbox", frame: Frame) -> None:
    """The acceptor says what the connection may do from now on."""
    message = inbox.parse_control(frame, control.Settings)
    step = STEP_TO.get(message.state)
    if step is None or not inbox.phases.may(step):
        raise RemoteProtocolError(
            f"SETTINGS: {message.state.name} is not legal in state {inbox.phases.state.name}"
        )
    inbox.phases.move(step)
    inbox.look_up()
    inbox.events.append(StateChanged(message.state, message.role))


def take_ping(inbox: "Inbox", frame: Frame) -> None:
    """A ping is answered with its token; our own tokens rise, and so must their answers."""
    message = inbox.parse_control(frame, control.Ping)
    if not frame.flags & _ACK:
        inbox.outbox.answer(FrameType.PING, message, flags=_ACK)
    elif not inbox.pings_answered < message.token <= inbox.pings_sent:
        raise FrameError(f"PING: an answer to {message.token}, which does not wait for one")
    else:
        inbox.pings_answered = message.token


def take_goaway(inbox: "Inbox", frame: Frame) -> None:
    """The peer has not looked at our streams above ``last_stream``: they end here."""
    message = inbox.parse_control(frame, control.GoAway)
    last = message.last_stream
    inbox.streams.peer_refuses_above = min(inbox.streams.peer_refuses_above, last)
    inbox.events.append(GoAwayReceived(last, message.code, message.text))
    inbox.outbox.bodies.forget_unopened(last)
    for stream in list(inbox.streams.live.values()):
        if stream.is_ours and stream.id > last:
            waited_for = not (stream.discards or stream.receiving in RECEIVED)
            stream.kill()
            inbox.outbox.bodies.drop(stream)
            inbox.outbox.discard(stream)
            if waited_for:
                inbox.events.append(StreamReset(stream.id, message.code, message.text))


def take_close(inbox: "Inbox", frame: Frame) -> None:
    """The peer ends the connection; nothing behind this frame is looked at."""
    inbox.closed = inbox.parse_control(frame, control.Close)


def take_max_data(inbox: "Inbox", frame: Frame) -> None:
    """More credit for the connection; a limit that is not higher means nothing."""
    message = inbox.parse_control(frame, control.MaxData)
    if inbox.outbox.bodies.credit.raise_to(message.maximum):
        inbox.outbox.bodies.feed_starved()


def take_max_streams(inbox: "Inbox", frame: Frame) -> None:
    """More streams may be opened."""
    message = inbox.parse_control(frame, control.MaxStreams)
    if message.maximum > inbox.streams.peer_max:
        inbox.streams.peer_max = message.maximum
        inbox.outbox.bodies.wake_unopened()


def take_interrupt(inbox: "Inbox", frame: Frame) -> None:
    """An urgent message: acknowledged each time, told once, ahead of its record's other events."""
    if len(frame.meta) > limits.INTERRUPT_MAX - limits.FRAME_HEADER:
        raise FrameError(
            f"INTERRUPT: {len(frame.meta)} bytes of meta, the frame has at most "
            f"{limits.INTERRUPT_MAX}"
        )
    is_new = inbox.interrupts.is_new(frame.stream_id, inbox.now)
    message = inbox.parse(frame, Shape.INTERRUPT)
    inbox.outbox.answer(FrameType.INTERRUPT_ACK, stream_id=frame.stream_id)
    if is_new:
        inbox.put_urgent(InterruptReceived(frame.stream_id, message))


def take_interrupt_ack(inbox: "Inbox", frame: Frame) -> None:
    """The peer has one of ours."""
    inbox.outbox.interrupts.acknowledge(frame.stream_id, inbox.now)
    inbox.events.append(InterruptAcked(frame.stream_id))


HANDLERS: Mapping[FrameType, Callable[["Inbox", Frame], None]] = {
    FrameType.PAD: take_pad,
    FrameType.SETTINGS: take_settings,
    FrameType.PING: take_ping,
    FrameType.GOAWAY: take_goaway,
    FrameType.CLOSE: take_close,
    FrameType.MAX_DATA: take_max_data,
    FrameType.MAX_STREAMS: take_max_streams,
    FrameType.INTERRUPT: take_interrupt,
    FrameType.INTERRUPT_ACK: take_interrupt_ack,
}
