"""Frames: ``>BBHII`` type, flags, meta length, payload length, stream id; then meta, then payload.

This module packs and splits frames and knows nothing of what they mean. It serves connections
(whole frames inside a record) and the socket pair between a compute daemon and its worker
(frames one behind the other in a byte stream).
"""

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

from alpyne_proto import limits
from alpyne_proto.errors import FrameError

HEADER = struct.Struct(">BBHII")
_COPIED = 16 * 1024  # a copy of so few bytes costs no more than a view


class FrameType(IntEnum):
    """Frame types. In state OPEN unknown odd ones are skipped; unknown even ones are an error."""

    PAD = 0x00
    SETTINGS = 0x02
    PING = 0x04
    GOAWAY = 0x06
    CLOSE = 0x08
    MAX_DATA = 0x0A
    MAX_STREAMS = 0x0C
    RESUME = 0x0E  # reserved
    REQUEST = 0x20
    RESPONSE = 0x22
    DATA = 0x24
    RESET = 0x26
    STOP = 0x28
    MAX_STREAM_DATA = 0x2A
    PRIORITY = 0x2C  # reserved
    REQ_ACK = 0x2E
    INTERRUPT = 0x30
    INTERRUPT_ACK = 0x32


class Flags(IntFlag):
    """Frame flags."""

    NONE = 0
    END = 1  # the sender's side of the stream ends with this frame
    ZSTD = 2  # the payload is one zstd frame
    ACK = 4  # PING: this answers one. REQUEST: answer with REQ_ACK on dispatch
    MORE = 8  # DATA: bytes of one row continue in the next DATA frame


FLAGS_ALL = 0x0F


class Frame(NamedTuple):
    """One frame as it stands on the wire."""

    type: int
    flags: int
    stream_id: int
    meta: bytes
    payload: memoryview | bytes


def pack(type: int, flags: int, stream_id: int, meta: bytes = b"", payload_size: int = 0) -> bytes:
    """Return header and meta; the caller appends ``payload_size`` bytes of payload."""
    return HEADER.pack(type, flags, len(meta), payload_size, stream_id) + meta


def split(record: bytes) -> Iterator[Frame]:
    """Yield the frames of one record; FrameError where they do not fill it exactly.

    A payload is a view of ``record`` where it is most of it, and a copy where it is not, so that
    whoever keeps it keeps at most twice its size alive.
    """
    size = len(record)
    at = 0
    while at < size:
        if size - at < limits.FRAME_HEADER:
            raise FrameError(f"record: {size - at} bytes after its last whole frame")
        type, flags, meta_size, payload_size, stream_id = HEADER.unpack_from(record, at)
        begin = at + limits.FRAME_HEADER
        middle = begin + meta_size
        at = middle + payload_size
        if meta_size > limits.META_MAX:
            raise FrameError(f"frame {type:#04x}: meta of {meta_size}, at most {limits.META_MAX}")
        if at > size:
            raise FrameError(f"frame {type:#04x}: it ends {at - size} bytes behind its record")
        payload: bytes | memoryview
        if payload_size <= _COPIED or payload_size * 2 < size:
            payload = record[middle:at]
        else:
            payload = memoryview(record)[middle:at]
        yield Frame(type, flags, stream_id, record[begin:middle], payload)


class FrameReader:
    """Frames out of a byte stream that arrives in any pieces (the worker's socket pair)."""

    def __init__(self, payload_max: int = limits.RECORD_PLAIN_MAX) -> None:
        self._payload_max = payload_max
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Take ``data`` and yield each whole frame; FrameError for a length over its bound."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= limits.FRAME_HEADER:
                type, flags, meta_size, payload_size, stream_id = HEADER.unpack_from(
                    self._buffer, at
                )
                if meta_size > limits.META_MAX or payload_size > self._payload_max:
                    raise FrameError(
                        f"frame {type:#04x}: meta {meta_size}, payload {payload_size} bytes; "
                        f"at most {limits.META_MAX} and {self._payload_max}"
                    )
                begin = at + limits.FRAME_HEADER
                middle = begin + meta_size
                end = middle + payload_size
                if end > len(self._buffer):
                    break
                at = end
                yield Frame(
                    type,
                    flags,
                    stream_id,
                    bytes(self._buffer[begin:middle]),
                    bytes(self._buffer[middle:end]),
                )
        finally:
            del self._buffer[:at]
