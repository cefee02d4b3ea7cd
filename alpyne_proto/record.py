"""Records: the units in which bytes are encrypted, authenticated and sent.

     0       1                       4
    +-------+-----------------------+--------------- ... ---------------+
    | type  | length                | body: `length` bytes              |
    +-------+-----------------------+--------------- ... ---------------+

A HANDSHAKE record carries one Noise message as it is. A SEALED record carries one or more whole
frames under the connection's AEAD: its body is ciphertext and tag, its header the associated data,
its nonce the number of records sealed before it in this direction. Both sides replace their key
(Noise REKEY) after every 2**16 records, without a signal; the nonce goes on counting (2**64 records
do not fit into a connection's life).

Source: spec/PROTOCOL.md, "Record"; Noise revision 34, sections 5.1 and 11.3.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from alpyne_proto.errors import LocalProtocolError, RecordError
from alpyne_proto.limits import (
    AEAD_TAG,
    HANDSHAKE_RECORD_MAX,
    RECORD_HEADER,
    RECORD_MAX,
    REKEY_RECORDS,
)
from alpyne_proto.noise import CipherState

Data = bytes | bytearray | memoryview


class RecordType(IntEnum):
    """The first byte of a record."""

    HANDSHAKE = 1  # clear: one Noise handshake message, at most HANDSHAKE_RECORD_MAX bytes
    SEALED = 2  # ciphertext and tag, at most RECORD_MAX bytes


_HEADER = Struct(">I")  # type and length read as one number: the cheapest way to take them apart
_SEALED = RecordType.SEALED << 24
_REKEY_MASK = REKEY_RECORDS - 1


def encode_handshake(message: bytes) -> bytes:
    """Wrap one Noise handshake message, 1 to HANDSHAKE_RECORD_MAX bytes, into a record."""
    if not 0 < len(message) <= HANDSHAKE_RECORD_MAX:
        raise LocalProtocolError(
            f"handshake record: expected 1 to {HANDSHAKE_RECORD_MAX} bytes, got {len(message)}"
        )
    return _HEADER.pack(RecordType.HANDSHAKE << 24 | len(message)) + message


def take_handshake(buffer: bytearray) -> bytes | None:
    """Remove one handshake record from the front of `buffer` and return its Noise message.

    Returns None, and leaves the buffer alone, while the record is incomplete.
    Raises RecordError as soon as the header is there for another type, or a length that is zero or
    above HANDSHAKE_RECORD_MAX.
    """
    if len(buffer) < RECORD_HEADER:
        return None
    kind, size = buffer[0], int.from_bytes(buffer[1:RECORD_HEADER])
    if kind != RecordType.HANDSHAKE or not 0 < size <= HANDSHAKE_RECORD_MAX:
        raise RecordError(
            f"handshake record: expected type {RecordType.HANDSHAKE:d} and 1 to "
            f"{HANDSHAKE_RECORD_MAX} bytes, got type {kind} and {size} bytes"
        )
    end = RECORD_HEADER + size
    if len(buffer) < end:
        return None
    message = bytes(buffer[RECORD_HEADER:end])
    del buffer[:end]
    return message


class RecordWriter:
    """Seals the records of one direction; it takes over the cipher it is given."""

    __slots__ = ("_cipher", "_encrypt_into", "_nonce", "_pack_nonce", "_record_max")

    def __init__(self, cipher: CipherState, record_max: int = RECORD_MAX) -> None:
        """Begin at the cipher's nonce; record_max: bytes of a record's body, tag included."""
        self._cipher = cipher
        self._nonce = cipher.nonce
        self._pack_nonce = cipher.suite.nonce.pack
        self._record_max = record_max
        self._encrypt_into = _aead(cipher).encrypt_into

    def seal(self, parts: Sequence[Data]) -> bytearray:
        """Encrypt the frames whose bytes are `parts`, in order, as one record ready to be sent.

        parts: bytes-like objects with items of one byte, 1 to `record_max - 16` bytes together.
        Returns header, ciphertext and tag. It must be sent: the next record counts on from it.
        Raises LocalProtocolError for no bytes, or too many.
        """
        plaintext = parts[0] if len(parts) == 1 else b"".join(parts)
        size = len(plaintext) + AEAD_TAG
        if not AEAD_TAG < size <= self._record_max:
            raise LocalProtocolError(
                f"record: expected 1 to {self._record_max - AEAD_TAG} bytes, got {len(plaintext)}"
            )
        header = _HEADER.pack(_SEALED | size)
        record = bytearray(RECORD_HEADER + size)
        record[:RECORD_HEADER] = header
        nonce = self._pack_nonce(self._nonce)
        self._encrypt_into(nonce, plaintext, header, memoryview(record)[RECORD_HEADER:])
        self._nonce += 1
        if not self._nonce & _REKEY_MASK:
            self._cipher.rekey()
            self._encrypt_into = _aead(self._cipher).encrypt_into
        return record


class RecordReader:
    """Opens the records of one direction from a stream of bytes cut anywhere."""

    __slots__ = (
        "_cipher",
        "_decrypt",
        "_nonce",
        "_pack_nonce",
        "_pending",
        "_record_max",
        "_usable",
    )

    def __init__(self, cipher: CipherState, record_max: int = RECORD_MAX) -> None:
        """Begin at the cipher's nonce; record_max: bytes of a record's body, tag included."""
        self._cipher = cipher
        self._nonce = cipher.nonce
        self._pack_nonce = cipher.suite.nonce.pack
        self._record_max = record_max
        self._decrypt = _aead(cipher).decrypt
        self._pending = bytearray()  # the beginning of a record whose end has not come yet
        self._usable = True  # False while bytes are worked on, and for ever after an error

    @property
    def pending_bytes(self) -> int:
        """Bytes held of a record that is not complete; after EOF, more than 0 means truncated."""
        return len(self._pending)

    def feed(self, data: Data) -> Iterator[bytes]:
        """Yield the plaintext of each record that `data` completes, in order.

        data: any bytes of the stream; they may be reused once the iterator has ended. The iterator
        must be read to its end before the next call. Memory grows only by bytes that came.
        Raises RecordError for an unknown type, a length of no plaintext or above the maximum (both
        before the body is there), and a record that was changed, replayed, left out or moved. What
        was yielded before is good; the reader is then dead.
        """
        if not self._usable:
            raise RecordError("record after one that failed: close the connection")
        self._usable = False
        view = memoryview(data)
        start, end = 0, len(view)
        if self._pending:
            start = self._fill(view)
            if self._is_complete():
                record, self._pending = self._pending, bytearray()
                yield self._open(memoryview(record))
        while end - start >= RECORD_HEADER:
            stop = start + self._record_size(view, start)
            if stop > end:
                break
            yield self._open(view[start:stop])
            start = stop
        self._pending += view[start:]
        self._usable = True

    def _record_size(self, buffer: Data, offset: int) -> int:
        """Check the header at `offset` and return the bytes of its record, header included."""
        size: int = _HEADER.unpack_from(buffer, offset)[0] - _SEALED
        if not AEAD_TAG < size <= self._record_max:
            kind, length = divmod(size + _SEALED, 1 << 24)
            raise RecordError(
                f"record: expected type {RecordType.SEALED:d} and {AEAD_TAG + 1} to "
                f"{self._record_max} bytes, got type {kind} and {length} bytes"
            )
        return RECORD_HEADER + size

    def _open(self, record: memoryview) -> bytes:
        nonce = self._pack_nonce(self._nonce)
        try:
            plaintext = self._decrypt(nonce, record[RECORD_HEADER:], record[:RECORD_HEADER])
        except InvalidTag:
            raise RecordError(f"record {self._nonce}: authentication failed") from None
        self._nonce += 1
        if not self._nonce & _REKEY_MASK:
            self._cipher.rekey()
            self._decrypt = _aead(self._cipher).decrypt
        return plaintext

    def _fill(self, view: memoryview) -> int:
        """Move bytes that belong to the pending record into it; return how many."""
        taken = max(0, RECORD_HEADER - len(self._pending))
        self._pending += view[:taken]
        if len(self._pending) >= RECORD_HEADER:
            missing = self._record_size(self._pending, 0) - len(self._pending)
            self._pending += view[taken : taken + missing]
            taken += missing
        return min(taken, len(view))

    def _is_complete(self) -> bool:
        held = len(self._pending)
        return held >= RECORD_HEADER and held == self._record_size(self._pending, 0)


def _aead(cipher: CipherState) -> AESGCM | ChaCha20Poly1305:
    if cipher.aead is None:
        raise LocalProtocolError("record: the cipher has no key, the handshake is not finished")
    return cipher.aead
