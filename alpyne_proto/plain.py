"""Plain values: what may come back from a node that is not trusted, without unpickling.

    None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset;
    arrays by dtype and shape (numpy arrays and scalars, array.array)

A plain value is one msgpack object. What msgpack lacks travels as an extension, whose content is
again msgpack (or raw bytes):

    0x01 tuple      array of its items        0x04 integer     two's complement, big-endian
    0x02 set        array of its items        0x05 array       [kind, dtype, shape, bytes]
    0x03 frozenset  array of its items

Exact types only: a subclass of one of these is refused, because its type would be lost on the way.

Source: spec/PROTOCOL.md, "Plain values".
"""

import array
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import msgpack

from alpyne_proto.errors import AlpyneError, CodecError, ErrorCode

PLAIN_MAX = 1 << 32  # bytes of one encoded value; a result's own bound is lower
EXTENSIONS_DEEP = 32  # tuples and sets inside each other: each level copies what it holds once
DEPTH_MAX = 200  # containers inside each other; well within Python's own recursion limit
DIMENSIONS_MAX = 32  # as numpy 1 has it
INTEGER_BYTES_MAX = 1 << 20  # of one integer; longer ones would take seconds to print

_TUPLE, _SET, _FROZENSET, _INTEGER, _ARRAY = 1, 2, 3, 4, 5
_NUMPY, _NUMPY_SCALAR, _STDLIB = 1, 2, 3  # kinds of array
_DTYPE = re.compile(r"[<>|][biufcSU][1-9]\d{0,8}")
_TYPECODE = re.compile(r"[bBhHiIlLqQfd]")
_AS_FLOAT = 1  # how msgpack reads timestamps, which no encoder of ours makes: not as its own type
_PATH_SHOWN = 120  # characters of a path in an error
_SCALARS = (type(None), bool, int, float, str, bytes)


class UnsafeValue(AlpyneError):
    """A value that is not plain. ``type_name`` is its type, ``path`` where it stands."""

    code = ErrorCode.BAD_REQUEST

    def __init__(self, type_name: str, path: str, why: str = "") -> None:
        what = f"{_shortened(path)} is {type_name}{': ' + why if why else ''}"
        super().__init__(
            f"{what}; a node that is not trusted may return only None, bool, int, float, str, "
            "bytes, list, tuple, dict, set and arrays: return such a value, or trust the node "
            "with `alpyne pair`"
        )
        self.type_name = type_name
        self.path = path


def _shortened(path: str) -> str:
    half = _PATH_SHOWN // 2
    return path if len(path) <= _PATH_SHOWN else f"{path[:half]}...{path[-half:]}"


