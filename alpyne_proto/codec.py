"""Meta maps and rows: messages to bytes and back (spec/PROTOCOL.md, "Meta" and "Rows").

Meta is one msgpack map with ascending unsigned integer keys. msgpack alone accepts duplicate keys,
deep nesting and extension types; all of these are refused here.
"""

import struct as _struct
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import msgpack

from alpyne_proto import limits
from alpyne_proto.errors import CodecError, LocalProtocolError
from alpyne_proto.registry import MESSAGES, Message, Shape, Spec, build, to_map

_SHORT = 16  # bytes of meta; one with an id has more
_ALIKE = 256  # most bytes of meta with an id, for it to be remembered without
_ID, _ID_END = 6, 22  # where an id of 16 bytes stands that comes first, behind a code below 128
_ID_FOLLOWS = b"\x02\xc4\x10"  # key 2, 16 bytes
_ROW = _struct.Struct(">HI")
_ROWS = (Shape.ROW,)
_MessageT = TypeVar("_MessageT", bound=Message)


def _refuse_ext(code: int, data: bytes) -> NoReturn:
    raise CodecError(f"meta: extension type {code} is not allowed")


def _ascending(pairs: list[tuple[Any, Any]]) -> dict[int, Any]:
    """Build one map, refusing too many, unordered, repeated and non-integer keys."""
    if len(pairs) > limits.META_KEYS:
        raise CodecError(f"meta: a map of {len(pairs)} keys, at most {limits.META_KEYS}")
    last = -1
    for key, _ in pairs:
        if type(key) is not int or key <= last:
            raise CodecError(f"meta: key {key!r:.40} after {last}; keys are rising integers")
        last = key
    return dict(pairs)


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise CodecError(f"meta: nested deeper than {limits.META_DEPTH}")
    if type(value) is dict:
        for item in value.values():
            if type(item) in (dict, list):
                _check_depth(item, left - 1)
    else:
        for item in value:
            if type(item) in (dict, list):
                _check_depth(item, left - 1)


def unpack_map(meta: bytes | memoryview) -> dict[int, Any]:
    """Return the map in ``meta`` (at most META_MAX bytes); CodecError for anything else."""
    if len(meta) > limits.META_MAX:
        raise CodecError(f"meta: {len(meta)} bytes, at most {limits.META_MAX}")
    try:
        plain = msgpack.unpackb(
            meta,
            strict_map_key=False,
            object_pairs_hook=_ascending,
            ext_hook=_refuse_ext,
            timestamp=0,
            max_map_len=limits.META_KEYS,
            max_array_len=1024,
            max_ext_len=0,  # also refuses timestamps, which the hook does not see
        )
    except CodecError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise CodecError(f"meta: not one msgpack map: {type(error).__name__}") from None
    if type(plain) is not dict:
        raise CodecError(f"meta: expected a map, got {type(plain).__name__}")
    _check_depth(plain, limits.META_DEPTH)
    return plain


def encode(message: Message) -> bytes:
    """Return the meta bytes of ``message``; LocalProtocolError where it breaks its own bounds."""
    spec = message.SPEC
    try:
        plain = to_map(spec, message)
    except CodecError as error:
        raise LocalProtocolError(str(error)) from None
    if spec.shape is not Shape.CONTROL and spec.shape is not Shape.STRUCT:
        plain = {0: spec.code, **plain}
    try:
        meta: bytes = msgpack.packb(plain)
    except UnicodeEncodeError:  # a file name, for instance, whose bytes are no UTF-8
        raise LocalProtocolError(f"{spec.name}: a text in it cannot be written as UTF-8") from None
    if len(meta) > limits.META_MAX:
        raise LocalProtocolError(
            f"{spec.name}: {len(meta)} bytes of meta, at most {limits.META_MAX}; "
            "send long values as rows or as the body"
        )
    return meta


def decode(meta: bytes | memoryview, shapes: tuple[Shape, ...], *, lenient: bool) -> Message:
    """Return the message in ``meta``, which must be of one of ``shapes``.

    ``lenient``: skip unknown odd keys (state OPEN only). Raises CodecError.
    """
    if len(meta) <= _SHORT:
        return _decode_short(bytes(meta), shapes, lenient)
    if _ID_END <= len(meta) <= _ALIKE and meta[_ID - 3 : _ID] == _ID_FOLLOWS:
        meta = bytes(meta)
        cls, others = _decode_alike(meta[:_ID] + meta[_ID_END:], shapes, lenient)
        return cls(meta[_ID:_ID_END], *others)
    return _decode(meta, shapes, lenient)


