"""Frames: packing, splitting a record, and frames out of a stream in any pieces."""

import contextlib
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.errors import FrameError
from alpyne_proto.frame import Frame, FrameReader, FrameType, pack, split
from alpyne_proto.limits import META_MAX, RECORD_PLAIN_MAX


def frames() -> st.SearchStrategy[Frame]:
    return st.builds(
        Frame,
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=40),
        st.one_of(st.binary(max_size=60), st.just(bytes(20_000))),
    )


def packed(frame: Frame) -> bytes:
    head = pack(frame.type, frame.flags, frame.stream_id, frame.meta, len(frame.payload))
    return head + bytes(frame.payload)


def test_frame_is_laid_out_as_the_specification_says() -> None:
    data = pack(FrameType.REQUEST, 5, 0x01020304, b"meta", 7) + b"payload"
    assert data == bytes.fromhex("20 05 0004 00000007 01020304") + b"metapayload"


@given(st.lists(frames(), max_size=8))
def test_split_gives_back_what_was_packed(given_frames: list[Frame]) -> None:
    record = b"".join(packed(frame) for frame in given_frames)
    got = [frame._replace(payload=bytes(frame.payload)) for frame in split(record)]
    assert got == given_frames


@given(st.lists(frames(), max_size=6), st.lists(st.integers(0, 100_000), max_size=20))
def test_reader_gives_the_same_frames_for_any_pieces(
    given_frames: list[Frame], cuts: list[int]
) -> None:
    stream = b"".join(packed(frame) for frame in given_frames)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = FrameReader()
    got = [frame for begin, end in pairwise(edges) for frame in reader.feed(stream[begin:end])]
    assert got == given_frames


@pytest.mark.parametrize(
    "record",
    [
        b"x",
        bytes(11),
        pack(0, 0, 0) + b"x",
        pack(0, 0, 0, b"meta")[:-1],
        pack(0, 0, 0, b"", 1),
        pack(0, 0, 0, b"", 2**32 - 1),
        pack(0, 0, 0, bytes(META_MAX + 1)),
    ],
)
def test_split_refuses_frames_that_do_not_fill_the_record(record: bytes) -> None:
    with pytest.raises(FrameError):
        list(split(record))


def test_split_gives_the_whole_frames_before_a_bad_one() -> None:
    got = []
    with pytest.raises(FrameError):
        for frame in split(pack(2, 0, 0) + pack(4, 0, 0) + b"x"):
            got.append(frame.type)
    assert got == [2, 4]


def test_small_payload_does_not_keep_its_record_alive() -> None:
    record = pack(1, 0, 0, b"", 5) + b"small" + pack(1, 0, 0, b"", 60_000) + bytes(60_000)
    small, large = split(record)
    assert type(small.payload) is bytes
    assert type(large.payload) is memoryview


@given(st.binary(max_size=100))
def test_split_raises_only_frame_error_for_any_bytes(record: bytes) -> None:
    with contextlib.suppress(FrameError):
        list(split(record))


@pytest.mark.parametrize(
    "data", [pack(0, 0, 0, bytes(META_MAX + 1)), pack(0, 0, 0, b"", RECORD_PLAIN_MAX + 1)]
)
def test_reader_refuses_a_length_over_its_bound_at_once(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed(data[:12]))


def test_reader_holds_no_more_than_what_came() -> None:
    reader = FrameReader(payload_max=1 << 31)
    tracemalloc.start()
    try:
        assert list(reader.feed(pack(0, 0, 0, b"", 1 << 30))) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000
