"""The collections of one data node in its database, their indexes, and documents as values.

    owner            one document: whose database this is, and the number of its last commit
    containers       _id: account's key and container's id; descriptor, and what is in it
    objects          the current version of each path, tombstones too
    superseded       versions that were current within the last hour
    fences           _id: account's key and job's id; the highest execution seen
    usages           _id: account's key; what it keeps
    unnamed          _id of each file in GridFS that has chunks but no name: on its way in, or out
    contents.files   GridFS: a document for each content that a version names
    contents.chunks  GridFS: the bytes, each chunk with a CRC-32 of its place and bytes

A chunk's file is always in ``unnamed`` or in ``contents.files``: chunks are written after the one
and the commit moves the name to the other, so that whatever is left by a crash can be found without
looking through all chunks.

``box`` is what ``containers`` has as ``_id``. Keys of one length sort as their bytes do, and
strings as their UTF-8 bytes; both is relied on.
"""

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

from alpyne_grid.nodes.data.records import (
    ContainerEntry,
    Descriptor,
    ObjectKey,
    ObjectRecord,
    Version,
)
from bson import ObjectId
from bson.int64 import Int64
from pymongo import ASCENDING, IndexModel

FORMAT = 1  # of these documents; a newer one is refused
BUCKET = "contents"
FILES = f"{BUCKET}.files"
CHUNKS = f"{BUCKET}.chunks"
OWNER = "owner"
INT_MAX = (1 << 63) - 1  # the largest whole number of a document

Doc = dict[str, Any]
Box = bytes  # account's key and container's id: 48 bytes


class StoredFile(NamedTuple):
    """Where the bytes of a version are. ``chunk``: bytes of each chunk but the last."""

    file: ObjectId
    chunk: int


def _index(*keys: str, **more: Any) -> IndexModel:
    return IndexModel([(key, ASCENDING) for key in keys], **more)


# Every query of the back end goes by one of these, or by ``_id``.
INDEXES: Mapping[str, tuple[IndexModel, ...]] = {
    OWNER: (),
    "containers": (),
    "objects": (
        # look-ups, and lists in path order
        _index("box", "path", unique=True),
        # the sweep's tombstones, the oldest first; only tombstones cost an entry
        _index("modified_ms", partialFilterExpression={"deleted": True}),
        # what was found damaged
        _index("box", name="damaged", partialFilterExpression={"damaged": True}),
    ),
    "superseded": (
        # reads of an exact version
        _index("box", "path", "counter", "writer", unique=True),
        # the sweep, the oldest first
        _index("at_ms"),
    ),
    "fences": (_index("at_ms"),),  # the sweep, the oldest first
    "usages": (),
    "unnamed": (),
    FILES: (),
    # As the GridFS specification has it; a file's chunks are read and removed in ranges of n. It is
    # also the shard key: ids of files are random, so that they spread over the shards.
    CHUNKS: (_index("files_id", "n", unique=True),),
}


def box_of(key: ObjectKey) -> Box:
    """Return the container that an object stands in."""
    return key.owner + key.container_id


def boxes_of(owner: bytes, after: bytes = b"") -> Doc:
    """Return the condition for the boxes of an account with ids above ``after``."""
    lowest = {"$gt": owner + after} if after else {"$gte": owner + bytes(16)}
    return {**lowest, "$lte": owner + b"\xff" * 16}


def container_doc(box: Box, kept: Descriptor, before: Doc | None) -> Doc:
    """Return the document of a container; what is in it stays as it was ``before``."""
    return {
        "_id": box,
        "name": kept.name,
        "copies": kept.copies,
        "members": list(kept.members),
        "counter": kept.version.counter,
        "writer": kept.version.writer,
        "objects": before["objects"] if before else 0,
        "size_bytes": before["size_bytes"] if before else 0,
    }


def container_entry(doc: Doc) -> ContainerEntry:
    """Return a container's document as a value."""
    version = Version(int(doc["counter"]), doc["writer"])
    container_id = doc["_id"][32:]
    kept = Descriptor(container_id, doc["name"], doc["copies"], tuple(doc["members"]), version)
    return ContainerEntry(kept, int(doc["objects"]), int(doc["size_bytes"]))


def version_doc(record: ObjectRecord, stored: StoredFile | None) -> Doc:
    """Return the part of a document that says what a version is."""
    return {
        "counter": record.version.counter,
        "writer": record.version.writer,
        "size": record.size,
        "sha256": record.sha256,
        "deleted": record.deleted,
        "modified_ms": record.modified_at_ms,
        "file": stored.file if stored else None,
        "chunk": stored.chunk if stored else 0,
    }


VERSION_FIELDS = tuple(version_doc(ObjectRecord(Version(0, b"")), None))
LISTED = dict.fromkeys(("path", *VERSION_FIELDS[:6]), 1) | {"_id": 0}


def record_of(doc: Doc) -> ObjectRecord:
    """Return the version that a document of ``objects`` or ``superseded`` holds."""
    # Numbers of more than 32 bits are read as Int64 of bson, which the protocol does not write.
    return ObjectRecord(
        Version(int(doc["counter"]), doc["writer"]),
        int(doc["size"]),
        doc["sha256"],
        doc["deleted"],
        int(doc["modified_ms"]),
    )


def file_doc(key: ObjectKey, record: ObjectRecord, stored: StoredFile) -> Doc:
    """Return the document of GridFS for a version's bytes; any GridFS tool reads the file by it."""
    return {
        "_id": stored.file,
        "length": Int64(record.size),
        "chunkSize": stored.chunk,
        "uploadDate": datetime.datetime.now(datetime.UTC),
        "filename": f"{key.container_id.hex()}/{key.path}",
        "metadata": {"sha256": record.sha256},
    }


def note_in(file: ObjectId, run: bytes) -> Doc:
    """Return the note of a file that gets its chunks from the daemon ``run``."""
    return {"_id": file, "run": run}


def note_out(file: ObjectId, run: bytes) -> Doc:
    """Return the note of a file that no version names any more; nobody adds chunks to it."""
    return {"_id": file, "run": run, "out": True}


def path_bounds(prefix: str, after: str) -> Doc:
    """Return the condition for paths with ``prefix`` above ``after``."""
    # No path is longer than 1,024 bytes, so none with the prefix lies above this.
    below = {"$lt": prefix + "\U0010ffff" * 257}
    return {"$gt": after, **below} if after >= prefix else {"$gte": prefix, **below}
