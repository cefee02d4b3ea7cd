"""The tables of the local back end, in the node's SQLite file.

    data_containers  one row each, with what is kept in it
    data_objects     the current version of each path, tombstones too
    data_superseded  versions that were current within the last hour
    data_blobs       content by account and SHA-256, with the number of versions that name it
    data_fences      the highest execution seen of each job
    data_damaged     paths that were found damaged; true while their blob is marked
    data_trash       files that no blob names any more, until they are unlinked

Small contents stand in the row (``data``), so that one commit makes many small puts durable.
"""

from alpyne_grid.nodes.store import Schema

SCHEMA = Schema(
    "data",
    (
        """
CREATE TABLE data_containers (
    no INTEGER PRIMARY KEY,
    owner BLOB NOT NULL,
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    copies INTEGER NOT NULL,
    members BLOB NOT NULL,
    counter INTEGER NOT NULL,
    writer BLOB NOT NULL,
    objects INTEGER NOT NULL DEFAULT 0,
    size_bytes INTEGER NOT NULL DEFAULT 0,
    kept_bytes INTEGER NOT NULL DEFAULT 0,
    kept_rows INTEGER NOT NULL DEFAULT 1,
    UNIQUE (owner, id)
);
CREATE TABLE data_objects (
    container INTEGER NOT NULL,
    path TEXT NOT NULL,
    counter INTEGER NOT NULL,
    writer BLOB NOT NULL,
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    deleted INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL,
    blob INTEGER,
    PRIMARY KEY (container, path)
) WITHOUT ROWID;
CREATE INDEX data_tombstones ON data_objects (modified_ms) WHERE deleted = 1;
CREATE TABLE data_superseded (
    container INTEGER NOT NULL,
    path TEXT NOT NULL,
    counter INTEGER NOT NULL,
    writer BLOB NOT NULL,
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    modified_ms INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (container, path, counter, writer)
) WITHOUT ROWID;
CREATE INDEX data_superseded_at ON data_superseded (at_ms);
CREATE TABLE data_blobs (
    no INTEGER PRIMARY KEY,
    owner BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL,
    refs INTEGER NOT NULL,
    damaged INTEGER NOT NULL DEFAULT 0,
    file TEXT NOT NULL,
    checks BLOB NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (owner, sha256)
);
CREATE TABLE data_fences (
    owner BLOB NOT NULL,
    job BLOB NOT NULL,
    allocation INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (owner, job)
) WITHOUT ROWID;
CREATE INDEX data_fences_at ON data_fences (at_ms);
CREATE TABLE data_damaged (
    owner BLOB NOT NULL,
    container INTEGER NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (owner, container, path)
) WITHOUT ROWID;
CREATE TABLE data_trash (no INTEGER PRIMARY KEY, owner BLOB NOT NULL, file TEXT NOT NULL);
CREATE TRIGGER data_superseded_gone AFTER DELETE ON data_superseded BEGIN
    UPDATE data_blobs SET refs = refs - 1 WHERE no = OLD.blob;
    UPDATE data_containers SET kept_bytes = kept_bytes - OLD.size, kept_rows = kept_rows - 1
        WHERE no = OLD.container;
END;
CREATE TRIGGER data_object_gone AFTER DELETE ON data_objects BEGIN
    UPDATE data_containers SET kept_rows = kept_rows - 1 WHERE no = OLD.container;
END;
CREATE TRIGGER data_blob_unnamed AFTER UPDATE OF refs ON data_blobs WHEN NEW.refs = 0 BEGIN
    DELETE FROM data_blobs WHERE no = NEW.no;
END;
CREATE TRIGGER data_blob_gone AFTER DELETE ON data_blobs WHEN OLD.file <> '' BEGIN
    INSERT INTO data_trash (owner, file) VALUES (OLD.owner, OLD.file);
END;
CREATE TRIGGER data_blob_replaced AFTER UPDATE OF file ON data_blobs
    WHEN OLD.file <> '' AND OLD.file <> NEW.file
BEGIN
    INSERT INTO data_trash (owner, file) VALUES (OLD.owner, OLD.file);
END
""",
    ),
)
