"""spec/vectors/frames.json: every message as meta and in its frame, and frames without messages.

Each message stands twice where it has fields with defaults: with only what it must have, and with
all of its fields.
"""

import hashlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from struct import Struct
from typing import Any

import alpyne_proto.messages  # noqa: F401 - fills the registry
from alpyne_proto import codec, fields
from alpyne_proto.errors import ErrorCode
from alpyne_proto.frame import Flags as FrameFlags
from alpyne_proto.frame import FrameType, pack
from alpyne_proto.messages.control import BodyDigest, Error
from alpyne_proto.messages.data import GetObject
from alpyne_proto.registry import MESSAGES, STRUCTS, FieldSpec, Message, Shape, Spec

COMMENT = (
    "Messages: encoding the fields gives meta, decoding meta gives the fields back; fields that "
    "are not named have their defaults. Bytes are hexadecimal, enumerations and bits numbers. A "
    "frame is header, meta, payload; a row its lengths, meta, payload. Inflated: payloads of "
    "frames with the flag ZSTD; only the way from payload to plain is fixed."
)

_STREAM = 5
_ROW_PAYLOAD = b"payload"
_OFFSET = Struct(">Q")
_TYPES = {
    Shape.REQUEST: FrameType.REQUEST,
    Shape.RESPONSE: FrameType.RESPONSE,
    Shape.INTERRUPT: FrameType.INTERRUPT,
    Shape.TRAILER: FrameType.DATA,
}
_OF_STREAM = {FrameType.RESET, FrameType.STOP, FrameType.MAX_STREAM_DATA}


def frame_vectors() -> dict[str, Any]:
    """Return the content of frames.json."""
    return {
        "comment": COMMENT,
        "messages": [vector for _, spec in sorted(MESSAGES.items()) for vector in _message(spec)],
        "frames": list(_frames()),
        "inflated": list(_inflated()),
    }


# ---- messages ----


def _message(spec: Spec) -> Iterator[dict[str, Any]]:
    yield _vector(spec, [field for field in spec.fields if field.required])
    if not all(field.required for field in spec.fields):
        yield _vector(spec, spec.fields)


def _vector(spec: Spec, chosen: Sequence[FieldSpec]) -> dict[str, Any]:
    values = {field.name: _sample(field.kind, field) for field in chosen}
    meta = codec.encode(spec.cls(**values))
    vector: dict[str, Any] = {"message": spec.name, "shape": spec.shape.value}
    if spec.shape is not Shape.CONTROL:
        vector["code"] = spec.code
    vector["fields"] = {field.name: as_json(field.kind, values[field.name]) for field in chosen}
    vector["meta"] = meta.hex()
    if spec.shape is Shape.ROW:
        payload = _ROW_PAYLOAD if spec.payload_max else b""
        vector["row"] = codec.encode_row(spec.cls(**values), payload).hex()
        vector["payload"] = payload.hex()
    elif spec.shape is not Shape.HELLO:
        vector["frame"] = _in_frame(spec, meta).hex()
    return vector


def _in_frame(spec: Spec, meta: bytes) -> bytes:
    if spec.shape is Shape.CONTROL:
        type = next(t for t in FrameType if t.name.replace("_", "") == spec.name.upper())
        return pack(type, FrameFlags.NONE, _STREAM if type in _OF_STREAM else 0, meta)
    type = _TYPES[spec.shape]
    if type is FrameType.INTERRUPT:
        return pack(type, FrameFlags.NONE, 1, meta)
    offset = _OFFSET.pack(0) if type is FrameType.DATA else b""
    return pack(type, FrameFlags.END, _STREAM, meta, len(offset)) + offset


def _sample(kind: fields.Kind, field: FieldSpec) -> Any:
    """Return a legal value that differs from the field's default."""
    match kind:
        case fields.Uint():
            return (3 << (min(kind.bits, 48) - 2)) + field.key  # takes the widest integer format
        case fields.Flag():
            return not field.default if not field.required else True
        case fields.Real():
            return field.key + 0.25
        case fields.Text():
            return f"{field.name} é"[: kind.most]
        case fields.Blob():
            return _bytes(field.name, min(max(kind.least, 40), kind.most))
        case fields.Choice():
            return list(kind.enum)[-1]
        case fields.Bits():
            return kind.mask
        case fields.ListOf():
            return tuple(_sample(kind.item, field) for _ in range(min(2, kind.most)))
        case fields.Struct():
            spec = STRUCTS[kind.name]
            return spec.cls(**{item.name: _sample(item.kind, item) for item in spec.fields})
    raise TypeError(f"no sample is known for a field of kind {kind.label}")


