"""Meta maps and rows: what is refused, and that rows come whole out of any pieces."""

import contextlib
import tracemalloc
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.codec import (
    RowReader,
    decode,
    decode_as,
    encode,
    encode_row,
    read_rows,
    unpack_map,
)
from alpyne_proto.errors import AlpyneError, CodecError, ErrorCode, LocalProtocolError
from alpyne_proto.limits import META_DEPTH, META_KEYS, META_MAX
from alpyne_proto.messages.access import Attribute, CreateInvitation, NodeStatus, Register
from alpyne_proto.messages.compute import (
    GetResult,
    JobAnswer,
    JobEvent,
    JobSpec,
    JobState,
    OutputRow,
    Verdict,
)
from alpyne_proto.messages.control import AccountRole, BodyDigest, Done, Error, Ping
from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.registry import Shape

REQUEST = (Shape.REQUEST,)
JOB = b"j" * 16


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# --- maps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"\x80\x80",
        b"\x81",
        b"\xc1",
        b"\x90",
        b"\xc0",
        b"\x01",
        msgpack.packb("text"),
        msgpack.packb({"name": 1}),
        msgpack.packb({-1: 1}),
        msgpack.packb({1.0: 1}),
        msgpack.packb({True: 1}),
        msgpack.packb({None: 1}),
        msgpack.packb({float("nan"): 1}),
        b"\x81\x91\x01\x01",  # an array as a key
        b"\x81\x80\x01",  # a map as a key
        b"\x82\x02\x01\x02\x01",  # the same key twice
        b"\x82\x02\x01\xcc\x02\x01",  # the same key twice, written otherwise
        b"\x82\x03\x01\x02\x01",  # keys that fall
        b"\x81\x02\x82\x02\x01\x02\x01",  # the same key twice, in a nested map
        msgpack.packb({2: msgpack.ExtType(5, b"x")}),
        msgpack.packb({2: msgpack.Timestamp(1)}),
        b"\x81\x02\xd4\x00\x00",  # an extension type of one byte
        b"\x81\x02\xa1\xff",  # text that is no UTF-8
        b"\x81\x02\xdb\xff\xff\xff\xff",  # text of 4 GiB
        b"\x81\x02\xc6\xff\xff\xff\xff",  # bytes of 4 GiB
        b"\x81\x02\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1
        b"\xdf\xff\xff\xff\xff",  # a map of 2^32 - 1
        msgpack.packb(dict.fromkeys(range(META_KEYS + 1), 0)),
        msgpack.packb({2: nest(META_DEPTH)}),
        b"\x81\x02" + b"\x91" * 600 + b"\xc0",
        b"\x81\x02" + b"\x91" * 8000 + b"\xc0",
        b"\x81\x02" * 600 + b"\xc0",
        msgpack.packb({2: bytes(META_MAX)}),
    ],
)
def test_unpack_map_refuses_what_is_not_one_map_with_rising_keys(meta: bytes) -> None:
    with pytest.raises(CodecError):
        unpack_map(meta)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {0: 1, 2: "ä", 3: b"\x00", 63: [1, [2]]},
        dict.fromkeys(range(META_KEYS), 0),
        {2: nest(META_DEPTH - 1)},
        {2: {2: {2: 1}}},
        {2: 2**64 - 1, 4: -(2**63), 6: 1.5, 8: None, 10: True},
    ],
)
def test_unpack_map_takes_a_map_within_the_bounds(value: dict[int, Any]) -> None:
    assert unpack_map(msgpack.packb(value)) == value
    assert unpack_map(memoryview(msgpack.packb(value))) == value


