"""Payloads under zstd: one independent frame each, never meta, inflated with a cap.

A compressed payload is ``>I`` its size inflated, then one zstd frame that names the same size.
``zstandard`` is imported on first use, so that a worker, which never compresses, needs none.

Source: spec/PROTOCOL.md, "Compression"; RFC 8878.
"""

from enum import Enum
from struct import Struct
from typing import IO, Protocol, cast

from alpyne_proto import limits
from alpyne_proto.errors import CompressionError

_SIZE = Struct(">I")
SIZE_BYTES = _SIZE.size
_MAGIC = b"\x28\xb5\x2f\xfd"  # of a zstd frame; a skippable frame has another
_LEVEL = 1
_SAMPLE_LEVEL = -5
_SAMPLE = 4096
_WORTH = 0.9  # compressed / plain, at most
_PLAIN_FRAMES = 15  # that follow one that was not worth it


class Compression(Enum):
    """Whether payloads are compressed."""

    AUTO = "auto"  # where a sample says that it pays
    ON = "on"  # wherever the result is smaller
    OFF = "off"


class HasPlainFrames(Protocol):
    """Where a compressor remembers what it learnt: a stream."""

    plain_frames: int


class Compressor:
    """Compresses the payloads of one connection."""

    __slots__ = ("_always", "_sampler", "_zstd")

    def __init__(self, mode: Compression) -> None:
        """mode: AUTO or ON."""
        import zstandard

        self._always = mode is Compression.ON
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)
        self._sampler = zstandard.ZstdCompressor(level=_SAMPLE_LEVEL)

    def compress(self, stream: HasPlainFrames, data: bytes | memoryview) -> bytes | None:
        """Return the compressed payload, or None where ``data`` should travel as it is.

        After data that was not worth it, the stream's next frames are not even tried.
        """
        if not self._always and not self._promises(stream, data):
            return None
        compressed = self._zstd.compress(data)
        most = len(data) if self._always else len(data) * _WORTH
        if len(compressed) + SIZE_BYTES > most:
            stream.plain_frames = _PLAIN_FRAMES
            return None
        return _SIZE.pack(len(data)) + compressed

    def _promises(self, stream: HasPlainFrames, data: bytes | memoryview) -> bool:
        """Return whether a sample says that compressing pays."""
        if stream.plain_frames:
            stream.plain_frames -= 1
            return False
        if len(data) <= 3 * _SAMPLE:
            return True  # as cheap to compress as to sample
        middle = len(data) // 2
        view = memoryview(data)
        sample = b"".join((view[:_SAMPLE], view[middle : middle + _SAMPLE], view[-_SAMPLE:]))
        if len(self._sampler.compress(sample)) <= len(sample) * _WORTH:
            return True
        stream.plain_frames = _PLAIN_FRAMES
        return False


def declared_size(payload: bytes | memoryview) -> int:
    """Return the size that a compressed payload declares; CompressionError out of bounds."""
    if len(payload) < SIZE_BYTES:
        raise CompressionError(f"zstd payload: {len(payload)} bytes, no room for its size")
    size: int = _SIZE.unpack_from(payload)[0]
    if not limits.COMPRESS_MIN <= size <= limits.INFLATED_MAX:
        raise CompressionError(
            f"zstd payload: it declares {size} bytes, expected {limits.COMPRESS_MIN} to "
            f"{limits.INFLATED_MAX}"
        )
    return size


class _Source:
    """Gives zstd all bytes but the last, then the last, and notes whether it wanted exactly those.

    Whoever ends before the last byte has left some over; whoever asks for more is not at its end.
    """

    __slots__ = ("_parts", "_wanted_more")

    def __init__(self, frame: memoryview) -> None:
        self._parts = [frame[-1:], frame[:-1]]
        self._wanted_more = False

    def read(self, size: int = -1) -> bytes:
        if self._parts:
            return bytes(self._parts.pop())
        self._wanted_more = True
        return b""

    @property
    def was_one_frame(self) -> bool:
        return not self._parts and not self._wanted_more


class Inflater:
    """Inflates payloads, at most as many bytes as they declare."""

    __slots__ = ("_parameters", "_unusable", "_zstd")

    def __init__(self) -> None:
        import zstandard

        self._zstd = zstandard.ZstdDecompressor(max_window_size=limits.ZSTD_WINDOW_MAX)
        self._parameters = zstandard.get_frame_parameters
        self._unusable: type[zstandard.ZstdError] = zstandard.ZstdError

    def inflate(self, payload: bytes | memoryview) -> bytes:
        """Return the plain bytes of ``payload``.

        Raises CompressionError unless it is its size, then exactly one zstd frame of that size,
        without a dictionary and with a window of at most ZSTD_WINDOW_MAX.
        """
        size = declared_size(payload)
        frame = memoryview(payload)[SIZE_BYTES:]
        if frame[:4] != _MAGIC:
            raise CompressionError("zstd payload: no zstd frame behind its size")
        try:
            header = self._parameters(frame)
            if header.content_size != size:
                raise CompressionError(
                    f"zstd payload: declares {size} bytes, its frame {header.content_size}"
                )
            if header.window_size > limits.ZSTD_WINDOW_MAX:
                raise CompressionError(f"zstd payload: a window of {header.window_size} bytes")
            source = _Source(frame)
            # The sizes above are the peer's words. This bounds what is made of them.
            plain = self._zstd.stream_reader(cast(IO[bytes], source)).read(size + 1)
        except self._unusable as error:
            raise CompressionError(f"zstd payload: {error}") from None
        if len(plain) != size or not source.was_one_frame:
            raise CompressionError(
                f"zstd payload: it declares {size} bytes, {len(plain)} came, or it is cut, or "
                "something follows it"
            )
        return plain
