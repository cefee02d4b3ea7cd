"""What a batch of changes makes of the documents: in memory, from what was read of them.

A draft holds all documents that one transaction touches. Batches are put into it one by one; one
that cannot happen leaves no trace in it, so that it fails alone. What results is written at the
end, each document once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from alpyne_grid.nodes.data.backends.mongo.schema import (
    CHUNKS,
    FILES,
    INT_MAX,
    Box,
    Doc,
    StoredFile,
    box_of,
    container_doc,
    file_doc,
    note_out,
    record_of,
    version_doc,
)
from alpyne_grid.nodes.data.records import (
    Change,
    KeepContainer,
    ObjectKey,
    ObjectRecord,
    Publish,
    RaiseFence,
    Refresh,
    Staged,
    Usage,
)
from bson import ObjectId
from pymongo import DeleteMany, InsertOne, ReplaceOne, UpdateOne

Place = tuple[Box, str]
Write = InsertOne[Doc] | ReplaceOne[Doc] | UpdateOne | DeleteMany


class ChangeRefused(Exception):
    """A batch does not fit what stands in the database."""


@dataclass(frozen=True, slots=True)
class MongoBlob:
    """A staged body. ``chunks``: of a small one, which the commit writes; None: they lie there."""

    stored: StoredFile
    chunks: tuple[Doc, ...] | None = None


@dataclass(slots=True)
class Draft:
    """Documents as a transaction will leave them; read by ``_id``, or by box and path."""

    containers: dict[Box, Doc] = field(default_factory=dict)
    objects: dict[Place, Doc] = field(default_factory=dict)
    fences: dict[bytes, Doc] = field(default_factory=dict)
    usages: dict[bytes, Usage] = field(default_factory=dict)  # by how much they change
    superseded: list[Doc] = field(default_factory=list)
    files: dict[ObjectId, Doc] = field(default_factory=dict)
    chunks: list[Doc] = field(default_factory=list)
    named: list[ObjectId] = field(default_factory=list)  # files that leave `unnamed`
    unnamed: list[ObjectId] = field(default_factory=list)  # files that come to `unnamed`
    _changed: set[tuple[str, Any]] = field(default_factory=set)
    _undo: list[Callable[[], object]] = field(default_factory=list)

    def take(self, changes: Iterable[Change]) -> None:
        """Put a batch into the draft. Raises ChangeRefused; then nothing of it is in it."""
        self._undo.clear()
        try:
            for change in changes:
                self._take(change)
        except ChangeRefused:
            while self._undo:
                self._undo.pop()()
            raise

    def writes(self, run: bytes) -> dict[str, list[Write]]:
        """Return what to write, by collection. run: of this daemon."""
        # A body that another one of the same draft replaced: as if it were discarded.
        dropped = self.files.keys() & set(self.unnamed)
        named = [file for file in self.named if file not in dropped]
        unnamed = [file for file in self.unnamed if file not in dropped]
        found: dict[str, list[Write]] = {
            "containers": [self._write(self.containers[box]) for box in self._of("containers")],
            "objects": [self._write(self.objects[place]) for place in self._of("objects")],
            "fences": [self._write(self.fences[job]) for job in self._of("fences")],
            "superseded": [InsertOne(doc) for doc in self.superseded],
            FILES: [InsertOne(doc) for file, doc in self.files.items() if file not in dropped],
            CHUNKS: [InsertOne(doc) for doc in self.chunks if doc["files_id"] not in dropped],
            "unnamed": [InsertOne(note_out(file, run)) for file in unnamed],
            "usages": [
                UpdateOne(
                    {"_id": owner},
                    {"$inc": {"size_bytes": more.size_bytes, "rows": more.rows}},
                    upsert=True,
                )
                for owner, more in self.usages.items()
                if more != Usage()
            ],
        }
        if named:
            found["unnamed"].append(DeleteMany({"_id": {"$in": named}}))
        if unnamed:
            found[FILES].append(DeleteMany({"_id": {"$in": unnamed}}))
        return {collection: writes for collection, writes in found.items() if writes}

    # ---- changes ----

    def _take(self, change: Change) -> None:
        if isinstance(change, Publish):
            self._publish(change)
        elif isinstance(change, KeepContainer):
            kept = change.descriptor
            box = change.owner + kept.container_id
            before = self.containers.get(box)
            self._set(self.containers, "containers", box, container_doc(box, kept, before))
            self._count(change.owner, Usage(0, int(before is None)))
        elif isinstance(change, Refresh):
            self._refresh(change)
        else:
            self._raise_fence(change)

    def _publish(self, change: Publish) -> None:
        key, record = change.key, change.record
        box = box_of(key)
        container = self.containers.get(box)
        if container is None:
            raise ChangeRefused(f"container {key.container_id.hex()} is not known")
        _check_numbers(record.version.counter)
        before = self.objects.get((box, key.path))
        _check_previous(key, before, change.previous)
        stored = self._store(key, record, change.staged) if change.staged else None
        was_live = before is not None and not before["deleted"]
        if before is not None and was_live:
            kept = {name: before[name] for name in version_doc(record, stored)}
            self._append(
                self.superseded, {"box": box, "path": key.path, "at_ms": change.at_ms, **kept}
            )
        number = before["_id"] if before else ObjectId()
        doc = {"_id": number, "box": box, "path": key.path, **version_doc(record, stored)}
        self._set(self.objects, "objects", (box, key.path), doc)
        was_size = before["size"] if before is not None and was_live else 0
        self._set(
            self.containers,
            "containers",
            box,
            {
                **container,
                "objects": container["objects"] + (not record.deleted) - was_live,
                "size_bytes": container["size_bytes"] + record.size - was_size,
            },
        )
        self._count(key.owner, Usage(record.size, int(before is None or was_live)))

    def _refresh(self, change: Refresh) -> None:
        key = change.key
        box = box_of(key)
        before = self.objects.get((box, key.path))
        if before is None or before["sha256"] != change.staged.sha256:
            raise ChangeRefused(f"object {key.path!a} has changed meanwhile")
        record = record_of(before)
        stored = self._store(key, record, change.staged)
        doc = {"_id": before["_id"], "box": box, "path": key.path, **version_doc(record, stored)}
        self._set(self.objects, "objects", (box, key.path), doc)
        self._append(self.unnamed, before["file"])

    def _raise_fence(self, change: RaiseFence) -> None:
        job_id, *pair = change.epoch
        _check_numbers(*pair)
        number = change.owner + job_id
        before = self.fences.get(number)
        if before is not None and [before["allocation"], before["attempt"]] > pair:
            return
        doc = {"_id": number, "allocation": pair[0], "attempt": pair[1], "at_ms": change.at_ms}
        self._set(self.fences, "fences", number, doc)
        self._count(change.owner, Usage(0, int(before is None)))

    # ---- parts, each of which can be undone ----

    def _store(self, key: ObjectKey, record: ObjectRecord, staged: Staged) -> StoredFile:
        blob = blob_of(staged)
        file = blob.stored.file
        self._set(self.files, "files", file, file_doc(key, record, blob.stored))
        if blob.chunks is None:
            self._append(self.named, file)
        for chunk in blob.chunks or ():
            self._append(self.chunks, chunk)
        return blob.stored

    def _count(self, owner: bytes, more: Usage) -> None:
        used = self.usages.get(owner, Usage())
        total = Usage(used.size_bytes + more.size_bytes, used.rows + more.rows)
        self._set(self.usages, "usages", owner, total)

    def _set(self, table: dict[Any, Any], name: str, key: Any, value: object) -> None:
        if (name, key) not in self._changed:
            self._changed.add((name, key))
            self._undo.append(lambda: self._changed.discard((name, key)))
        if key in table:
            before = table[key]
            self._undo.append(lambda: table.__setitem__(key, before))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def _append(self, rows: list[Any], row: object) -> None:
        rows.append(row)
        self._undo.append(rows.pop)

    def _of(self, name: str) -> list[Any]:
        return [key for table, key in self._changed if table == name]

    def _write(self, doc: Doc) -> Write:
        return ReplaceOne({"_id": doc["_id"]}, doc, upsert=True)


def blob_of(staged: Staged) -> MongoBlob:
    """Return the handle of a staged body as what this back end made it."""
    assert isinstance(staged.handle, MongoBlob)
    return staged.handle


def _check_previous(key: ObjectKey, before: Doc | None, previous: ObjectRecord | None) -> None:
    """Raise ChangeRefused where the object table judged by another version than stands there."""
    if before is None and (previous is None or previous.deleted):
        return  # a tombstone may have been swept meanwhile
    if before is None or previous is None or record_of(before).version != previous.version:
        raise ChangeRefused(f"object {key.path!a} has changed meanwhile")


def _check_numbers(*numbers: int) -> None:
    if max(numbers) > INT_MAX:
        raise ChangeRefused(f"expected numbers of at most {INT_MAX}, got {max(numbers)}")
