"""The seam of all back ends on MongoDB; see the package for its parts."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from alpyne_grid.nodes.data.backends.base import PAGE, BackendSetup, Content, Stage
from alpyne_grid.nodes.data.backends.mongo.changes import blob_of
from alpyne_grid.nodes.data.backends.mongo.collector import Collector
from alpyne_grid.nodes.data.backends.mongo.commits import Committer
from alpyne_grid.nodes.data.backends.mongo.content import MongoContent, Shelf
from alpyne_grid.nodes.data.backends.mongo.link import MongoLink
from alpyne_grid.nodes.data.backends.mongo.ownership import claim, look, node_name
from alpyne_grid.nodes.data.backends.mongo.probing import inspect
from alpyne_grid.nodes.data.backends.mongo.retention import sweep
from alpyne_grid.nodes.data.backends.mongo.schema import (
    FILES,
    LISTED,
    Doc,
    box_of,
    boxes_of,
    container_entry,
    path_bounds,
    record_of,
)
from alpyne_grid.nodes.data.backends.mongo.settings import OPTIONS, read_settings
from alpyne_grid.nodes.data.backends.mongo.staging import Stages
from alpyne_grid.nodes.data.backends.mongo.transactions import Transactor
from alpyne_grid.nodes.data.records import (
    Change,
    ContainerEntry,
    Cutoffs,
    Descriptor,
    Found,
    ObjectKey,
    ObjectPage,
    ObjectRecord,
    ObjectSpan,
    Publish,
    Refresh,
    Staged,
    Swept,
    Usage,
    Version,
)
from alpyne_grid.nodes.store import StoreFailed

SCAN = 1000  # documents that one page of a filtered list looks at, some milliseconds
RESERVE = 1 << 30  # bytes of the server's disk that contents leave free: mongod ends on a full one
RUN_SIZE = 16


class _Parts(NamedTuple):
    transactor: Transactor
    committer: Committer
    stages: Stages
    shelf: Shelf
    collector: Collector


class MongoBackend:
    """Keeps objects in a database of its own on a replica set, or on a sharded cluster."""

    options = OPTIONS

    def __init__(self, setup: BackendSetup) -> None:
        """Take ``setup``; nothing is connected yet. Raises ConfigError for its options."""
        self._folder = setup.folder
        self._settings = read_settings(setup.options)
        self._link: MongoLink | None = None
        self._parts: _Parts | None = None
        self._free: int | None = None  # bytes of the server's disk; None: not known

    @property
    def link(self) -> MongoLink:
        """The connection, once started."""
        assert self._link is not None, "start() comes first"
        return self._link

    @property
    def parts(self) -> "_Parts":
        """What works on the connection, once started."""
        assert self._parts is not None, "start() comes first"
        return self._parts

    async def check(self) -> str:
        """Say in one line what ``start`` would find; raises what it would raise."""
        link = MongoLink(self._settings)
        try:
            hello = await inspect(link)
            whose = await look(link, node_name(self._folder, make=False))
            version = (await link.client.server_info())["version"]
        finally:
            await link.close()
        kind = f"replica set {hello['setName']}" if "setName" in hello else "sharded cluster"
        members = len(hello.get("hosts", ())) or len(self._settings.hosts)
        return (
            f"MongoDB {version}, {kind} of {members} member{'' if members == 1 else 's'}, "
            f"{'TLS' if self._settings.tls else 'no TLS (this machine only)'}, database "
            f"{self._settings.database}: {whose}"
        )

    async def start(self) -> None:
        """Take the database, and begin to collect what an earlier run left.

        Raises ConfigError, StateError or OSError; each says what to do.
        """
        link = self._link = MongoLink(self._settings)
        await inspect(link)
        run_name = secrets.token_bytes(RUN_SIZE)
        session = link.client.start_session(causal_consistency=True)
        number = await claim(link, node_name(self._folder, make=True), run_name, session)
        transactor = Transactor(link, session, run_name, number)
        stages, shelf = Stages(link, run_name), Shelf(link)
        collector = Collector(link, transactor, stages, shelf)
        self._parts = _Parts(transactor, Committer(link, transactor), stages, shelf, collector)
        await self._look_for_room()
        collector.collect_soon()

    async def close(self) -> None:
        """Finish commits, end threads and connections."""
        if self._parts is not None:
            await self._parts.committer.close()
            await self._parts.collector.close()
            self._parts.stages.threads.shutdown(wait=False)
            await self._parts.transactor.close()
        if self._link is not None:
            await self._link.close()

    # ---- names ----

    async def usages(self) -> Mapping[bytes, Usage]:
        """Return what each account keeps."""
        async with self.link.reading("reading usages") as session:
            found = await self.link["usages"].find(session=session).sort("_id").to_list()
        return {doc["_id"]: Usage(int(doc["size_bytes"]), int(doc["rows"])) for doc in found}

    async def look_up(self, key: ObjectKey, job_id: bytes) -> Found:
        """Return what stands under ``key``, and the fence of ``job_id``."""
        place = {"box": box_of(key), "path": key.path}
        container, current, fence = await asyncio.gather(
            self._one("containers", {"_id": box_of(key)}),
            self._one("objects", place),
            self._one("fences", {"_id": key.owner + job_id} if job_id else None),
        )
        if container is None:
            return Found(False)
        pair = (int(fence["allocation"]), int(fence["attempt"])) if fence else (0, 0)
        return Found(True, record_of(current) if current else None, pair)

    async def container(self, owner: bytes, container_id: bytes) -> Descriptor | None:
        """Return the descriptor of a container of ``owner``."""
        doc = await self._one("containers", {"_id": owner + container_id})
        return container_entry(doc).descriptor if doc else None

    async def containers(
        self, owner: bytes, after: bytes, limit: int = PAGE
    ) -> Sequence[ContainerEntry]:
        """Return containers in order of their ids."""
        async with self.link.reading("listing containers") as session:
            wanted = {"_id": boxes_of(owner, after)}
            found = self.link["containers"].find(wanted, session=session).sort("_id").limit(limit)
            return [container_entry(doc) for doc in await found.to_list()]

    async def objects(
        self,
        owner: bytes,
        container_id: bytes,
        span: ObjectSpan,
        accepts: Callable[[str], bool] | None,
        limit: int = PAGE,
    ) -> ObjectPage | None:
        """Return the next objects in path order."""
        most = SCAN if accepts is not None else limit
        box = owner + container_id
        container, docs = await asyncio.gather(
            self._one("containers", {"_id": box}), self._listed(box, span, most)
        )
        if container is None:
            return None
        rows: list[tuple[str, ObjectRecord]] = []
        for doc in docs:
            if accepts is None or accepts(doc["path"]):
                rows.append((doc["path"], record_of(doc)))
                if len(rows) == limit:
                    return ObjectPage(tuple(rows), doc["path"])
        return ObjectPage(tuple(rows), docs[-1]["path"] if len(docs) == most else None)

    async def commit(self, changes: Sequence[Change]) -> None:
        """Return when ``changes`` are durable on a majority. Raises StoreFailed."""
        await self.parts.committer.commit(changes)
        for change in changes:
            if isinstance(change, Publish | Refresh) and change.staged is not None:
                self.parts.stages.unnamed.discard(blob_of(change.staged).stored.file)

    async def sweep(self, cutoffs: Cutoffs, limit: int) -> Swept:
        """Take away what is older than ``cutoffs``; its bytes go in the background."""
        swept = await sweep(self.link, self.parts.transactor, cutoffs, limit)
        self.parts.collector.collect_soon()
        await self._look_for_room()
        return swept

    # ---- bytes ----

    def stage(self, owner: bytes, size: int) -> Stage:
        """Begin to take a body. Raises StoreFailed where the server's disk has no room for it."""
        if self._free is not None:
            if size > self._free - RESERVE:
                raise StoreFailed(
                    f"{self._settings.place}: its disk has {self._free} bytes left, {RESERVE} of "
                    f"them kept free; {size} bytes do not fit; put the object on another node"
                )
            self._free -= size
        return self.parts.stages.begin(owner, size)

    async def discard(self, staged: Staged) -> None:
        """Remove a staged body unless a version names it."""
        blob = blob_of(staged)
        file = blob.stored.file
        if blob.chunks is not None:
            return
        try:
            is_named = await self._one(FILES, {"_id": file})
            if is_named is None and not self.parts.transactor.in_doubt(file):
                await self.parts.stages.forget(file)
        finally:
            self.parts.stages.unnamed.discard(file)  # what is left is the collector's

    async def open(self, key: ObjectKey, version: Version | None) -> Content | ObjectRecord | None:
        """Return the bytes of the current version, or of exactly ``version``."""
        doc = await self.parts.shelf.find(key, version)
        if doc is None:
            return None
        return record_of(doc) if doc["deleted"] else MongoContent(self.parts.shelf, key, doc)

    # ---- health ----

    async def corrupt(self, owner: bytes, limit: int) -> Sequence[ObjectKey]:
        """Return objects that were found damaged and not put again since."""
        async with self.link.reading("looking for damaged objects") as session:
            wanted = {"damaged": True, "box": boxes_of(owner)}
            found = self.link["objects"].find(wanted, {"box": 1, "path": 1}, session=session)
            docs = await found.limit(limit).to_list()
        return [ObjectKey(owner, doc["box"][len(owner) :], doc["path"]) for doc in docs]

    # ---- parts ----

    async def _one(self, collection: str, wanted: Doc | None) -> Doc | None:
        if wanted is None:
            return None
        async with self.link.reading(f"reading {collection}") as session:
            return await self.link[collection].find_one(wanted, session=session)

    async def _listed(self, box: bytes, span: ObjectSpan, most: int) -> list[Doc]:
        wanted: Doc = {"box": box, "path": path_bounds(span.prefix, span.after)}
        if not span.tombstones:
            wanted["deleted"] = False
        async with self.link.reading("listing objects") as session:
            found = self.link["objects"].find(wanted, LISTED, session=session)
            return await found.sort("path").limit(most).to_list()

    async def _look_for_room(self) -> None:
        """Ask how much room the primary's disk has; a cluster may not say it."""
        with contextlib.suppress(StoreFailed), self.link.deadline("asking for room"):
            stats = await self.link.database.command("dbStats")
            if stats.get("fsTotalSize"):
                self._free = int(stats["fsTotalSize"] - stats["fsUsedSize"])
