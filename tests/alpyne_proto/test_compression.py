"""zstd payloads: they inflate to exactly what they declare, or raise, and never cost more."""

import random
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from alpyne_proto.compression import Compression, Compressor, Inflater, declared_size
from alpyne_proto.errors import CompressionError
from alpyne_proto.limits import COMPRESS_MIN, INFLATED_MAX

TEXT = b"the same words again and again, and again; " * 1500
NOISE = random.Random(3).randbytes(61_440)
MIB = 1 << 20


def packed(size: int, frame: bytes) -> bytes:
    return size.to_bytes(4) + frame


def compress(data: bytes, **parameters: int) -> bytes:
    return zstandard.ZstdCompressor(**parameters).compress(data)


def compressor(mode: Compression) -> tuple[Compressor, SimpleNamespace]:
    return Compressor(mode), SimpleNamespace(plain_frames=0)


@pytest.mark.parametrize("mode", [Compression.AUTO, Compression.ON])
@pytest.mark.parametrize("size", [COMPRESS_MIN, 5_000, 61_440])
def test_what_was_compressed_inflates_to_itself(mode: Compression, size: int) -> None:
    one, stream = compressor(mode)
    payload = one.compress(stream, TEXT[:size])
    assert payload is not None
    assert len(payload) < size / 2
    assert Inflater().inflate(memoryview(payload)) == TEXT[:size]


def test_compressor_leaves_noise_alone_and_then_does_not_even_try() -> None:
    one, stream = compressor(Compression.AUTO)
    assert one.compress(stream, NOISE) is None
    assert [one.compress(stream, TEXT) is None for _ in range(16)] == [True] * 15 + [False]


def test_compressor_leaves_alone_what_looks_good_only_at_its_ends() -> None:
    one, stream = compressor(Compression.AUTO)
    half_noise = TEXT[:4096] + NOISE + NOISE[::-1] + TEXT[:4096]
    assert one.compress(stream, half_noise) is None
    assert stream.plain_frames == 15


def test_compressor_that_is_on_compresses_whatever_gets_smaller() -> None:
    one, stream = compressor(Compression.ON)
    assert one.compress(stream, NOISE) is None
    assert one.compress(stream, TEXT) is not None
    slightly = NOISE + bytes(4000)
    assert one.compress(stream, slightly) is not None
    other, stream = compressor(Compression.AUTO)
    assert other.compress(stream, slightly) is None


GOOD = compress(TEXT)
EMPTY_FRAME = compress(b"")
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00data"
NO_SIZE = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
WITH_CHECKSUM = zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)
WIDE = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters(window_log=24, compression_level=1)
).compressobj(size=16 * MIB)
WIDE_FRAME = WIDE.compress(bytes(16 * MIB)) + WIDE.flush()
TRAINED = zstandard.train_dictionary(
    2000, [TEXT[i : i + 200] + bytes((i % 251,)) for i in range(900)]
)
WITH_DICTIONARY = zstandard.ZstdCompressor(dict_data=TRAINED).compress(TEXT)

BAD = {
    "no size": b"\x00\x00\x01",
    "nothing behind the size": packed(len(TEXT), b""),
    "declares nothing": packed(0, EMPTY_FRAME),
    "declares too little to be worth it": packed(1000, compress(bytes(1000))),
    "declares too much": packed(INFLATED_MAX + 1, compress(bytes(INFLATED_MAX + 1))),
    "declares less than it has": packed(len(TEXT) - 1, GOOD),
    "declares more than it has": packed(len(TEXT) + 1, GOOD),
    "its frame does not name a size": packed(len(TEXT), NO_SIZE),
    "no zstd": packed(len(TEXT), b"plain text that is no zstd frame"),
    "cut": packed(len(TEXT), GOOD[:-1]),
    "cut within the header": packed(len(TEXT), GOOD[:5]),
    "cut checksum": packed(len(TEXT), WITH_CHECKSUM[:-2]),
    "wrong checksum": packed(len(TEXT), WITH_CHECKSUM[:-1] + bytes((WITH_CHECKSUM[-1] ^ 1,))),
    "a byte behind it": packed(len(TEXT), GOOD + b"\x00"),
    "an empty frame behind it": packed(len(TEXT), GOOD + EMPTY_FRAME),
    "a skippable frame behind it": packed(len(TEXT), GOOD + SKIPPABLE),
    "itself behind it": packed(len(TEXT), GOOD + GOOD),
    "a skippable frame before it": packed(len(TEXT), SKIPPABLE + GOOD),
    "only a skippable frame": packed(len(TEXT), SKIPPABLE),
    "a window of 16 MiB": packed(16 * MIB, WIDE_FRAME),
    "a dictionary": packed(len(TEXT), WITH_DICTIONARY),
}


