"""The statements of the local back end, and rows as values; see local_schema.py."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from alpyne_grid.nodes.data.records import (
    Change,
    KeepContainer,
    ObjectKey,
    ObjectRecord,
    Publish,
    RaiseFence,
    Refresh,
    Version,
)
from alpyne_grid.nodes.store import Statement


@dataclass(frozen=True, slots=True)
class LocalBlob:
    """Content as the local back end keeps it: in a file, or in the row where ``file`` is empty."""

    file: str
    checks: bytes  # CRC-32 of each block, 4 bytes big-endian each
    data: bytes = b""


_CONTAINER = "(SELECT no FROM data_containers WHERE owner = ? AND id = ?)"
_KEEP_CONTAINER = (
    "INSERT INTO data_containers (owner, id, name, copies, members, counter, writer) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, id) DO UPDATE SET name = excluded.name, "
    "copies = excluded.copies, members = excluded.members, counter = excluded.counter, "
    "writer = excluded.writer"
)
_ADD_BLOB = (
    "INSERT INTO data_blobs (owner, sha256, size, refs, file, checks, data) "
    "VALUES (?, ?, ?, 1, ?, ?, ?) ON CONFLICT (owner, sha256) DO UPDATE SET refs = refs + 1, "
    "damaged = 0, file = excluded.file, checks = excluded.checks, data = excluded.data"
)
_REPLACE_BLOB = (
    "UPDATE data_blobs SET damaged = 0, file = ?, checks = ?, data = ? "
    "WHERE owner = ? AND sha256 = ?"
)
_SUPERSEDE = (
    "INSERT INTO data_superseded "
    "SELECT container, path, counter, writer, size, sha256, modified_ms, blob, ? "
    f"FROM data_objects WHERE container = {_CONTAINER} AND path = ?"
)
_SET_OBJECT = (
    f"INSERT INTO data_objects VALUES ({_CONTAINER}, ?, ?, ?, ?, ?, ?, ?, "
    "(SELECT no FROM data_blobs WHERE owner = ? AND sha256 = ?)) "
    "ON CONFLICT (container, path) DO UPDATE SET counter = excluded.counter, "
    "writer = excluded.writer, size = excluded.size, sha256 = excluded.sha256, "
    "deleted = excluded.deleted, modified_ms = excluded.modified_ms, blob = excluded.blob"
)
_COUNT = (
    "UPDATE data_containers SET objects = objects + ?, size_bytes = size_bytes + ?, "
    "kept_bytes = kept_bytes + ?, kept_rows = kept_rows + ? WHERE owner = ? AND id = ?"
)
_RAISE_FENCE = (
    "INSERT INTO data_fences VALUES (?, ?, ?, ?, ?) ON CONFLICT (owner, job) DO UPDATE SET "
    "allocation = excluded.allocation, attempt = excluded.attempt, at_ms = excluded.at_ms "
    "WHERE (excluded.allocation, excluded.attempt) >= (allocation, attempt)"
)


def statements(changes: Iterable[Change]) -> Iterator[Statement]:
    """Yield the SQL of ``changes``; blobs were made by the local back end."""
    for change in changes:
        if isinstance(change, Publish):
            yield from _publish(change)
        elif isinstance(change, KeepContainer):
            kept = change.descriptor
            yield (
                _KEEP_CONTAINER,
                (
                    change.owner,
                    kept.container_id,
                    kept.name,
                    kept.copies,
                    b"".join(kept.members),
                    *kept.version,
                ),
            )
        elif isinstance(change, Refresh):
            staged = change.staged
            blob = blob_of(staged.handle)
            yield (
                _REPLACE_BLOB,
                (blob.file, blob.checks, blob.data, staged.owner, staged.sha256),
            )
        else:
            yield _raise_fence(change)


def blob_of(handle: object) -> LocalBlob:
    """Return the handle of a staged body as what this back end made it."""
    assert isinstance(handle, LocalBlob)
    return handle


def record_of(row: tuple[int, bytes, int, bytes, int, int]) -> ObjectRecord:
    """Return the version of a row (counter, writer, size, sha256, deleted, modified_ms)."""
    counter, writer, size, sha256, deleted, modified_ms = row
    return ObjectRecord(Version(counter, writer), size, sha256, bool(deleted), modified_ms)


def _publish(change: Publish) -> Iterator[Statement]:
    key, record, previous, staged = change.key, change.record, change.previous, change.staged
    container = (key.owner, key.container_id)
    was_live = previous is not None and not previous.deleted
    if staged is not None:
        blob = blob_of(staged.handle)
        values = (key.owner, staged.sha256, staged.size, blob.file, blob.checks, blob.data)
        yield _ADD_BLOB, values
    if was_live:
        yield _SUPERSEDE, (change.at_ms, *container, key.path)
    yield _SET_OBJECT, (*container, key.path, *_columns(record), key.owner, record.sha256)
    was_size = previous.size if previous is not None and was_live else 0
    adds = change.adds
    yield (
        _COUNT,
        ((not record.deleted) - was_live, record.size - was_size, *adds, *container),
    )


def _columns(record: ObjectRecord) -> tuple[int, bytes, int, bytes, int, int]:
    return (
        *record.version,
        record.size,
        record.sha256,
        int(record.deleted),
        record.modified_at_ms,
    )


def _raise_fence(change: RaiseFence) -> Statement:
    return _RAISE_FENCE, (change.owner, *change.epoch, change.at_ms)


# ---- questions ----

_RECORD = "{0}.counter, {0}.writer, {0}.size, {0}.sha256, {1}, {0}.modified_ms"
# Of a file only what names it; the checks of a large one are read as they are needed.
_BLOB = "b.file, CASE b.file WHEN '' THEN b.checks END, b.data"

LOOK_UP = (
    f"SELECT {_RECORD.format('o', 'o.deleted')} FROM data_containers c "
    "LEFT JOIN data_objects o ON o.container = c.no AND o.path = ? WHERE c.owner = ? AND c.id = ?"
)
FENCE = "SELECT allocation, attempt FROM data_fences WHERE owner = ? AND job = ?"
USAGES = (
    "SELECT owner, sum(bytes), sum(names) FROM ("
    "SELECT owner, kept_bytes AS bytes, kept_rows AS names FROM data_containers UNION ALL "
    "SELECT owner, 0, count(*) FROM data_fences GROUP BY owner) GROUP BY owner"
)
CONTAINER = (
    "SELECT id, name, copies, members, counter, writer, objects, size_bytes "
    "FROM data_containers WHERE owner = ? AND id = ?"
)
CONTAINERS = (
    "SELECT id, name, copies, members, counter, writer, objects, size_bytes "
    "FROM data_containers WHERE owner = ? AND id > ? ORDER BY id LIMIT ?"
)
CONTAINER_NUMBER = "SELECT no FROM data_containers WHERE owner = ? AND id = ?"
OBJECTS = (
    f"SELECT path, {_RECORD.format('data_objects', 'deleted')} FROM data_objects "
    "WHERE container = ? AND path > ? AND path >= ? AND path < ? AND deleted <= ? "
    "ORDER BY path LIMIT ?"
)
OPEN_CURRENT = (
    f"SELECT {_RECORD.format('o', 'o.deleted')}, {_BLOB} FROM data_containers c "
    "JOIN data_objects o ON o.container = c.no AND o.path = ? "
    "LEFT JOIN data_blobs b ON b.no = o.blob WHERE c.owner = ? AND c.id = ?"
)
OPEN_SUPERSEDED = (
    f"SELECT {_RECORD.format('s', '0')}, {_BLOB} FROM data_containers c "
    "JOIN data_superseded s ON s.container = c.no AND s.path = ? AND s.counter = ? "
    "AND s.writer = ? LEFT JOIN data_blobs b ON b.no = s.blob WHERE c.owner = ? AND c.id = ?"
)
FILE_AND_CHECKS = "SELECT file, substr(checks, ?, ?) FROM data_blobs WHERE owner = ? AND sha256 = ?"
BLOB_FILE = "SELECT file FROM data_blobs WHERE owner = ? AND sha256 = ?"
FILES_BETWEEN = (
    "SELECT file FROM data_blobs WHERE owner = ? AND sha256 >= ? AND sha256 < ? AND file <> ''"
)
DAMAGED = (
    "SELECT c.id, d.path FROM data_damaged d JOIN data_containers c ON c.no = d.container "
    "JOIN data_objects o ON o.container = d.container AND o.path = d.path "
    "JOIN data_blobs b ON b.no = o.blob AND b.damaged = 1 WHERE d.owner = ? LIMIT ?"
)
OLD_SUPERSEDED = (
    "SELECT s.container, s.path, s.counter, s.writer, c.owner, s.size FROM data_superseded s "
    "JOIN data_containers c ON c.no = s.container WHERE s.at_ms < ? ORDER BY s.at_ms LIMIT ?"
)
OLD_TOMBSTONES = (
    "SELECT o.container, o.path, o.counter, o.writer, c.owner, 0 FROM data_objects o "
    "JOIN data_containers c ON c.no = o.container WHERE o.deleted = 1 AND o.modified_ms < ? LIMIT ?"
)
DROP_SUPERSEDED = (
    "DELETE FROM data_superseded WHERE container = ? AND path = ? AND counter = ? AND writer = ?"
)
DROP_TOMBSTONE = (
    "DELETE FROM data_objects WHERE container = ? AND path = ? AND counter = ? AND writer = ? "
    "AND deleted = 1"
)
OLD_FENCES = "SELECT owner, job, at_ms FROM data_fences WHERE at_ms < ? ORDER BY at_ms LIMIT ?"
DROP_FENCE = "DELETE FROM data_fences WHERE owner = ? AND job = ? AND at_ms = ?"
MARK_DAMAGED = "UPDATE data_blobs SET damaged = 1 WHERE owner = ? AND sha256 = ? AND file = ?"
NOTE_DAMAGED = f"INSERT OR IGNORE INTO data_damaged VALUES (?, {_CONTAINER}, ?)"
TRASH = "SELECT no, owner, file FROM data_trash ORDER BY no LIMIT ?"
DROP_TRASH = "DELETE FROM data_trash WHERE no = ?"


def path_bounds(prefix: str) -> tuple[str, str]:
    """Return the lowest path with ``prefix``, and one above all of them, in SQLite's order."""
    # No path is longer than 1,024 bytes, so none with the prefix lies above this.
    return prefix, prefix + "\U0010ffff" * 257


def key_text(key: ObjectKey) -> str:
    """Return how messages name an object."""
    return f"object {key.path!a} of container {key.container_id.hex()}"