def test_unpack_map_allocates_nothing_for_announced_lengths() -> None:
    tracemalloc.start()
    try:
        for announced in (
            b"\xc6\x7f\xff\xff\xff",
            b"\xdd\x7f\xff\xff\xff",
            b"\xdf\x7f\xff\xff\xff",
        ):
            with pytest.raises(CodecError):
                unpack_map(b"\x81\x02" + announced + bytes(100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@given(st.binary(max_size=200))
def test_unpack_map_raises_only_codec_error_for_any_bytes(meta: bytes) -> None:
    with contextlib.suppress(CodecError):
        unpack_map(meta)


# --- messages ---------------------------------------------------------------------------------


def test_message_comes_back_and_leaves_defaults_out() -> None:
    message = CreateInvitation(60, AccountRole.ADMIN, note="for you")
    meta = encode(message)
    assert msgpack.unpackb(meta, strict_map_key=False) == {0: 0x14, 2: 60, 4: 2, 8: "for you"}
    assert decode(meta, REQUEST, lenient=False) == message


def test_control_message_has_no_code() -> None:
    assert encode(Ping(7)) == b"\x81\x02\x07"
    assert decode_as(b"\x81\x02\x07", Ping, lenient=False) == Ping(7)


def test_struct_travels_as_a_map_of_its_own() -> None:
    message = NodeStatus(NodeKind.DATA, attributes=(Attribute("os", "linux"),))
    assert decode(encode(message), (Shape.RESPONSE,), lenient=False) == message


@pytest.mark.parametrize(
    ("plain", "lenient"),
    [
        ({}, True),
        ({2: 60}, True),
        ({0: 0x14}, True),
        ({0: True, 2: 60}, True),
        ({0: "x", 2: 60}, True),
        ({0: 0x0A}, True),
        ({0: 0xFFFF, 2: 60}, True),
        ({0: 0x14, 2: 60, 10: 1}, True),
        ({0: 0x14, 2: 60, 11: 1}, False),
        ({0: 0x14, 2: -1}, True),
        ({0: 0x14, 2: 2**32}, True),
        ({0: 0x14, 2: 60.0}, True),
        ({0: 0x14, 2: True}, True),
        ({0: 0x14, 2: None}, True),
        ({0: 0x14, 2: 60, 4: 3}, True),
        ({0: 0x14, 2: 60, 8: b"bytes"}, True),
        ({0: 0x14, 2: 60, 8: "x" * 129}, True),
        ({0: 0x14, 2: 60, 8: "ä" * 65}, True),
    ],
)
def test_decode_refuses_what_the_registry_does_not_declare(
    plain: dict[int, Any], lenient: bool
) -> None:
    with pytest.raises(CodecError):
        decode(msgpack.packb(plain), REQUEST, lenient=lenient)


def test_decode_skips_unknown_odd_keys_when_it_may() -> None:
    meta = msgpack.packb({0: 0x14, 2: 60, 11: {1: [2]}, 63: b"new"})
    assert decode(meta, REQUEST, lenient=True) == CreateInvitation(60)


def test_decode_as_refuses_another_message() -> None:
    with pytest.raises(CodecError, match="BodyDigest"):
        decode_as(encode(Done()), BodyDigest, lenient=True)


@pytest.mark.parametrize(
    "message",
    [
        Ping(-1),
        Ping(2**64),
        Register("x" * 129),
        Register("x", b"short"),
        Register("\udcff"),
        Register("\udcff" * 100),
        Error(ErrorCode.INTERNAL, text=7),  # type: ignore[arg-type]
        BodyDigest(b"x" * 31),
        BodyDigest(bytearray(32)),  # type: ignore[arg-type]
    ],
)
def test_encode_refuses_values_out_of_bounds(message: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode(message)


def test_encode_refuses_meta_over_its_maximum() -> None:
    attributes = tuple(Attribute(f"{n}" * 16, "v" * 256) for n in range(64))
    with pytest.raises(LocalProtocolError, match="rows"):
        encode(NodeStatus(NodeKind.DATA, attributes=attributes))


# --- rows -------------------------------------------------------------------------------------

EVENT = JobEvent(1, JOB, 1, 1, JobState.DONE)
OUTPUT = OutputRow(1, 0)
ALLOWED = (EVENT.SPEC.code, OUTPUT.SPEC.code)
ROWS = [(EVENT, b"result"), (OUTPUT, b""), (OUTPUT, bytes(3000)), (EVENT, b"")]
BODY = b"".join(encode_row(row, payload) for row, payload in ROWS)


@given(cuts=st.lists(st.integers(0, len(BODY)), max_size=20))
def test_rows_come_whole_out_of_any_pieces(cuts: list[int]) -> None:
    reader = RowReader(ALLOWED)
    edges = [0, *sorted(cuts), len(BODY)]
    rows = [row for begin, end in pairwise(edges) for row in reader.feed(BODY[begin:end])]
    reader.finish()
    assert rows == ROWS


def test_rows_may_come_as_views() -> None:
    assert list(RowReader(ALLOWED).feed(memoryview(BODY))) == ROWS


@pytest.mark.parametrize("cut", [1, 5, 6, 20, len(BODY) - 1])
def test_truncated_row_is_refused_at_the_end(cut: int) -> None:
    with pytest.raises(CodecError, match="ended"):
        read_rows(BODY[:cut], ALLOWED)


@pytest.mark.parametrize(
    "row",
    [
        (META_MAX + 1).to_bytes(2) + bytes(4),
        bytes(2) + (1 << 20).to_bytes(4),
        b"\x00\x01" + bytes(4) + b"\xc1",
        encode_row(JobAnswer(JOB, Verdict.ACCEPTED)),  # another row
        b"\x00\x02" + bytes(4) + b"\x81\x00",
        len(encode(Done())).to_bytes(2) + bytes(4) + encode(Done()),
    ],
)
def test_wrong_row_is_refused_at_once(row: bytes) -> None:
    with pytest.raises(CodecError):
        list(RowReader(ALLOWED).feed(row))


def test_payload_over_the_bound_of_its_own_row_is_refused() -> None:
    meta = encode(JobEvent(1, JOB, 1, 1, JobState.DONE))
    row = len(meta).to_bytes(2) + (60_000).to_bytes(4) + meta + bytes(60_000)
    with pytest.raises(CodecError, match="not legal"):
        list(RowReader(ALLOWED).feed(row))
    with pytest.raises(LocalProtocolError, match="payload"):
        encode_row(EVENT, bytes(60_000))


def test_rows_before_a_wrong_one_are_given() -> None:
    rows = []
    with pytest.raises(CodecError):
        for row in RowReader(ALLOWED).feed(BODY + b"\xff" * 6):
            rows.append(row)
    assert rows == ROWS


def test_row_reader_holds_no_more_than_what_came() -> None:
    reader = RowReader((JobSpec.SPEC.code,))
    announced = b"\x00\x10" + (1 << 20).to_bytes(4)
    tracemalloc.start()
    try:
        assert list(reader.feed(announced)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.pending == 6
    assert peak < 10_000


def test_many_small_rows_take_linear_time() -> None:
    body = encode_row(OUTPUT, b"x" * 20) * 20_000
    reader = RowReader(ALLOWED)
    count = sum(
        1 for at in range(0, len(body), 61_440) for _ in reader.feed(body[at : at + 61_440])
    )
    assert count == 20_000


@given(st.binary(max_size=300))
def test_row_reader_raises_only_alpyne_errors_for_any_bytes(body: bytes) -> None:
    try:
        read_rows(body, ALLOWED)
    except AlpyneError as error:
        assert isinstance(error, CodecError)


def test_rows_that_differ_by_their_ids_alone_keep_their_ids_when_decoded() -> None:
    sent = [JobAnswer(bytes([n]) * 16, Verdict.FENCED, text="why") for n in (1, 2, 1)]
    assert [decode(encode(row), (Shape.ROW,), lenient=True) for row in sent] == sent


def test_row_of_an_id_is_refused_where_its_shape_is_not_legal_though_it_was_elsewhere() -> None:
    meta = encode(JobAnswer(b"i" * 16, Verdict.FENCED))
    decode(meta, (Shape.ROW,), lenient=True)
    with pytest.raises(CodecError, match="not known here"):
        decode(meta, (Shape.REQUEST,), lenient=True)


def test_message_is_refused_when_its_id_is_cut() -> None:
    whole = encode(GetResult(b"i" * 16))
    decode(whole, (Shape.REQUEST,), lenient=True)
    for size in range(len(whole)):
        with pytest.raises(CodecError):
            decode(whole[:size], (Shape.REQUEST,), lenient=True)