@pytest.mark.parametrize("name", BAD)
def test_inflater_refuses_what_is_not_one_frame_of_the_declared_size(name: str) -> None:
    with pytest.raises(CompressionError):
        Inflater().inflate(BAD[name])


def test_inflater_takes_a_frame_with_a_checksum() -> None:
    assert Inflater().inflate(packed(len(TEXT), WITH_CHECKSUM)) == TEXT


def test_inflater_goes_on_after_what_it_refused() -> None:
    inflater = Inflater()
    for bad in BAD.values():
        with pytest.raises(CompressionError):
            inflater.inflate(bad)
        assert inflater.inflate(packed(len(TEXT), GOOD)) == TEXT


def with_content_size(frame: bytes, size: int) -> bytes:
    """Return a zstd frame whose header names another content size (RFC 8878, 3.1.1.1)."""
    descriptor = 0b10 << 6 | 1 << 5  # size of 4 bytes, single segment
    blocks = frame[zstandard.frame_header_size(frame) :]
    return frame[:4] + bytes((descriptor,)) + size.to_bytes(4, "little") + blocks


def test_inflater_refuses_a_window_over_the_limit_whatever_the_size() -> None:
    """A frame of 1 MiB that asks for a window of 16 MiB (RFC 8878, 3.1.1.1.2)."""
    blocks = compress(bytes(MIB))[zstandard.frame_header_size(compress(bytes(MIB))) :]
    window = (24 - 10) << 3
    frame = b"\x28\xb5\x2f\xfd" + bytes((0x80, window)) + MIB.to_bytes(4, "little") + blocks
    with pytest.raises(CompressionError, match="window of 16777216"):
        Inflater().inflate(packed(MIB, frame))


def test_header_that_the_test_writes_is_read_as_meant() -> None:
    frame = with_content_size(compress(bytes(MIB)), MIB)
    assert Inflater().inflate(packed(MIB, frame)) == bytes(MIB)


@pytest.fixture(scope="module")
def gibibyte() -> bytes:
    """A zstd frame of 1 GiB of zeros."""
    zstd = zstandard.ZstdCompressor(level=1).compressobj(size=1 << 30)
    return b"".join([zstd.compress(bytes(MIB)) for _ in range(1 << 10)] + [zstd.flush()])


@pytest.mark.parametrize("declared", [COMPRESS_MIN, 61_440, MIB])
def test_bomb_is_refused_with_memory_bounded(gibibyte: bytes, declared: int) -> None:
    """1 GiB in a payload, whose header lies: nobody makes more of it than it declares."""
    bomb = with_content_size(gibibyte, declared)
    assert len(bomb) < 65_535
    inflater = Inflater()
    tracemalloc.start()
    try:
        with pytest.raises(CompressionError):
            inflater.inflate(packed(declared, bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB


def test_bomb_that_does_not_lie_is_refused_before_it_is_inflated(gibibyte: bytes) -> None:
    with pytest.raises(CompressionError, match="declares"):
        declared_size(packed(1 << 30, gibibyte))


def test_resident_memory_stays_bounded_when_bombs_come() -> None:
    """The memory of zstd is not Python's: measured from outside, in a process of its own."""
    script = """
import resource, zstandard
from alpyne_proto.compression import Inflater
from alpyne_proto.errors import CompressionError
bomb = zstandard.ZstdCompressor(level=1).compressobj(size=1 << 30)
data = b"".join([bomb.compress(bytes(1 << 20)) for _ in range(1 << 10)] + [bomb.flush()])
blocks = data[zstandard.frame_header_size(data):]
lies = data[:4] + b"\\xa0" + (1 << 20).to_bytes(4, "little") + blocks
inflater = Inflater()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for payload in (lies, data):
    for size in (1 << 20, 61440, 1 << 30):
        try:
            inflater.inflate(size.to_bytes(4) + payload)
        except CompressionError:
            pass
        else:
            raise SystemExit("it was taken")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
raise SystemExit(f"grew by {grown} KiB" if grown > 16 * 1024 else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@settings(max_examples=200)
@given(payload=st.binary(max_size=300))
def test_inflater_raises_only_its_error_for_any_bytes(payload: bytes) -> None:
    with pytest.raises(CompressionError):
        Inflater().inflate(payload)


@settings(max_examples=300)
@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.integers(0, 20))
def test_inflater_raises_only_its_error_for_changed_frames(at: int, value: int, cut: int) -> None:
    changed = bytearray(GOOD)
    changed[at] = value
    payload = packed(len(TEXT), bytes(changed[: len(changed) - cut]))
    try:
        plain = Inflater().inflate(payload)
    except CompressionError:
        return
    assert len(plain) == len(TEXT)


def test_importing_the_session_imports_no_zstandard() -> None:
    script = "import sys, alpyne_proto.session; raise SystemExit('zstandard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
