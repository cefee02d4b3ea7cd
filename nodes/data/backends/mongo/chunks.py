"""Chunks of GridFS: how many, how large, and the check that each carries.

A chunk is ``{files_id, n, data}`` as the GridFS specification has it, and ``crc``: the CRC-32 of
the file's id, the number and the bytes. So a chunk that is damaged, short, missing or in another's
place is found by itself, whichever range is read.
"""

import hashlib
import zlib
from collections.abc import Iterable, Sequence

from alpyne_grid.nodes.data.backends.base import Data
from alpyne_grid.nodes.data.backends.mongo.schema import Doc
from alpyne_grid.nodes.data.records import ObjectCorrupt
from bson import ObjectId

CHUNK = 255 * 1024  # bytes, as GridFS has it by default; see docs/decisions/mongodb-transactions.md
NUMBER_SIZE = 8


class ChunkMissing(ObjectCorrupt):
    """A chunk is not there; it may have moved to another file that holds the same bytes."""


class Cutter:
    """Makes chunks of a body, in order; feed it from one thread at a time."""

    def __init__(self, file: ObjectId) -> None:
        self._file = file
        self._next = 0
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of all that was cut."""
        return self._hash.digest()

    def cut(self, bodies: Iterable[Sequence[Data]]) -> list[Doc]:
        """Return a chunk for each of ``bodies``: pieces of CHUNK bytes, less for the last one."""
        made = []
        for pieces in bodies:
            data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
            self._hash.update(data)
            self.size += len(data)
            number, self._next = self._next, self._next + 1
            check = check_of(self._file, number, data)
            made.append({"files_id": self._file, "n": number, "data": data, "crc": check})
        return made


def check_of(file: ObjectId, number: int, data: bytes) -> int:
    """Return the CRC-32 of a chunk's place and bytes."""
    place = file.binary + number.to_bytes(NUMBER_SIZE, "big")
    return zlib.crc32(data, zlib.crc32(place))


def count_of(size: int, chunk: int) -> int:
    """Return how many chunks a file of ``size`` bytes has."""
    return -(-size // chunk)


def checked(doc: Doc | None, file: ObjectId, number: int, size: int, chunk: int) -> bytes:
    """Return the bytes of chunk ``number`` of a file, from what was found of it.

    size: of the whole file. chunk: bytes of each but its last. Raises ObjectCorrupt.
    """
    if doc is None:
        raise ChunkMissing(f"chunk {number} is missing")
    data = doc.get("data", b"")
    expected = min(chunk, size - number * chunk)
    if type(data) is not bytes or len(data) != expected:
        raise ObjectCorrupt(f"chunk {number} has {len(data)} bytes, expected {expected}")
    if check_of(file, number, data) != doc.get("crc"):
        raise ObjectCorrupt(f"chunk {number} has a wrong checksum")
    return data
