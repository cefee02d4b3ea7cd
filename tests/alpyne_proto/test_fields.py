"""Kinds of fields: the values at and beyond their bounds."""

from enum import IntEnum, IntFlag
from typing import Any

import pytest

from alpyne_proto.errors import CodecError
from alpyne_proto.fields import FLAG, REAL, U8, U64, Bits, Blob, Choice, ListOf, Text


class Colour(IntEnum):
    RED = 1
    BLUE = 7


class Mode(IntFlag):
    READ = 1
    WRITE = 2


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (U8, 0, 0),
        (U8, 255, 255),
        (U64, 2**64 - 1, 2**64 - 1),
        (FLAG, True, True),
        (REAL, 1.5, 1.5),
        (REAL, 3, 3.0),
        (Text(4), "äö", "äö"),
        (Text(4), "", ""),
        (Blob(2, 3), b"ab", b"ab"),
        (Blob(2, 3), b"abc", b"abc"),
        (Blob(16, 16, or_empty=True), b"", b""),
        (Choice(Colour), 7, Colour.BLUE),
        (Choice(Colour), Colour.RED, Colour.RED),
        (Bits(0x03), 3, 3),
        (Bits(0x03), Mode.READ | Mode.WRITE, 3),
        (ListOf(U8, 2), [1, 2], (1, 2)),
        (ListOf(U8, 2), (), ()),
    ],
)
def test_kind_takes_what_lies_within_its_bounds(kind: Any, value: Any, result: Any) -> None:
    checked = kind.check(value, "here")
    assert checked == result
    assert type(checked) is type(result) or isinstance(checked, int)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (U8, -1),
        (U8, 256),
        (U8, True),
        (U8, 1.0),
        (U8, "1"),
        (U8, None),
        (U64, 2**64),
        (FLAG, 1),
        (FLAG, None),
        (REAL, float("nan")),
        (REAL, float("inf")),
        (REAL, -float("inf")),
        (REAL, 10**400),
        (REAL, True),
        (REAL, "1"),
        (Text(4), "abcde"),
        (Text(4), "äöü"),
        (Text(4), b"ab"),
        (Text(4), "\udcff\udcff"),
        (Blob(2, 3), b"a"),
        (Blob(2, 3), b"abcd"),
        (Blob(2, 3), b""),
        (Blob(2, 3), "ab"),
        (Blob(2, 3), bytearray(2)),
        (Choice(Colour), 2),
        (Choice(Colour), "RED"),
        (Choice(Colour), 1.0),
        (Choice(Colour), True),
        (Bits(0x03), 4),
        (Bits(0x03), -1),
        (Bits(0x03), True),
        (ListOf(U8, 2), [1, 2, 3]),
        (ListOf(U8, 2), [256]),
        (ListOf(U8, 2), {1: 2}),
        (ListOf(U8, 2), "ab"),
    ],
)
def test_kind_refuses_what_does_not_and_names_the_place(kind: Any, value: Any) -> None:
    with pytest.raises(CodecError, match="here"):
        kind.check(value, "here")


def test_refusal_does_not_repeat_long_values() -> None:
    with pytest.raises(CodecError) as refusal:
        Text(4).check("x" * 5000, "here")
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        (U8, "u8"),
        (FLAG, "bool"),
        (REAL, "f64"),
        (Text(4), "text<=4"),
        (Blob(2, 3), "bytes[2..3]"),
        (Blob(16, 16, or_empty=True), "bytes[0|16]"),
        (Choice(Colour), "Colour"),
        (Bits(3), "bits 0x3"),
        (ListOf(U8, 2), "[u8]<=2"),
    ],
)
def test_kind_names_itself_for_the_tables(kind: Any, label: str) -> None:
    assert kind.label == label
