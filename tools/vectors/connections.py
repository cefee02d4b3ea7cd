"""The connections of spec/vectors/invalid.json: legal bytes that are not legal here and now."""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any

import msgpack
from alpyne_grid.tools.vectors.frames import zstd_payload
from alpyne_grid.tools.vectors.session import CONNECTION_WINDOW, JOB, STREAMS, WINDOW, message_json

from alpyne_proto import codec, limits
from alpyne_proto.errors import ErrorCode
from alpyne_proto.frame import Flags, FrameType, pack
from alpyne_proto.messages import access, compute, control, data
from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.registry import Message, State

_OFFSET = Struct(">Q")
_END = Flags.END
FRAME, PROTOCOL, CODEC = ErrorCode.FRAME_ERROR, ErrorCode.PROTOCOL_ERROR, ErrorCode.CODEC_ERROR
FLOW, ZSTD, BUSY = (
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.COMPRESSION_ERROR,
    ErrorCode.TOO_BUSY,
)
Case = dict[str, Any]

STATUS, BLOB = access.GetStatus(), compute.PutBlob(sha256=bytes(32), size=1 << 20)
CANCEL = compute.CancelJobs(job_ids=(JOB,))
DIGEST = control.BodyDigest(sha256=bytes(32))


def _frame(
    type: int, message: Message | None = None, number: int = 0, flags: int = 0, payload: bytes = b""
) -> bytes:
    meta = b"" if message is None else codec.encode(message)
    return pack(type, flags, number, meta, len(payload)) + payload


def _raw(type: int, meta: dict[int, Any], number: int = 0, flags: int = 0) -> bytes:
    return pack(type, flags, number, msgpack.packb(meta))


def _request(message: Message, number: int = 1, flags: int = _END, payload: bytes = b"") -> bytes:
    return _frame(FrameType.REQUEST, message, number, flags, payload)


def _blob(payload: bytes = b"", number: int = 1) -> bytes:
    return _request(BLOB, number, 0, payload)


def _data(offset: int, body: bytes, number: int = 1, flags: int = 0) -> bytes:
    return _frame(FrameType.DATA, None, number, flags, _OFFSET.pack(offset) + body)


def invalid_connections() -> Iterator[Case]:
    """What ends a connection; ``error`` null: what does not, although it looks strange."""
    for name, error, frames in _to_open_acceptor():
        yield _case(name, "acceptor", State.OPEN, frames, error)
    for name, error, frames in _streams_to_open_acceptor():
        yield _case(name, "acceptor", State.OPEN, frames, error)
    for name, state, error, frames in _to_other_acceptor():
        yield _case(name, "acceptor", state, frames, error)
    for name, error, requests, frames in _to_dialler():
        yield _case(name, "dialler", State.OPEN, frames, error, requests)
    for name, error, first in _to_settling_dialler():
        yield _case(name, "dialler", State.HANDSHAKE, [first], error)


def _case(
    name: str,
    to: str,
    state: State,
    frames: Sequence[bytes],
    error: ErrorCode | None,
    requests: Sequence[Message] = (),
) -> Case:
    case: Case = {"name": name, "to": to, "state": state.name}
    if requests:
        case["requests"] = [message_json(message) for message in requests]
    case["frames"] = [frame.hex() for frame in frames]
    case["error"] = None if error is None else error.name
    return case


_Row = tuple[str, ErrorCode | None, list[bytes]]