def _decode(meta: bytes | memoryview, shapes: tuple[Shape, ...], lenient: bool) -> Message:
    plain = unpack_map(meta)
    code = plain.pop(0, None)
    spec = MESSAGES.get(code) if type(code) is int else None
    if spec is None or spec.shape not in shapes:
        raise CodecError(f"meta: message code {code!r:.20} is not known here")
    result: Message = build(spec, plain, lenient=lenient)
    return result


# Messages cannot be changed, and those without an id are the same few bytes again and again.
_decode_short = lru_cache(maxsize=256)(_decode)


@lru_cache(maxsize=256)
def _decode_alike(
    around: bytes, shapes: tuple[Shape, ...], lenient: bool
) -> tuple[Callable[..., Message], tuple[Any, ...]]:
    """Decode what stands around an id that comes first: the class, and its other fields.

    Submissions, answers and settlements of one kind of job differ by that id alone. Whatever 16
    bytes it has, they are as good as others.
    """
    message = _decode(around[:_ID] + bytes(_ID_END - _ID) + around[_ID:], shapes, lenient)
    others = tuple(getattr(message, field.name) for field in message.SPEC.fields[1:])
    return type(message), others


def decode_as(meta: bytes | memoryview, cls: type[_MessageT], *, lenient: bool) -> _MessageT:
    """Return the message of class ``cls`` in ``meta`` (hellos, control frames, trailers)."""
    spec: Spec = cls.SPEC
    plain = unpack_map(meta)
    if spec.shape is not Shape.CONTROL and plain.pop(0, None) != spec.code:
        raise CodecError(f"meta: expected {spec.name} (code {spec.code:#x})")
    result: _MessageT = build(spec, plain, lenient=lenient)
    return result


def encode_row(row: Message, payload: bytes | memoryview = b"") -> bytes:
    """Return one row: ``>HI`` lengths, meta, payload."""
    spec = row.SPEC
    if len(payload) > spec.payload_max:
        raise LocalProtocolError(
            f"{spec.name}: payload of {len(payload)} bytes, at most {spec.payload_max}"
        )
    return join_row(encode(row), payload)


def join_row(meta: bytes, payload: bytes | memoryview = b"") -> bytes:
    """Return the row of meta bytes that ``encode`` has made before."""
    return b"".join((_ROW.pack(len(meta), len(payload)), meta, payload))


@lru_cache(maxsize=256)
def _bounds(allowed: tuple[int, ...]) -> tuple[frozenset[int], int]:
    """Return the codes as a set, and the most bytes of payload that one of these rows may have."""
    return frozenset(allowed), max((MESSAGES[code].payload_max for code in allowed), default=0)


class RowReader:
    """Rows out of a body that arrives in any pieces.

    ``allowed`` are the row codes that the body may hold. Nothing is allocated from an announced
    length: bytes are kept only as they arrive, and a length over its bound raises at once.
    """

    def __init__(self, allowed: Iterable[int], *, lenient: bool = True) -> None:
        self._allowed, self._most = _bounds(tuple(allowed))
        self._lenient = lenient
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a row that has not arrived whole; not 0 at the end means a truncated row."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[Message, bytes]]:
        """Take ``data`` and yield each whole (row, payload); CodecError for a bad one."""
        held: bytes | memoryview | bytearray = data
        if self._buffer:  # mostly not: rows arrive whole
            self._buffer += data
            held = self._buffer
        at, size = 0, len(held)
        try:
            while size - at >= limits.ROW_HEADER:
                meta_size, payload_size = _ROW.unpack_from(held, at)
                if meta_size > limits.META_MAX or payload_size > self._most:
                    raise CodecError(
                        f"row: meta {meta_size} and payload {payload_size} bytes, "
                        f"at most {limits.META_MAX} and {self._most}"
                    )
                begin = at + limits.ROW_HEADER
                middle = begin + meta_size
                end = middle + payload_size
                if end > size:
                    break
                row = decode(bytes(held[begin:middle]), _ROWS, lenient=self._lenient)
                spec = row.SPEC
                if spec.code not in self._allowed or payload_size > spec.payload_max:
                    raise CodecError(f"row: {spec.name} of {payload_size} bytes is not legal here")
                payload = bytes(held[middle:end])
                at = end
                yield row, payload
        finally:
            if held is self._buffer:
                del self._buffer[:at]
            elif at < size:
                self._buffer += held[at:]

    def finish(self) -> None:
        """Raise CodecError where the body ended inside a row."""
        if self._buffer:
            raise CodecError(f"row: the body ended {len(self._buffer)} bytes into a row")


def read_rows(body: bytes, allowed: Iterable[int]) -> list[tuple[Message, bytes]]:
    """Return all rows of a whole body; CodecError for a bad or truncated one."""
    reader = RowReader(allowed)
    rows = list(reader.feed(body))
    reader.finish()
    return rows
