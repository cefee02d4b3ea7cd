"""The sweep: what is past its retention goes, in one transaction; its bytes are collected after."""

import asyncio
from collections.abc import Iterable

from alpyne_grid.nodes.data.backends.mongo.link import MongoLink, Session
from alpyne_grid.nodes.data.backends.mongo.schema import FILES, Doc, note_out
from alpyne_grid.nodes.data.backends.mongo.transactions import Effect, Transactor
from alpyne_grid.nodes.data.records import Cutoffs, Swept, Usage
from pymongo import ASCENDING, InsertOne, UpdateOne

OWNER_SIZE = 32  # bytes of an account's key, with which every key begins


async def sweep(link: MongoLink, transactor: Transactor, cutoffs: Cutoffs, limit: int) -> Swept:
    """Take away what is older than ``cutoffs``, at most ``limit`` of each kind.

    Raises StoreFailed.
    """
    conditions = _conditions(cutoffs)

    async def take(session: Session) -> tuple[dict[str, list[Doc]], Effect]:
        old = {
            name: await link[name]
            .find(condition, session=session)
            .sort(age, ASCENDING)
            .limit(limit)
            .to_list()
            for name, (condition, age) in conditions.items()
        }
        freed = _usages(old)
        await _remove(link, transactor.run_name, old, freed, session)
        return old, Effect({owner: _minus(usage) for owner, usage in freed.items()})

    await transactor.settle()
    old: dict[str, list[Doc]] = {}
    if await _is_any_old(link, conditions):
        old = await transactor.run(take, "sweeping")
    freed = _usages(old)
    for owner, more in transactor.take_drift().items():
        freed[owner] = _plus(freed.get(owner, Usage()), _minus(more))
    return Swept(freed, any(len(rows) == limit for rows in old.values()))


def _conditions(cutoffs: Cutoffs) -> dict[str, tuple[Doc, str]]:
    """Return what is old in which collection, and the field that says how old."""
    return {
        "superseded": ({"at_ms": {"$lt": cutoffs.superseded_ms}}, "at_ms"),
        "objects": (
            {"deleted": True, "modified_ms": {"$lt": cutoffs.tombstones_ms}},
            "modified_ms",
        ),
        "fences": ({"at_ms": {"$lt": cutoffs.fences_ms}}, "at_ms"),
    }


async def _is_any_old(link: MongoLink, conditions: dict[str, tuple[Doc, str]]) -> bool:
    async def first(name: str, condition: Doc) -> object:
        async with link.reading("looking for what is to be swept") as session:
            return await link[name].find_one(condition, {"_id": 1}, session=session)

    found = await asyncio.gather(
        *(first(name, condition) for name, (condition, _) in conditions.items())
    )
    return any(found)


async def _remove(
    link: MongoLink,
    run_name: bytes,
    old: dict[str, list[Doc]],
    freed: dict[bytes, Usage],
    session: Session,
) -> None:
    for name, rows in old.items():
        if rows:
            numbers = [row["_id"] for row in rows]
            await link[name].delete_many({"_id": {"$in": numbers}}, session=session)
    files = [row["file"] for row in old["superseded"]]
    if files:
        await link[FILES].delete_many({"_id": {"$in": files}}, session=session)
        await link["unnamed"].bulk_write(
            [InsertOne(note_out(file, run_name)) for file in files], session=session
        )
    if freed:
        await link["usages"].bulk_write(
            [
                UpdateOne(
                    {"_id": owner},
                    {"$inc": {"size_bytes": -gone.size_bytes, "rows": -gone.rows}},
                )
                for owner, gone in freed.items()
            ],
            session=session,
        )


def _usages(old: dict[str, list[Doc]]) -> dict[bytes, Usage]:
    freed: dict[bytes, Usage] = {}
    for name, rows in old.items():
        for owner, size in _rows(name, rows):
            freed[owner] = _plus(freed.get(owner, Usage()), Usage(size, 1))
    return freed


def _rows(name: str, rows: list[Doc]) -> Iterable[tuple[bytes, int]]:
    for row in rows:
        key = row["_id"] if name == "fences" else row["box"]
        yield key[:OWNER_SIZE], row.get("size", 0)


def _plus(one: Usage, other: Usage) -> Usage:
    return Usage(one.size_bytes + other.size_bytes, one.rows + other.rows)


def _minus(usage: Usage) -> Usage:
    return Usage(-usage.size_bytes, -usage.rows)
