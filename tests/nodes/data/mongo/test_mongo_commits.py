"""Commits: by indexes alone, in groups, once each whatever becomes of the answer, by one daemon."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.data.backends.mongo import MongoBackend
from alpyne_grid.nodes.data.records import (
    JobEpoch,
    ObjectRecord,
    ObjectSpan,
    Publish,
    RaiseFence,
    Refresh,
    Usage,
)
from alpyne_grid.nodes.errors import ConfigError
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.tools.contracts.data.bench import (
    ALWAYS,
    ANN,
    BOX,
    JOB,
    LARGE,
    NEVER,
    key,
    publish,
    read,
    stage,
    version,
)
from bson.codec_options import CodecOptions
from mongo_bench import MIB, database_of, opened, with_boxes, with_options
from parts.mongo_set import MongoSet
from pymongo import monitoring


def tombstone(path: str, counter: int = 1, owner: bytes = ANN) -> Publish:
    return Publish(key(path, owner), ObjectRecord(version(counter), deleted=True), None, None, 1)


# ---- queries ----


class Recorder(monitoring.CommandListener):
    """Keeps the commands that are sent to one database."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.sent: list[dict[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.database_name == self.database:
            self.sent.append(dict(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Record what clients that are made from now on send to the test's database."""
    listeners = monitoring._LISTENERS.command_listeners
    made = Recorder(database_of(tmp_path))
    monitoring.register(made)
    yield made
    listeners.remove(made)


# The server cuts what it says of bounds, amid a character where need be.
LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(unicode_decode_error_handler="replace")


def explainable(command: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the queries that a command makes, each as one that can be explained."""
    plain = ("find", "filter", "sort", "limit", "projection", "query", "update", "findAndModify")
    name = next(iter(command))
    if name in ("find", "findAndModify"):
        yield {part: command[part] for part in (name, *plain) if part in command}
    for many in ("updates", "deletes"):
        for one in command.get(many, ()):
            yield {name: command[name], many: [one]}


def stages_of(plan: Any) -> Iterator[str]:
    """Yield the names of all stages of an explained plan."""
    if isinstance(plan, dict):
        if isinstance(plan.get("stage"), str):
            yield plan["stage"]
        for part in plan.values():
            yield from stages_of(part)
    elif isinstance(plan, list):
        for part in plan:
            yield from stages_of(part)


async def everything(backend: MongoBackend) -> None:
    """Ask the back end for whatever it can do."""
    for counter, data in ((1, LARGE), (2, b"x"), (3, LARGE)):
        await publish(backend, "a", counter, data)
    await publish(backend, "b", 1, None)
    await backend.commit([RaiseFence(ANN, JobEpoch(JOB, 1, 1), 1)])
    await backend.commit([Refresh(key("a"), await stage(backend, LARGE))])
    await backend.discard(await stage(backend, LARGE))
    await read(backend, "a")
    await read(backend, "a", version(1))
    await backend.look_up(key("a"), JOB)
    await backend.usages()
    await backend.containers(ANN, b"", 5)
    await backend.containers(ANN, BOX, 5)
    for span in (ObjectSpan(), ObjectSpan("a", "a"), ObjectSpan("", "", True)):
        await backend.objects(ANN, BOX, span, None)
        await backend.objects(ANN, BOX, span, lambda path: True)
    doc = await backend.link["objects"].find_one({"box": ANN + BOX, "path": "a"})
    assert doc is not None
    await backend.parts.shelf.report_damage(key("a"), doc["file"], "test")
    assert await backend.corrupt(ANN, 5) == [key("a")]
    await backend.sweep(ALWAYS, 10)
    await backend.parts.collector.collected()


async def test_no_query_looks_through_a_collection(
    mongo_single: MongoSet, tmp_path: Path, recorder: Recorder
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        await everything(backend)
        queries = [query for command in recorder.sent for query in explainable(command)]
        assert len(queries) > 60
        assert {next(iter(query)) for query in queries} >= {"find", "update", "delete"}
        for query in queries:
            explained = await backend.link.database.command(
                {"explain": query, "verbosity": "queryPlanner"}, codec_options=LENIENT
            )
            stages = set(stages_of(explained["queryPlanner"]["winningPlan"]))
            assert "COLLSCAN" not in stages, query
            assert "SORT" not in stages, query


# ---- groups ----


async def test_commits_that_wait_share_a_transaction(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        before = backend.parts.transactor.number
        await asyncio.gather(*(backend.commit([tombstone(f"{n}")]) for n in range(50)))
        assert backend.parts.transactor.number <= before + 2
        assert (await backend.usages())[ANN] == Usage(0, 51)


async def test_commit_that_cannot_happen_fails_alone_among_those_that_wait(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        changed = tombstone("first", 1), tombstone("first", 2)  # judged by what stood before
        huge = tombstone("huge", 1 << 63)
        ends = await asyncio.gather(
            *(backend.commit([change]) for change in (*changed, huge, tombstone("last"))),
            return_exceptions=True,
        )
        assert [type(end) for end in ends] == [type(None), StoreFailed, StoreFailed, type(None)]
        assert "has changed meanwhile" in str(ends[1])
        rows = await backend.objects(ANN, BOX, ObjectSpan("", "", True), None)
        assert rows is not None
        assert [path for path, _ in rows.rows] == ["first", "last"]
        assert (await backend.usages())[ANN] == Usage(0, 3)


async def test_body_that_is_replaced_within_its_group_is_collected(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        await publish(backend, "a", 1, LARGE)
        bodies = [await stage(backend, LARGE) for _ in range(3)]
        await asyncio.gather(*(backend.commit([Refresh(key("a"), each)]) for each in bodies))
        backend.parts.collector.collect_soon()
        await backend.parts.collector.collected()
        assert await read(backend, "a") == LARGE
        assert await backend.link["contents.files"].count_documents({}) == 1


# ---- answers that are lost ----


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoSet]:
    """A server of which a test can make commands fail."""
    folder = tmp_path_factory.mktemp("failing") / "set"
    made = MongoSet(folder, 1, options=("--setParameter", "enableTestCommands=1")).start()
    yield made
    made.remove()


@contextlib.asynccontextmanager
async def commits_unanswered(backend: MongoBackend, mode: Any, **how: Any) -> AsyncIterator[None]:
    """Let the server fail commitTransaction; ``how``: closeConnection before, or an error after."""
    admin = backend.link.client.admin
    data = {"failCommands": ["commitTransaction"], **how}
    await admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
    try:
        yield
    finally:
        await admin.command({"configureFailPoint": "failCommand", "mode": "off"})


# The server commits, and answers that it does not know whether a majority has it.
HAPPENED = {"writeConcernError": {"code": 64, "errmsg": "timed out", "errInfo": {"wtimeout": True}}}
HAS_NOT = {"closeConnection": True}


@pytest.mark.parametrize("how", [HAPPENED, HAS_NOT], ids=["happened", "did not happen"])
async def test_commit_is_repeated_when_its_answer_is_lost_and_happens_once(
    failing: MongoSet, tmp_path: Path, how: Any
) -> None:
    async with with_boxes(failing.uri, tmp_path) as backend:
        before = backend.parts.transactor.number
        async with commits_unanswered(backend, {"times": 2}, **how):
            await publish(backend, "a", 1, LARGE)
        assert backend.parts.transactor.number == before + 1
        assert (await backend.usages())[ANN] == Usage(len(LARGE), 2)
        assert await read(backend, "a") == LARGE


async def test_commit_that_was_given_up_is_found_and_counted_when_it_has_happened(
    failing: MongoSet, tmp_path: Path
) -> None:
    uri = with_options(failing.uri, timeoutMS=1500)
    async with with_boxes(uri, tmp_path) as backend:
        staged = await stage(backend, LARGE)
        record = ObjectRecord(version(1), staged.size, staged.sha256, False, 1)
        async with commits_unanswered(backend, "alwaysOn", **HAPPENED):
            with pytest.raises(StoreFailed, match="nothing was acknowledged"):
                await backend.commit([Publish(key("a"), record, None, staged, 1)])
        await backend.discard(staged)  # what the object table does; the bytes must stay
        await backend.commit([tombstone("b")])
        assert await read(backend, "a") == LARGE
        assert (await backend.usages())[ANN] == Usage(len(LARGE), 3)
        # The object table was told that it failed: it learns of the usage by a negative sweep.
        swept = await backend.sweep(NEVER, 10)
        assert swept.freed == {ANN: Usage(-len(LARGE), -1)}
        assert (await backend.sweep(NEVER, 10)).freed == {}


async def test_commit_that_was_given_up_cannot_happen_later(
    failing: MongoSet, tmp_path: Path
) -> None:
    uri = with_options(failing.uri, timeoutMS=1500)
    async with with_boxes(uri, tmp_path) as backend:
        staged = await stage(backend, LARGE)
        record = ObjectRecord(version(1), staged.size, staged.sha256, False, 1)
        async with commits_unanswered(backend, "alwaysOn", **HAS_NOT):
            with pytest.raises(StoreFailed):
                await backend.commit([Publish(key("a"), record, None, staged, 1)])
        await backend.discard(staged)
        await backend.commit([tombstone("b")])
        assert await read(backend, "a") is None
        assert (await backend.usages())[ANN] == Usage(0, 2)
        assert (await backend.sweep(NEVER, 10)).freed == {}


async def test_next_start_does_not_wait_for_a_transaction_that_a_killed_daemon_left_open(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as killed:
        session = killed.parts.transactor._session
        await session.start_transaction()
        await killed.link["owner"].update_one({}, {"$inc": {"commits": 1}}, session=session)
        async with asyncio.timeout(10), opened(mongo_single.uri, tmp_path) as backend:
            await backend.commit([tombstone("a")])
            assert backend.parts.transactor.number == killed.parts.transactor.number + 1


# ---- one daemon ----


async def test_database_of_another_node_is_refused(mongo_single: MongoSet, tmp_path: Path) -> None:
    database = database_of(tmp_path)
    async with opened(mongo_single.uri, tmp_path / "one", database=database):
        pass
    with pytest.raises(ConfigError, match=r"belongs to another data node.*--database NAME"):
        async with opened(mongo_single.uri, tmp_path / "two", database=database):
            pass


async def test_database_of_something_else_is_refused(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    with mongo_single.client() as client:
        client[database_of(tmp_path)]["invoices"].insert_one({})
    with pytest.raises(ConfigError, match=r"holds something else \(collection 'invoices'\)"):
        async with opened(mongo_single.uri, tmp_path):
            pass


async def test_earlier_daemon_writes_nothing_when_a_copy_of_its_state_has_started(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    database = database_of(tmp_path)
    uri, one, two = mongo_single.uri, tmp_path / "one", tmp_path / "two"
    async with with_boxes(uri, one, database=database) as earlier:
        staged = await stage(earlier, LARGE)
        shutil.copytree(one, two)
        async with opened(uri, two, database=database) as later:
            record = ObjectRecord(version(1), staged.size, staged.sha256, False, 1)
            with pytest.raises(StoreFailed, match="taken by another daemon"):
                await earlier.commit([Publish(key("a"), record, None, staged, 1)])
            unnamed = later.stage(ANN, 4 * MIB)
            unnamed.feed(bytes(3 * MIB))
            earlier.parts.collector.collect_soon()
            await earlier.parts.collector.collected()
            unnamed.feed(bytes(MIB))
            whole = await unnamed.finish()
            record = ObjectRecord(version(1), whole.size, whole.sha256, False, 1)
            await later.commit([Publish(key("a"), record, None, whole, 1)])
            assert await read(later, "a") == bytes(4 * MIB)