def _to_open_acceptor() -> Iterator[_Row]:
    ping = control.Ping(token=1)
    yield "an unknown odd frame type is skipped", None, [_frame(0x41, None, 9, 0xFF, b"grease")]
    yield "an unknown even frame type", FRAME, [_frame(0x40)]
    yield "the reserved RESUME", FRAME, [_frame(FrameType.RESUME)]
    yield "the reserved PRIORITY", FRAME, [_frame(FrameType.PRIORITY, None, 1)]
    settings = control.Settings(state=State.OPEN)
    yield "SETTINGS from the dialler", FRAME, [_frame(FrameType.SETTINGS, settings)]
    yield "PAD is skipped", None, [_frame(FrameType.PAD, None, 0, 0, b"\xff" * 9)]
    yield "PAD with meta", FRAME, [_frame(FrameType.PAD, ping)]
    yield "PAD with a flag", FRAME, [_frame(FrameType.PAD, None, 0, _END)]
    yield "an unknown flag", FRAME, [_frame(FrameType.PING, ping, 0, 0x10)]
    yield "PING with END", FRAME, [_frame(FrameType.PING, ping, 0, _END)]
    yield "PING on a stream", FRAME, [_frame(FrameType.PING, ping, 1)]
    yield "PING with a payload", FRAME, [_frame(FrameType.PING, ping, 0, 0, b"x")]
    yield "PING without meta", CODEC, [_frame(FrameType.PING)]
    yield "PING with an unknown odd key", None, [_raw(FrameType.PING, {2: 1, 3: 1})]
    yield "PING with an unknown even key", CODEC, [_raw(FrameType.PING, {2: 1, 4: 1})]
    yield "an answer to no PING", FRAME, [_frame(FrameType.PING, ping, 0, Flags.ACK)]
    yield "REQ_ACK of no request", FRAME, [_frame(FrameType.REQ_ACK, None, 2)]
    yield "INTERRUPT_ACK of no interrupt", FRAME, [_frame(FrameType.INTERRUPT_ACK, None, 1)]
    interrupts = [_frame(FrameType.INTERRUPT, CANCEL, 1) for _ in range(limits.INTERRUPT_BURST)]
    yield "an interrupt repeated to the limit", None, interrupts
    yield "one interrupt more", BUSY, [*interrupts, interrupts[0]]
    most = limits.INTERRUPT_MAX - limits.FRAME_HEADER
    long = _raw(FrameType.INTERRUPT, {0: 0x28, 2: [JOB], 9: bytes(most)}, 1)
    yield "an interrupt over INTERRUPT_MAX", FRAME, [long]
    yield "an interrupt that is a request", CODEC, [_frame(FrameType.INTERRUPT, STATUS, 1)]
    yield "a request that is an interrupt", CODEC, [_request(CANCEL)]
    lower = control.MaxData(maximum=0)
    yield "a lower MAX_DATA is passed over", None, [_frame(FrameType.MAX_DATA, lower)]


