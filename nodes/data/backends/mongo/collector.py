"""Removes chunks that no version names: of bodies that were cut short, and of versions swept.

Every such file stands in ``unnamed``. One that this daemon is writing, or somebody is reading, is
left alone; so is one that a commit without an answer may have named. A body that was cut short by a
lost connection is removed twice, with some time between: an insert of its chunks may have been
under way still.
"""

import asyncio
import contextlib
import time

from alpyne_grid.nodes.data.backends.mongo.content import Shelf
from alpyne_grid.nodes.data.backends.mongo.link import MongoLink
from alpyne_grid.nodes.data.backends.mongo.schema import FILES, OWNER, Doc
from alpyne_grid.nodes.data.backends.mongo.staging import Stages, remove_chunks
from alpyne_grid.nodes.data.backends.mongo.transactions import Transactor
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.wire.log import Log
from bson import ObjectId

PAGE = 256
TWICE_AFTER_S = 30.0  # the least time between the two removals


class Collector:
    """Goes through ``unnamed`` in the background."""

    def __init__(
        self, link: MongoLink, transactor: Transactor, stages: Stages, shelf: Shelf
    ) -> None:
        self._link = link
        self._transactor = transactor
        self._stages = stages
        self._shelf = shelf
        self._removed_at: dict[ObjectId, float] = {}  # once; the second time is due later
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._log = Log("data.mongodb")

    def collect_soon(self) -> None:
        """Begin, or begin again behind what is being done."""
        self._again = True
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def collected(self) -> None:
        """Return when what was begun is done."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    async def close(self) -> None:
        """Stop; the next start goes on."""
        self._again = False
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._collect()
        except StoreFailed as error:
            self._log.warning("collecting_failed", error=error)  # the next sweep begins again
        finally:
            self._task = None

    async def _collect(self) -> None:
        removed = 0
        last: Doc = {}
        while page := await self._page(last):
            for note in page:
                removed += await self._remove(note)
            last = {"_id": {"$gt": page[-1]["_id"]}}
        if removed:
            self._log.info("files_removed", files=removed)

    async def _page(self, behind: Doc) -> list[Doc]:
        link = self._link
        async with link.reading("looking for files without a name") as session:
            found = link["unnamed"].find(behind, session=session).sort("_id").limit(PAGE)
            page = await found.to_list()
            # Behind the page: where another daemon has the database, its files may be among them.
            mine = {"_id": OWNER, "run": self._transactor.run_name}
            return page if await link[OWNER].find_one(mine, {"_id": 1}, session=session) else []

    async def _remove(self, note: Doc) -> bool:
        """Remove the chunks of one file unless it is in use; return whether that is done."""
        file = note["_id"]
        is_used = file in self._stages.unnamed or file in self._shelf.reading
        if is_used or self._transactor.in_doubt(file):
            return False
        async with self._link.reading("looking a file up") as session:
            if await self._link[FILES].find_one({"_id": file}, {"_id": 1}, session=session):
                return False  # it was named since the page was read
        await remove_chunks(self._link, file)
        before = self._removed_at.setdefault(file, time.monotonic())
        if not note.get("out") and time.monotonic() - before < TWICE_AFTER_S:
            return False
        with self._link.deadline("forgetting a removed file"):
            await self._link["unnamed"].delete_one({"_id": file})
        self._removed_at.pop(file, None)
        return True
