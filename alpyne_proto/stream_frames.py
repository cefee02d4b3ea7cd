"""What the frames of a stream do: REQUEST, RESPONSE, DATA, RESET, STOP, MAX_STREAM_DATA, REQ_ACK.

Source: spec/PROTOCOL.md, "Frames" and "Streams".
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import TYPE_CHECKING

from alpyne_proto import limits
from alpyne_proto.errors import ErrorCode, FrameError, RemoteProtocolError
from alpyne_proto.events import (
    DataReceived,
    RequestAcked,
    RequestReceived,
    ResponseReceived,
    StopReceived,
    StreamReset,
)
from alpyne_proto.frame import Flags, Frame, FrameType
from alpyne_proto.messages import control
from alpyne_proto.registry import Message, Shape, Spec
from alpyne_proto.scheduler import DEFAULT_URGENCY
from alpyne_proto.streams import Incoming, Outgoing, Stream

if TYPE_CHECKING:
    from alpyne_proto.inbox import Inbox

_OFFSET = Struct(">Q")
_END = int(Flags.END)
_ACK = int(Flags.ACK)


def take_request(inbox: "Inbox", frame: Frame) -> None:
    """The peer opens a stream."""
    stream_id = frame.stream_id
    inbox.streams.check_new(stream_id)
    message = inbox.parse(frame, Shape.REQUEST)
    spec = message.SPEC
    ends = bool(frame.flags & _END)
    _check_body(spec, frame, ends)
    if inbox.streams.refuses_new:
        _refuse(inbox, frame, ends)
        return
    stream = inbox.streams.accept(stream_id, spec, DEFAULT_URGENCY)
    payload = inbox.take_body(stream, frame.flags, frame.payload)
    if ends:
        stream.receive(Incoming.END)
    if frame.flags & _ACK:
        inbox.outbox.answer(FrameType.REQ_ACK, stream_id=stream_id)
    inbox.events.append(RequestReceived(stream_id, message, payload, ends))


def _refuse(inbox: "Inbox", frame: Frame, ends: bool) -> None:
    """Refuse a request that came after our GOAWAY."""
    code, text = ErrorCode.SHUTTING_DOWN, "no new requests after GOAWAY"
    inbox.streams.pass_new()
    inbox.pass_over(frame.stream_id, frame.flags, frame.payload)
    inbox.outbox.answer(FrameType.RESET, control.Reset(code, text), frame.stream_id)
    if not ends:
        inbox.outbox.answer(FrameType.STOP, control.Stop(code, text), frame.stream_id)


def take_response(inbox: "Inbox", frame: Frame) -> None:
    """The peer answers a request of ours."""
    stream_id = frame.stream_id
    stream = inbox.streams.live.get(stream_id)
    if stream is None or not stream.is_ours or stream.unopened:
        raise FrameError(f"RESPONSE: stream {stream_id} has no request that waits for one")
    stream.receive(Incoming.RESPONSE)
    message = inbox.parse(frame, Shape.RESPONSE)
    check_answer(stream.request, message, RemoteProtocolError)
    ends = bool(frame.flags & _END)
    _check_body(message.SPEC, frame, ends)
    payload = inbox.take_body(stream, frame.flags, frame.payload)
    if ends:
        stream.receive(Incoming.END)
    if stream.discards:
        inbox.outbox.discard(stream)
        return
    inbox.events.append(ResponseReceived(stream_id, message, payload, ends))
    if ends:
        inbox.streams.forget_if_done(stream)


def take_data(inbox: "Inbox", frame: Frame) -> None:
    """More of a body; its offset says where, and may only be where the last piece ended."""
    payload = frame.payload
    if len(payload) < limits.DATA_OFFSET:
        raise FrameError(f"DATA: {len(payload)} bytes, no room for its offset")
    offset: int = _OFFSET.unpack_from(payload)[0]
    payload = payload[limits.DATA_OFFSET :]
    ends = bool(frame.flags & _END)
    if not payload and not ends:
        raise FrameError(f"DATA: stream {frame.stream_id}, no bytes and no end")
    stream = _find(inbox, frame)
    if stream is None:
        inbox.pass_over(frame.stream_id, frame.flags, payload)
        return
    stream.receive(Incoming.DATA)
    if offset != stream.incoming.received:
        raise FrameError(
            f"DATA: stream {stream.id}, expected offset {stream.incoming.received}, got {offset}"
        )
    trailer = None
    if frame.meta:
        if not ends:
            raise FrameError(f"DATA: stream {stream.id}, a trailer before the end")
        trailer = inbox.parse(frame, Shape.TRAILER)
    data = inbox.take_body(stream, frame.flags, payload)
    if ends:
        stream.receive(Incoming.END)
    if stream.discards:
        inbox.outbox.discard(stream)
        return
    inbox.events.append(DataReceived(stream.id, data, ends, trailer))
    if ends:
        inbox.streams.forget_if_done(stream)


def take_reset(inbox: "Inbox", frame: Frame) -> None:
    """The peer ends its side unfinished."""
    message = inbox.parse_control(frame, control.Reset)
    if frame.stream_id == inbox.streams.next_peer:
        # The peer gave a request up before it was sent, and uses its id up.
        inbox.streams.check_new(frame.stream_id)
        inbox.streams.pass_new()
        return
    stream = _find(inbox, frame)
    if stream is None:
        return
    stream.receive(Incoming.RESET)
    if stream.discards:
        inbox.outbox.discard(stream)
        return
    inbox.events.append(StreamReset(stream.id, message.code, message.text))
    inbox.streams.forget_if_done(stream)


def take_stop(inbox: "Inbox", frame: Frame) -> None:
    """The peer wants no more of our side; it may cross our side's end."""
    message = inbox.parse_control(frame, control.Stop)
    stream = _find(inbox, frame)
    if stream is None or not stream.may_send(Outgoing.STOP):
        return
    stream.send(Outgoing.STOP)
    inbox.outbox.abandon(stream, control.Reset(message.code, "stopped by the receiver"))
    inbox.events.append(StopReceived(stream.id, message.code, message.text))
    inbox.streams.forget_if_done(stream)


