"""Whose database it is, and the number of its last commit: one document.

    {_id: "owner", format, node, run, session, commits, mark, host, since}

``node`` is a random name that stands in the node's state folder too: another node is refused.
``run`` is new at each start: of two daemons with copies of one state folder the later one goes on,
and the earlier one's commits fail, because each names its run. ``session`` is the one of that run's
transactions: what a killed daemon left open there is ended. ``commits`` rises by one with each
commit and in the same transaction, which tells what became of a commit whose answer was lost.
"""

import asyncio
import contextlib
import datetime
import secrets
import socket
from pathlib import Path

from alpyne_grid.nodes.data.backends.mongo.link import MongoLink, Session
from alpyne_grid.nodes.data.backends.mongo.schema import FORMAT, INDEXES, OWNER, Doc
from alpyne_grid.nodes.errors import ConfigError, StateError
from bson.binary import UUID_SUBTYPE, Binary
from pymongo import ReturnDocument
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

from alpyne_grid.durable import write_durably

NAME_FILE = "mongodb-owner"
NAME_SIZE = 16


def node_name(folder: Path, *, make: bool) -> bytes:
    """Return the name under which this state folder owns a database; b"" where it has none yet.

    make: make it then. Raises StateError.
    """
    file = folder / NAME_FILE
    try:
        name = bytes.fromhex(file.read_text().strip())
    except FileNotFoundError:
        name = secrets.token_bytes(NAME_SIZE) if make else b""
        if make:
            write_durably(file, f"{name.hex()}\n".encode())
    except (OSError, ValueError) as error:
        raise StateError(
            f"{file}: cannot be read ({type(error).__name__}); restore it from a backup of the "
            "state folder: it says which database is this node's"
        ) from None
    return name


async def look(link: MongoLink, name: bytes) -> str:
    """Return in words whose the database is. Raises ConfigError where it is another's, or OSError.

    name: of this node, b"" where it has none yet.
    """
    found = await link.patiently(lambda: _find(link, name))
    return f"this node's, {found['commits']} commits" if found else "not used yet"


async def claim(link: MongoLink, name: bytes, run: bytes, session: Session) -> int:
    """Make the database this node's, with its collections; return the number of its last commit.

    session: in which this run will make its transactions.

    Raises ConfigError where it is another's, StateError where a newer version wrote it, OSError.
    """

    async def take() -> int:
        found = await _find(link, name)
        if found is not None:
            await _end_session(link, found)
        await _make_collections(link)
        commits: int = (await _take(link, name, run, session))["commits"]
        return commits

    return await link.patiently(take)


async def _find(link: MongoLink, name: bytes) -> Doc | None:
    """Return the owner's document where it is this node's, None where there is none yet."""
    found = await link[OWNER].find_one({"_id": OWNER})
    if found is None:
        await _check_empty(link)
    else:
        check_owner(link, found, name)
    return found


def check_owner(link: MongoLink, found: Doc, name: bytes) -> None:
    """Raise ConfigError or StateError where a database cannot be used by the node ``name``."""
    settings = link.settings
    where = f"{settings.place}: database {settings.database!r}"
    if found["node"] != name:
        raise ConfigError(
            f"{where} belongs to another data node, on host {found.get('host')!r} since "
            f"{found.get('since'):%Y-%m-%d}; choose another by --database NAME. Where that node is "
            "gone for good and its objects may be lost with it, give its claim up: "
            f"db.getSiblingDB({settings.database!r}).dropDatabase()"
        )
    if found["format"] > FORMAT:
        raise StateError(
            f"{where} was written by a newer version of Alpyne (format {found['format']}, known "
            f"here: {FORMAT}); update this node"
        )


async def _check_empty(link: MongoLink) -> None:
    names = [n for n in await link.database.list_collection_names() if not n.startswith("system.")]
    if set(names) - set(INDEXES):
        settings = link.settings
        raise ConfigError(
            f"{settings.place}: database {settings.database!r} holds something else (collection "
            f"{sorted(set(names) - set(INDEXES))[0]!r}); choose another by --database NAME"
        )


async def _make_collections(link: MongoLink) -> None:
    present = set(await link.database.list_collection_names())

    async def make(name: str) -> None:
        if name not in present:
            with contextlib.suppress(CollectionInvalid):  # an attempt before has made it after all
                await link.database.create_collection(name)
        if INDEXES[name]:
            await link[name].create_indexes(list(INDEXES[name]))

    await asyncio.gather(*map(make, INDEXES))


async def _end_session(link: MongoLink, found: Doc) -> None:
    """End what an earlier run has left open, or it holds its documents for up to a minute."""
    if "session" in found:
        with contextlib.suppress(OperationFailure):  # it is over long since, or a later server's
            await link.client.admin.command("killSessions", [{"id": found["session"]}])


async def _take(link: MongoLink, name: bytes, run: bytes, session: Session) -> Doc:
    """Write this run down as the owner. By then an earlier run's last commit is whole or dead."""
    first = {"format": FORMAT, "commits": 0, "since": _now()}
    own_session = Binary(session.session_id["id"], UUID_SUBTYPE)
    mine = {"run": run, "session": own_session, "host": socket.gethostname()[:64]}
    try:
        taken = await link[OWNER].find_one_and_update(
            {"_id": OWNER, "node": name},  # an insert takes both over
            {"$set": mine, "$setOnInsert": first},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        link.saw(session)
    except DuplicateKeyError:  # another node was faster
        found = await link[OWNER].find_one({"_id": OWNER})
        if found is not None:
            check_owner(link, found, name)
        raise
    assert taken is not None
    return taken


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