def _streams_to_open_acceptor() -> Iterator[_Row]:
    yield "a request on stream 0", FRAME, [_request(STATUS, 0)]
    yield "a request on an acceptor's stream", FRAME, [_request(STATUS, 2)]
    yield "a request that leaves out a stream", FRAME, [_request(STATUS, 3)]
    yield "a request on a stream that is used", FRAME, [_request(STATUS), _request(STATUS)]
    many = [_request(STATUS, 2 * n + 1) for n in range(STREAMS + 1)]
    yield "as many requests as there is credit for", None, many[:-1]
    yield "one request more", FLOW, many
    push = compute.PushEvents(subscription=1)
    yield "a node's request from a manager", PROTOCOL, [_request(push, 1, 0)]
    ticket = access.ShowTicket(ticket=b"t")
    yield "a request of another state", PROTOCOL, [_request(ticket)]
    yield "a request without body, not ended", FRAME, [_request(STATUS, 1, 0)]
    yield "a request without body, with one", FRAME, [_request(STATUS, 1, _END, b"x")]
    yield "a request that is an answer", CODEC, [_request(control.Done())]
    yield "an answer to no request", FRAME, [_frame(FrameType.RESPONSE, control.Done(), 2, _END)]
    yield "DATA of no stream", FRAME, [_data(0, b"x")]
    yield "DATA without an offset", FRAME, [_blob(), _frame(FrameType.DATA, None, 1, 0, bytes(7))]
    yield "DATA too far on", FRAME, [_blob(b"ab"), _data(3, b"d")]
    yield "DATA again", FRAME, [_blob(b"ab"), _data(1, b"b")]
    yield "DATA without bytes or end", FRAME, [_blob(b"ab"), _data(2, b"")]
    yield "an end without bytes", None, [_blob(b"ab"), _data(2, b"", 1, _END)]
    ended = [_blob(b"ab"), _data(2, b"c", 1, _END)]
    yield "DATA behind the end", FRAME, [*ended, _data(3, b"d")]
    early = _frame(FrameType.DATA, DIGEST, 1, 0, _OFFSET.pack(2) + b"c")
    yield "a trailer before the end", FRAME, [_blob(b"ab"), early]
    done = _frame(FrameType.DATA, control.Done(), 1, _END, _OFFSET.pack(2))
    yield "a trailer that is an answer", CODEC, [_blob(b"ab"), done]
    yield "all of a stream's credit", None, [_blob(bytes(WINDOW))]
    yield "a byte over a stream's credit", FLOW, [_blob(bytes(WINDOW)), _data(WINDOW, b"x")]
    full = [_blob(bytes(WINDOW), 2 * n + 1) for n in range(CONNECTION_WINDOW // WINDOW)]
    yield "a byte over the connection's credit", FLOW, [*full, _blob(b"x", 2 * len(full) + 1)]
    packed = zstd_payload(b"start", 2000)
    yield "zstd that no hello named", ZSTD, [_request(BLOB, 1, Flags.ZSTD, packed)]
    code = control.Reset(code=ErrorCode.CANCELLED)
    yield "RESET of the next stream uses it up", None, [_frame(FrameType.RESET, code, 1),
                                                        _request(STATUS, 3)]  # fmt: skip
    yield "RESET of a stream further on", FRAME, [_frame(FrameType.RESET, code, 3)]
    twice = [_blob(b"ab"), *[_frame(FrameType.RESET, code, 1)] * 2]
    yield "RESET of a stream that was reset", FRAME, twice
    stop = control.Stop(code=ErrorCode.CANCELLED)
    yield "STOP of no stream", FRAME, [_frame(FrameType.STOP, stop, 1)]
    credit = control.MaxStreamData(maximum=1)
    yield "credit for no stream", FRAME, [_frame(FrameType.MAX_STREAM_DATA, credit, 1)]


def _to_other_acceptor() -> Iterator[tuple[str, State, ErrorCode | None, list[bytes]]]:
    unknown, bearer = State.UNKNOWN, State.BEARER
    yield "an unknown odd frame type", unknown, FRAME, [_frame(0x41)]
    yield "an unknown odd key", unknown, CODEC, [_raw(FrameType.PING, {2: 1, 3: 1})]
    yield "an interrupt", unknown, FRAME, [_frame(FrameType.INTERRUPT, CANCEL, 1)]
    yield "a request of a known account", unknown, PROTOCOL, [_request(STATUS)]
    get = data.GetObject(container_id=bytes(16), path="a")
    yield "a bearer's request without a ticket", unknown, PROTOCOL, [_request(get)]
    yield "a bearer's request", bearer, None, [_request(get)]
    yield "a manager's request", bearer, PROTOCOL, [_request(STATUS)]
    yield "a registration", bearer, PROTOCOL, [_request(access.Register())]


def _to_dialler() -> Iterator[tuple[str, ErrorCode | None, list[Message], list[bytes]]]:
    status = access.NodeStatus(kind=NodeKind.COMPUTE)
    answer = _frame(FrameType.RESPONSE, status, 1, _END)
    yield "an answer", None, [STATUS], [answer]
    yield "a second answer", FRAME, [STATUS], [answer, answer]
    other = _frame(FrameType.RESPONSE, control.Done(), 1, _END)
    yield "an answer to another request", PROTOCOL, [STATUS], [other]
    error = control.Error(code=ErrorCode.NOT_FOUND)
    yield (
        "an error answers everything",
        None,
        [STATUS],
        [_frame(FrameType.RESPONSE, error, 1, _END)],
    )
    yield "DATA before the answer", FRAME, [STATUS], [_data(0, b"x")]
    yield "a manager's request from a node", PROTOCOL, [], [_request(STATUS, 2)]
    bearer = control.Settings(state=State.BEARER)
    yield "SETTINGS from OPEN to BEARER", PROTOCOL, [], [_frame(FrameType.SETTINGS, bearer)]
    again = control.Settings(state=State.OPEN, role=control.AccountRole.ADMIN)
    yield "SETTINGS with another role", None, [], [_frame(FrameType.SETTINGS, again)]


def _to_settling_dialler() -> Iterator[tuple[str, ErrorCode | None, bytes]]:
    for state in (State.HANDSHAKE, State.BEARER, State.WORKER):
        settings = control.Settings(state=state)
        yield f"SETTINGS {state.name} as the first", PROTOCOL, _frame(FrameType.SETTINGS, settings)
    settings = control.Settings(state=State.UNKNOWN)
    yield "SETTINGS UNKNOWN as the first", None, _frame(FrameType.SETTINGS, settings)
    ping = control.Ping(token=1)
    yield "PING before SETTINGS", FRAME, _frame(FrameType.PING, ping)
