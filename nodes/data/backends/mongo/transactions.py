"""Transactions, one at a time, and what became of a commit whose answer was lost.

Each transaction raises ``commits`` of the database's owner document from the number known here, and
leaves a mark of its own there. So it fails where another daemon has taken the database. And where
the answer to a commit was lost, the next transaction finds out what happened: the document has the
old number, then it cannot happen any more once this one is committed, because both wrote the same
document; or it has the next number, with the mark of the one that happened. Nothing that was
acknowledged is lost, and nothing is applied twice.

All transactions go through one session: a server that still holds one open, whose connection was
lost, drops it when the session begins the next. Otherwise it would hold its documents for a minute.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from alpyne_grid.nodes.data.backends.mongo.link import WRITES, MongoLink, Session, is_over
from alpyne_grid.nodes.data.backends.mongo.schema import OWNER
from alpyne_grid.nodes.data.records import Usage
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.wire.log import Log
from bson import ObjectId
from pymongo.errors import ConnectionFailure, PyMongoError
from pymongo.read_concern import ReadConcern

BACKOFF_S = (0.005, 0.02, 0.05, 0.1, 0.25)  # between attempts; the last one again and again
MARK_SIZE = 12
_SNAPSHOT = ReadConcern("snapshot")
_UNKNOWN = "UnknownTransactionCommitResult"
_TRANSIENT = "TransientTransactionError"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a transaction does beside its documents: usage by account, and files that get a name."""

    usages: Mapping[bytes, Usage] = field(default_factory=dict)
    files: frozenset[ObjectId] = frozenset()


T = TypeVar("T")
Body = Callable[[Session], Awaitable[tuple[T, Effect]]]


class _Happened(Exception):
    """The number has risen by a transaction whose answer was lost; ``mark``: which."""

    def __init__(self, mark: bytes) -> None:
        super().__init__()
        self.mark = mark


class Transactor:
    """The only writer of the documents. ``session``: see ``ownership.claim``.

    run_name: of this daemon, which holds the database. number: of the last commit.
    """

    def __init__(self, link: MongoLink, session: Session, run_name: bytes, number: int) -> None:
        self.run_name = run_name
        self._link = link
        self._session = session
        self._number = number
        self._turn = asyncio.Lock()
        self._doubts: dict[bytes, Effect] = {}  # by mark: given up without an answer; at most one
        # of them has happened, as number + 1
        self._drift: dict[bytes, Usage] = {}
        self._log = Log("data.mongodb")

    @property
    def number(self) -> int:
        """Number of the last commit that is known to have happened."""
        return self._number

    def in_doubt(self, file: ObjectId) -> bool:
        """Return whether it is not known if a version names ``file``."""
        return any(file in effect.files for effect in self._doubts.values())

    def take_drift(self) -> dict[bytes, Usage]:
        """Return, once, by how much usage has changed through commits that were said to fail."""
        drift, self._drift = self._drift, {}
        return drift

    async def run(self, body: Body[T], doing: str) -> T:
        """Run ``body`` in a transaction and commit it; return what it returned. Raises StoreFailed.

        ``body`` may run more than once; what its committed run returned is returned.
        """
        async with self._turn:
            with self._link.deadline(doing):
                self._link.advance(self._session)
                return await self._attempts(self._session, body)

    async def close(self) -> None:
        """End the session."""
        await self._session.end_session()

    async def settle(self) -> None:
        """Find out what became of a commit that was given up. Raises StoreFailed."""

        async def nothing(session: Session) -> tuple[None, Effect]:
            return None, Effect()

        if self._doubts:
            await self.run(nothing, "settling a commit without an answer")

    # ---- attempts ----

    async def _attempts(self, session: Session, body: Body[T]) -> T:
        """Try until it is committed, impossible, or the time is over."""
        give_up_at = asyncio.get_running_loop().time() + self._link.settings.pause_s
        sent: dict[bytes, tuple[T, Effect]] = {}  # by mark: attempts whose commit was asked for
        attempt = 0
        try:
            while True:
                mark = secrets.token_bytes(MARK_SIZE)
                try:
                    await self._begin(session, mark)
                    result = await body(session)
                    sent[mark] = result
                    await self._commit(session, give_up_at)
                    self._committed(session)
                    sent.clear()
                    return result[0]
                except _Happened as happened:
                    await _abort(session)
                    if happened.mark in sent:
                        self._committed(session)
                        return sent.pop(happened.mark)[0]
                    self._adopt(happened.mark)
                except PyMongoError as error:
                    await _abort(session)
                    if not _may_try_again(error) or is_over(give_up_at):
                        raise
                await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
        finally:
            for mark, (_, effect) in sent.items():
                self._doubts[mark] = effect

    async def _begin(self, session: Session, mark: bytes) -> None:
        """Start a transaction that holds the owner document; raise _Happened or StoreFailed."""
        await session.start_transaction(read_concern=_SNAPSHOT, write_concern=WRITES)
        owner = self._link[OWNER]
        risen = await owner.update_one(
            {"_id": OWNER, "run": self.run_name, "commits": self._number},
            {"$set": {"commits": self._number + 1, "mark": mark}},
            session=session,
        )
        if risen.matched_count:
            return
        found = await owner.find_one({"_id": OWNER}, session=session) or {}
        await _abort(session)
        if found.get("run") == self.run_name and found["commits"] == self._number + 1:
            raise _Happened(found["mark"])
        settings = self._link.settings
        self._log.error("database_taken", host=found.get("host", ""))
        raise StoreFailed(
            f"{settings.place}: database {settings.database!r} was taken by another daemon with a "
            f"copy of this node's state folder, on host {found.get('host')!r}; this one writes "
            "nothing any more; stop it"
        )

    async def _commit(self, session: Session, give_up_at: float) -> None:
        """Ask for the commit until there is an answer, or the time is over."""
        while True:
            try:
                await session.commit_transaction()
                return
            except PyMongoError as error:
                if not error.has_error_label(_UNKNOWN) or is_over(give_up_at):
                    raise
            await asyncio.sleep(BACKOFF_S[-1])

    # ---- outcomes ----

    def _committed(self, session: Session) -> None:
        self._link.saw(session)
        self._number += 1
        self._doubts.clear()

    def _adopt(self, mark: bytes) -> None:
        """A commit that was given up has happened; its usage is told with the next sweep."""
        effect = self._doubts.get(mark, Effect())
        self._log.warning("commit_found", number=self._number + 1)
        for owner, more in effect.usages.items():
            before = self._drift.get(owner, Usage())
            self._drift[owner] = Usage(before.size_bytes + more.size_bytes, before.rows + more.rows)
        self._number += 1
        self._doubts.clear()


def _may_try_again(error: PyMongoError) -> bool:
    return error.has_error_label(_TRANSIENT) or isinstance(error, ConnectionFailure)


async def _abort(session: Session) -> None:
    if session.in_transaction:
        with contextlib.suppress(PyMongoError):
            await session.abort_transaction()