@dataclass(frozen=True, slots=True)
class PlainArray:
    """A numpy array as it is decoded where numpy is not installed.

    ``dtype``: as in numpy's array interface, for instance ``<f8``. ``data``: in C order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class _NotPlain(Exception):
    """A value that has no plain form was met."""


# ---- encoding ------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """Return the plain encoding of ``value``; UnsafeValue where it, or a part of it, is not plain.

    Nothing of ``value`` is called but what the types above define.
    """
    try:
        return _pack(value, EXTENSIONS_DEEP)
    except (_NotPlain, ValueError, OverflowError, TypeError, RecursionError) as error:
        type_name, path, why = _offender(value)
        raise UnsafeValue(type_name, path, why or str(error)) from None


def _pack(value: Any, deep: int) -> bytes:
    packed: bytes = msgpack.packb(
        value, strict_types=True, use_bin_type=True, default=_extension(deep)
    )
    return packed


def _extension(deep: int) -> Callable[[Any], msgpack.ExtType]:
    def extension(value: Any) -> msgpack.ExtType:
        kind = type(value)
        if kind is int:
            return msgpack.ExtType(_INTEGER, _integer_bytes(value))
        if kind in (tuple, set, frozenset):
            if deep == 0:
                raise _NotPlain(f"tuples or sets nested deeper than {EXTENSIONS_DEEP}")
            code = _TUPLE if kind is tuple else _SET if kind is set else _FROZENSET
            return msgpack.ExtType(code, _pack(list(value), deep - 1))
        parts = _array_parts(value)
        if parts is None:
            raise _NotPlain("")
        return msgpack.ExtType(_ARRAY, msgpack.packb(parts, use_bin_type=True))

    return extension


def _integer_bytes(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    if size > INTEGER_BYTES_MAX:
        raise _NotPlain(f"an integer of {size} bytes, at most {INTEGER_BYTES_MAX}")
    return value.to_bytes(size, "big", signed=True)


def _array_parts(value: Any) -> tuple[int, str, tuple[int, ...], bytes] | None:
    """Return (kind, dtype, shape, bytes) of an array, or None for anything else."""
    if type(value) is array.array and _TYPECODE.fullmatch(value.typecode):
        dtype = f"{'<' if sys.byteorder == 'little' else '>'}{value.typecode}{value.itemsize}"
        return _STDLIB, dtype, (len(value),), value.tobytes()
    if type(value) is PlainArray:
        return _NUMPY, value.dtype, value.shape, value.data
    numpy = sys.modules.get("numpy")  # no numpy loaded: no value is numpy's
    if numpy is None:
        return None
    if type(value) is numpy.ndarray or isinstance(value, numpy.generic):
        dtype = value.dtype.str
        if _DTYPE.fullmatch(dtype):
            kind = _NUMPY if type(value) is numpy.ndarray else _NUMPY_SCALAR
            return kind, dtype, tuple(value.shape), value.tobytes()
    return None


def _offender(value: Any) -> tuple[str, str, str]:
    """Find the first part of ``value`` that is not plain: its type, its path, and why."""
    for part, path, depth in _parts(value):
        kind = type(part)
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        if depth > DEPTH_MAX:
            return name, path, f"nested deeper than {DEPTH_MAX}, or holding itself"
        try:
            if kind in (list, tuple, dict, set, frozenset):
                continue
            _pack(part, EXTENSIONS_DEEP)
        except (_NotPlain, ValueError, OverflowError, TypeError) as error:
            return name, path, str(error)
    return "value", "result", ""


def _parts(value: Any) -> Iterator[tuple[Any, str, int]]:
    """Yield each part of ``value`` with its path and depth, depth first and without recursion."""
    waiting: list[tuple[Any, str, int]] = [(value, "result", 0)]
    while waiting:
        part, path, depth = waiting.pop()
        yield part, path, depth
        inner: list[tuple[Any, str, int]] = []
        if type(part) in (list, tuple):
            inner = [(item, f"{path}[{at}]", depth + 1) for at, item in enumerate(part)]
        elif type(part) in (set, frozenset):
            inner = [(item, f"{path}{{...}}", depth + 1) for item in part]
        elif type(part) is dict:
            for key, item in part.items():
                inner.append((key, f"key {_shown(key)} of {path}", depth + 1))
                inner.append((item, f"{path}[{_shown(key)}]", depth + 1))
        waiting.extend(reversed(inner))


def _shown(key: Any) -> str:
    is_short = type(key) in _SCALARS and (type(key) is not int or key.bit_length() < 64)
    text = repr(key) if is_short else type(key).__name__  # a huge integer has no repr
    return text if len(text) <= 40 else text[:40] + "..."


# ---- decoding ------------------------------------------------------------------------------


def decode(data: bytes | memoryview, *, most: int = PLAIN_MAX) -> Any:
    """Return the value that ``data`` (at most ``most`` bytes) encodes; CodecError for any other.

    What is built is bounded by the bytes that came: no length is believed before its bytes are
    there. Arrays become numpy arrays where numpy is installed, else PlainArray.
    """
    if len(data) > most:
        raise CodecError(f"plain value: {len(data)} bytes, at most {most}")
    try:
        return _unpack(data, EXTENSIONS_DEEP)
    except CodecError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise CodecError(f"plain value: not a plain encoding: {type(error).__name__}") from None


def _unpack(data: bytes | memoryview, deep: int) -> Any:
    return msgpack.unpackb(
        data,
        raw=False,
        strict_map_key=False,
        timestamp=_AS_FLOAT,
        ext_hook=_from_extension(deep),
    )


def _from_extension(deep: int) -> Callable[[int, bytes], Any]:
    def from_extension(code: int, data: bytes) -> Any:
        if code == _INTEGER:
            if len(data) > INTEGER_BYTES_MAX:
                raise CodecError(f"plain value: an integer of {len(data)} bytes")
            return int.from_bytes(data, "big", signed=True)
        if code == _ARRAY:
            return _build_array(msgpack.unpackb(data, raw=False, max_ext_len=0))
        build = {_TUPLE: tuple, _SET: set, _FROZENSET: frozenset}.get(code)
        if build is None or deep == 0:
            raise CodecError(f"plain value: extension {code} is not known, or nested too deep")
        items = _unpack(data, deep - 1)
        if type(items) is not list:
            raise CodecError(f"plain value: extension {code} without an array")
        return build(items)

    return from_extension


def _build_array(parts: Any) -> Any:
    kinds = (int, str, list, bytes)
    if type(parts) is not list or [type(part) for part in parts] != list(kinds):
        raise CodecError("plain value: an array without kind, dtype, shape and bytes")
    kind, dtype, dimensions, data = parts
    shape = tuple(dimensions)
    if len(shape) > DIMENSIONS_MAX or any(type(n) is not int or n < 0 for n in shape):
        raise CodecError("plain value: the shape of an array")
    if kind == _STDLIB:
        return _stdlib_array(dtype, shape, data)
    if kind not in (_NUMPY, _NUMPY_SCALAR) or not _DTYPE.fullmatch(dtype):
        raise CodecError("plain value: the kind or dtype of an array")
    item_size = int(dtype[2:]) * (4 if dtype[1] == "U" else 1)
    if (
        not item_size
        or math.prod(shape) * item_size != len(data)
        or (kind == _NUMPY_SCALAR and shape)
    ):
        raise CodecError(f"plain value: an array of {dtype} and {shape} in {len(data)} bytes")
    try:
        numpy = import_module("numpy")  # an optional part of the reader's machine
    except ImportError:
        return PlainArray(dtype, shape, data)
    # Not from the bytes themselves: such an array could not be written to.
    made = numpy.ndarray(shape, dtype, bytearray(data))
    return made[()] if kind == _NUMPY_SCALAR else made


def _stdlib_array(dtype: str, shape: tuple[int, ...], data: bytes) -> "array.array[Any]":
    order, typecode, item_size = dtype[:1], dtype[1:2], dtype[2:]
    if order not in ("<", ">") or not _TYPECODE.fullmatch(typecode) or len(shape) != 1:
        raise CodecError("plain value: the typecode of an array")
    made: array.array[Any] = array.array(typecode)
    if item_size != str(made.itemsize) or shape[0] * made.itemsize != len(data):
        raise CodecError(f"plain value: an array of {dtype!r:.20} in {len(data)} bytes")
    made.frombytes(data)
    if (order == "<") != (sys.byteorder == "little"):
        made.byteswap()
    return made
