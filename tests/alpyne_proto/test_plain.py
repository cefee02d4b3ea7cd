"""Plain values: what goes in comes out, what is not plain is named, and no bytes do harm."""

import array
import contextlib
import enum
import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto import plain
from alpyne_proto.errors import CodecError
from alpyne_proto.plain import PlainArray, UnsafeValue, decode, encode

keys = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.tuples(st.integers())
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(keys, inner),
        st.sets(keys),
        st.frozensets(keys),
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type too, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    return bool(one == other)


@given(values)
def test_value_comes_back_with_its_types(value: Any) -> None:
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 7**400])
def test_integer_of_any_size_comes_back(number: int) -> None:
    assert decode(encode({number: [number, -number]})) == {number: [number, -number]}


@pytest.mark.parametrize("typecode", "bBhHiIlLqQfd")
def test_array_comes_back_with_its_typecode(typecode: str) -> None:
    one = array.array(typecode, [1, 2, 100])
    other = decode(encode([one]))[0]
    assert (type(other), other.typecode, other) == (array.array, typecode, one)


def test_array_comes_back_from_the_other_byte_order() -> None:
    big = msgpack.packb([3, ">i4", [2], b"\0\0\0\1\0\0\0\2"])
    assert decode(msgpack.packb(msgpack.ExtType(5, big))) == array.array("i", [1, 2])


def test_numpy_array_is_kept_as_it_is_where_numpy_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    one = PlainArray("<f8", (2, 3), bytes(48))
    assert decode(encode({"a": one})) == {"a": one}


class Colour(enum.IntEnum):
    RED = 1


class Table(dict[str, int]):
    pass


@pytest.mark.parametrize(
    ("value", "type_name", "path"),
    [
        (object(), "object", "result"),
        ([1, {"k": (1, range(2))}], "range", "result[1]['k'][1]"),
        ({(1, object): 2}, "type", "key tuple of result[1]"),
        ({"a": Colour.RED}, f"{__name__}.Colour", "result['a']"),
        ([Table()], f"{__name__}.Table", "result[0]"),
        (["ok", "\ud800"], "str", "result[1]"),
        ({frozenset([object])}, "type", "result{...}{...}"),
        ([1 << (8 << 20)], "int", "result[0]"),
        ({1 << (1 << 20): object()}, "object", "result[int]"),
        (complex(1), "complex", "result"),
        (array.array("u", "text"), "array.array", "result"),
    ],
)
def test_value_is_refused_with_type_and_path_when_a_part_is_not_plain(
    value: Any, type_name: str, path: str
) -> None:
    with pytest.raises(UnsafeValue) as caught:
        encode(value)
    assert (caught.value.type_name, caught.value.path) == (type_name, path)
    assert str(caught.value).startswith(f"{path} is {type_name}")


def test_value_is_refused_when_it_holds_itself() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(UnsafeValue, match="or holding itself") as caught:
        encode(value)
    assert len(str(caught.value)) < 500


def test_tuples_are_refused_when_they_nest_too_deep() -> None:
    value: Any = ()
    for _ in range(plain.EXTENSIONS_DEEP + 1):
        value = (value,)
    with pytest.raises(UnsafeValue, match="nested deeper"):
        encode(value)


def test_encoding_calls_nothing_of_a_foreign_value() -> None:
    class Evil:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} was asked for")

    with pytest.raises(UnsafeValue):
        encode([Evil()])


@given(st.binary(max_size=200))
def test_decoding_raises_only_its_own_error_for_any_bytes(data: bytes) -> None:
    with contextlib.suppress(CodecError):
        decode(data)


@given(values, st.data())
def test_decoding_survives_a_flipped_byte(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(CodecError):
        decode(bytes(encoded))


def extension(code: int, content: bytes) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, content))
    return packed


def nested_tuples(depth: int) -> bytes:
    data = extension(1, msgpack.packb([]))
    for _ in range(depth):
        data = extension(1, b"\x91" + data)
    return data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode(1) + b"\0",
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1 items that do not come
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 2000 + b"\xc0",
        nested_tuples(plain.EXTENSIONS_DEEP + 5),
        extension(9, b""),
        extension(1, msgpack.packb({})),
        extension(2, msgpack.packb([[]])),  # a list in a set
        b"\x81\x90\xc0",  # a list as a key
        extension(4, bytes(plain.INTEGER_BYTES_MAX + 1)),
        extension(5, msgpack.packb([1, "<f8", [2**40, 2**40], b""])),
        extension(5, msgpack.packb([1, "<f8", [-1, -8], bytes(64)])),
        extension(5, msgpack.packb([1, "|O8", [1], bytes(8)])),
        extension(5, msgpack.packb([1, "<f8", [1] * 40, bytes(8)])),
        extension(5, msgpack.packb([2, "<f8", [1], bytes(8)])),
        extension(5, msgpack.packb([3, "<u2", [1], bytes(2)])),
        extension(5, msgpack.packb([3, "<d", [1], bytes(8)])),
        extension(5, msgpack.packb([7, "<f8", [1], bytes(8)])),
        extension(5, msgpack.packb("array")),
    ],
)
def test_decoding_refuses_what_is_no_plain_value(data: bytes) -> None:
    with pytest.raises(CodecError, match="plain value"):
        decode(data)


def test_decoding_makes_no_foreign_type_of_a_timestamp() -> None:
    assert decode(b"\xd7\xff" + bytes(8)) == 0.0


def test_decoding_refuses_more_bytes_than_it_is_told_to_take() -> None:
    with pytest.raises(CodecError, match="at most 3"):
        decode(encode("text"), most=3)
