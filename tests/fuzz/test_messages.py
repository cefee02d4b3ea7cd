"""Any message comes back as it was; any change to its bytes is refused or is another message."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpyne_proto.codec import decode, decode_as, encode, encode_row, read_rows
from alpyne_proto.errors import AlpyneError, CodecError, LocalProtocolError
from alpyne_proto.registry import MESSAGES, Message, Shape, Spec

Of = Callable[..., st.SearchStrategy[Message]]
SPECS = list(MESSAGES.values())
ROWS = [spec for spec in SPECS if spec.shape is Shape.ROW]


def read(spec: Spec, meta: bytes, *, lenient: bool) -> Message:
    if spec.shape is Shape.CONTROL:
        return decode_as(meta, spec.cls, lenient=lenient)
    return decode(meta, (spec.shape,), lenient=lenient)


def written(message: Message) -> bytes | None:
    """Return a message's meta; None where the strategy made one that is too long."""
    try:
        return encode(message)
    except LocalProtocolError as error:
        assert "meta" in str(error)
        return None


@pytest.mark.parametrize("spec", SPECS, ids=[spec.name for spec in SPECS])
@settings(max_examples=15)
@given(data=st.data())
def test_message_comes_back_as_it_was(of: Of, spec: Spec, data: st.DataObject) -> None:
    message = data.draw(of(spec.cls))
    meta = written(message)
    if meta is not None:
        assert read(spec, meta, lenient=False) == message


@pytest.mark.parametrize("spec", SPECS, ids=[spec.name for spec in SPECS])
@settings(max_examples=15)
@given(data=st.data())
def test_changed_meta_is_refused_or_is_a_message(of: Of, spec: Spec, data: st.DataObject) -> None:
    meta = bytearray(written(data.draw(of(spec.cls))) or b"\x80")
    for _ in range(data.draw(st.integers(1, 4))):
        meta[data.draw(st.integers(0, len(meta) - 1))] = data.draw(st.integers(0, 255))
    del meta[data.draw(st.integers(1, len(meta))) :]
    try:
        got = read(spec, bytes(meta), lenient=data.draw(st.booleans()))
    except CodecError:
        return
    assert type(got).SPEC.shape is spec.shape
    assert read(got.SPEC, encode(got), lenient=False) == got


@settings(max_examples=100)
@given(data=st.data())
def test_rows_come_back_with_their_payloads(of: Of, data: st.DataObject) -> None:
    specs = data.draw(st.lists(st.sampled_from(ROWS), min_size=1, max_size=5))
    rows: list[Any] = []
    for spec in specs:
        payload = data.draw(st.binary(max_size=min(spec.payload_max, 50)))
        rows.append((data.draw(of(spec.cls)), payload))
    body = b"".join(encode_row(row, payload) for row, payload in rows)
    assert read_rows(body, {spec.code for spec in specs}) == rows


@settings(max_examples=150)
@given(data=st.data())
def test_changed_rows_are_refused_or_are_rows(of: Of, data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(ROWS))
    body = bytearray(encode_row(data.draw(of(spec.cls))))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        rows = read_rows(bytes(body), [spec.code])
    except AlpyneError as error:
        assert isinstance(error, CodecError)
        return
    assert all(row.SPEC is spec for row, _ in rows)
