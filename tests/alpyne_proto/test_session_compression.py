"""Compression within a session: when it happens, how credit counts it, what is refused."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from alpyne_proto.compression import Compression
from alpyne_proto.errors import ErrorCode
from alpyne_proto.events import DataReceived, RequestReceived
from alpyne_proto.frame import Flags, FrameType
from alpyne_proto.limits import INFLATED_MAX, STREAM_WINDOW
from alpyne_proto.messages.data import PutObject, StatObject

PUT = PutObject(b"c" * 16, "path", 1, b"w" * 16, 1 << 40)
TEXT = b"the same words again and again, and again; " * 1000
NOISE = random.Random(3).randbytes(50_000)
Make = Callable[..., Any]
F = FrameType


def zstd(data: bytes, declared: int | None = None) -> bytes:
    size = len(data) if declared is None else declared
    return size.to_bytes(4) + zstandard.ZstdCompressor().compress(data)


def sent(make_raw: Make, body: bytes, **changes: Any) -> list[Any]:
    """Return the frames that a session sends for a body."""
    raw = make_raw(is_dialler=False, **changes)
    stream = raw.session.open_stream(PUT, b"", end=False)
    raw.session.send_data(stream, body, end=True)
    return [one for one in raw.receive() if one.type in (F.REQUEST, F.DATA)]


@pytest.mark.parametrize(
    ("mode", "body", "is_packed"),
    [
        (Compression.AUTO, TEXT, True),
        (Compression.AUTO, NOISE, False),
        (Compression.AUTO, TEXT[:1023], False),
        (Compression.AUTO, TEXT[:1024], True),
        (Compression.ON, TEXT, True),
        (Compression.ON, NOISE, False),
        (Compression.ON, TEXT[:1023], False),
        (Compression.OFF, TEXT, False),
    ],
)
def test_payloads_are_compressed_when_it_pays(
    make_raw: Make, mode: Compression, body: bytes, is_packed: bool
) -> None:
    frames = sent(make_raw, body, compression=mode)
    assert bool(frames[0].flags & Flags.ZSTD) is is_packed
    assert frames[-1].flags & Flags.END
    assert not any(b"same words" in one.meta for one in frames)


def test_nothing_is_compressed_for_a_peer_that_does_not_know_zstd(make_link: Make) -> None:
    link = make_link({}, {"hello": {"codecs": 0}})
    link.open()
    link.dialler.open_stream(PUT, TEXT)
    records = link.take(link.dialler)
    assert sum(map(len, records)) > len(TEXT)
    link.give(link.acceptor, *records)
    link.acceptor.open_stream(PUT, TEXT)
    assert sum(map(len, link.take(link.acceptor))) < len(TEXT) / 4


def test_credit_counts_what_comes_out_not_what_went_in(link: Any) -> None:
    stream = link.dialler.open_stream(PUT, bytes(3 * STREAM_WINDOW))
    _, told = link.settle()
    pieces = [e.payload if isinstance(e, RequestReceived) else e.data for e in told]
    assert b"".join(pieces) == bytes(STREAM_WINDOW)
    link.acceptor.consume(stream, STREAM_WINDOW)
    _, told = link.settle()
    assert sum(len(e.data) for e in told) == STREAM_WINDOW


def test_mixed_body_arrives_whole(link: Any) -> None:
    body = TEXT + NOISE + TEXT * 3 + NOISE
    link.dialler.open_stream(PUT, body)
    _, told = link.settle()
    pieces = [e.payload if isinstance(e, RequestReceived) else e.data for e in told]
    assert b"".join(pieces) == body
    assert told[-1].end


def test_compressed_frames_of_the_peer_are_inflated(raw: Any, frame: Make) -> None:
    (first,) = raw.send(frame(F.REQUEST, 1, zstd(TEXT), flags=Flags.ZSTD, message=PUT))
    assert first == RequestReceived(1, PUT, TEXT, False)
    offset = len(TEXT).to_bytes(8)
    (second,) = raw.send(frame(F.DATA, 1, offset + zstd(NOISE), flags=Flags.ZSTD | Flags.END))
    assert second == DataReceived(1, NOISE, True, None)


REFUSED = {
    "garbage": (b"\x00\x00\x10\x00garbage", ErrorCode.COMPRESSION_ERROR),
    "too short": (b"\x00", ErrorCode.COMPRESSION_ERROR),
    "a lie": (zstd(TEXT, declared=len(TEXT) + 1), ErrorCode.COMPRESSION_ERROR),
    "too large": (zstd(bytes(INFLATED_MAX + 1)), ErrorCode.COMPRESSION_ERROR),
    "over the credit": (zstd(bytes(200_000)), ErrorCode.FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize("name", REFUSED)
def test_session_closes_when_a_payload_does_not_inflate_as_it_may(
    make_raw: Make, frame: Make, closing: Make, name: str
) -> None:
    payload, code = REFUSED[name]
    raw = make_raw(hello={"max_stream_data": 150_000})
    events = raw.send(frame(F.REQUEST, 1, payload, flags=Flags.ZSTD, message=PUT))
    assert closing(events).code is code


def test_session_refuses_zstd_that_its_hello_did_not_name(
    make_raw: Make, frame: Make, closing: Make
) -> None:
    raw = make_raw(hello={"codecs": 0})
    events = raw.send(frame(F.REQUEST, 1, zstd(TEXT), flags=Flags.ZSTD, message=PUT))
    assert closing(events).code is ErrorCode.COMPRESSION_ERROR


def test_session_refuses_zstd_where_there_is_no_body(raw: Any, frame: Make, closing: Make) -> None:
    stat = StatObject(b"c" * 16, "path")
    flags = Flags.ZSTD | Flags.END
    events = raw.send(frame(F.REQUEST, 1, zstd(TEXT), flags=flags, message=stat))
    assert closing(events).code is ErrorCode.FRAME_ERROR