def _bytes(seed: str, size: int) -> bytes:
    digest = hashlib.sha256(seed.encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def as_json(kind: fields.Kind, value: Any) -> Any:
    """Return a field's value as the vectors write it."""
    if isinstance(kind, fields.ListOf):
        return [as_json(kind.item, item) for item in value]
    if isinstance(kind, fields.Struct):
        items = STRUCTS[kind.name].fields
        return {item.name: as_json(item.kind, getattr(value, item.name)) for item in items}
    if isinstance(value, bytes):
        return value.hex()
    return int(value) if isinstance(value, IntEnum) else value


# ---- frames ----


def _frames() -> Iterator[dict[str, Any]]:
    yield _frame("padding", FrameType.PAD, 0, 0, payload=bytes(4))
    request = GetObject(container_id=bytes(16), path="a")
    yield _frame("a request whose body follows", FrameType.REQUEST, 0, 1, request, b"first")
    yield _frame("its acknowledgement", FrameType.REQ_ACK, 0, 1)
    answer = Error(code=ErrorCode.NOT_FOUND)
    yield _frame("an answer without a body", FrameType.RESPONSE, FrameFlags.END, 1, answer)
    body = _OFFSET.pack(5) + b"second"
    yield _frame("bytes 5 to 10 of a body", FrameType.DATA, 0, 1, payload=body)
    row_part = FrameFlags.MORE
    yield _frame("a row that goes on", FrameType.DATA, row_part, 1, payload=_OFFSET.pack(11) + b"r")
    trailer = BodyDigest(sha256=hashlib.sha256(b"firstsecondr").digest())
    end = FrameFlags.END
    yield _frame("the end and its trailer", FrameType.DATA, end, 1, trailer, _OFFSET.pack(12))
    yield _frame("an interrupt's acknowledgement", FrameType.INTERRUPT_ACK, 0, 7)


def _frame(
    name: str,
    type: FrameType,
    flags: int,
    number: int,
    message: Message | None = None,
    payload: bytes = b"",
) -> dict[str, Any]:
    meta = b"" if message is None else codec.encode(message)
    return {
        "name": name,
        "type": int(type),
        "flags": int(flags),
        "stream_id": number,
        "meta": meta.hex(),
        "payload": payload.hex(),
        "frame": (pack(type, flags, number, meta, len(payload)) + payload).hex(),
    }


# ---- compressed payloads ----


def _inflated() -> Iterator[dict[str, Any]]:
    for name, size in (("one segment", 2000), ("a window of 128 KiB", 1 << 17)):
        payload = zstd_payload(b"start", size)
        yield {"name": name, "payload": payload.hex(), "size": size, "starts": "7374617274",
               "then_repeats": "61"}  # fmt: skip


def zstd_payload(
    start: bytes, size: int, *, declared: int | None = None, window: int = 0, tail: bytes = b""
) -> bytes:
    """Return a compressed payload of ``size`` bytes: ``start``, then the letter a.

    Made by hand (RFC 8878, 3.1.1), so that no release of a library changes it. declared: the size
    in front of the frame, where it lies. window: exponent of a window descriptor that replaces the
    single segment. tail: bytes behind the frame.
    """
    if window:
        header = bytes((0x80, (window - 10) << 3)) + size.to_bytes(4, "little")
    else:
        header = bytes((0xA0,)) + size.to_bytes(4, "little")
    raw = (len(start) << 3).to_bytes(3, "little") + start
    blocks, left = raw, size - len(start)
    while left:
        part = min(left, 1 << 17, size)
        left -= part
        blocks += (part << 3 | 2 | (not left)).to_bytes(3, "little") + b"a"
    frame = b"\x28\xb5\x2f\xfd" + header + blocks
    return (size if declared is None else declared).to_bytes(4, "big") + frame + tail