def take_max_stream_data(inbox: "Inbox", frame: Frame) -> None:
    """More credit for a stream; a limit that is not higher means nothing."""
    message = inbox.parse_control(frame, control.MaxStreamData)
    stream = _find(inbox, frame)
    if stream is not None and stream.outgoing.raise_to(message.maximum) and stream.queued:
        inbox.outbox.bodies.add(stream)


def take_req_ack(inbox: "Inbox", frame: Frame) -> None:
    """The peer's handler has a request of ours that asked for this."""
    stream = inbox.streams.live.get(frame.stream_id)
    if stream is None or not stream.awaits_ack or stream.unopened:
        raise FrameError(f"REQ_ACK: stream {frame.stream_id} does not wait for one")
    stream.awaits_ack = False
    if not stream.discards:
        inbox.events.append(RequestAcked(frame.stream_id))


def check_answer(request: Spec, response: Message, error: type[Exception]) -> None:
    """Raise ``error`` where ``response`` does not answer a request of ``request``."""
    spec = response.SPEC
    if spec.code not in request.answers and type(response) is not control.Error:
        raise error(f"{spec.name}: it does not answer {request.name}")


def _check_body(spec: Spec, frame: Frame, ends: bool) -> None:
    """Refuse a body behind a message that has none."""
    if not spec.body and (frame.payload or not ends):
        raise FrameError(f"{spec.name}: it has no body, expected no payload and the flag END")


def _find(inbox: "Inbox", frame: Frame) -> Stream | None:
    """Return the stream of a frame; None where it has ended and the frame is only late."""
    stream = inbox.streams.live.get(frame.stream_id)
    if stream is None:
        inbox.streams.check_ended(frame.stream_id, frame.type)
        if frame.type != FrameType.DATA:  # those are counted by their bytes
            inbox.streams.take_late_frame(frame.stream_id, frame.type)
    elif stream.unopened:
        raise FrameError(f"frame {frame.type:#04x}: stream {stream.id} was never opened")
    return stream


HANDLERS: Mapping[FrameType, Callable[["Inbox", Frame], None]] = {
    FrameType.REQUEST: take_request,
    FrameType.RESPONSE: take_response,
    FrameType.DATA: take_data,
    FrameType.RESET: take_reset,
    FrameType.STOP: take_stop,
    FrameType.MAX_STREAM_DATA: take_max_stream_data,
    FrameType.REQ_ACK: take_req_ack,
}
