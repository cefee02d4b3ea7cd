"""The durable store: group commit, failures that stay where they belong, rows that survive."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes import store as module
from alpyne_grid.nodes.errors import StateError
from alpyne_grid.nodes.store import CommitStore, Rows, Schema, StoreFailed, publish_file

SCHEMA = Schema("things", ("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",))
INSERT = "INSERT INTO things VALUES (?, ?)"


@asynccontextmanager
async def opened(path: Path, *schemas: Schema) -> AsyncIterator[CommitStore]:
    store = CommitStore.open(path, schemas or (SCHEMA,))
    try:
        yield store
    finally:
        await store.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


def test_store_has_rows_after_a_restart_when_their_commit_was_confirmed(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.commit([(INSERT, (1, "one")), (INSERT, (2, "two"))])
        async with opened(path) as store:
            assert store.read("SELECT id, name FROM things") == [(1, "one"), (2, "two")]

    run(main)


def test_store_numbers_commits_on_over_a_restart(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.commit([(INSERT, (1, "one"))])
            before = store.last_commit
        async with opened(path) as store:
            assert store.last_commit == before
            await store.commit([(INSERT, (2, "two"))])
            assert store.last_commit > before

    run(main)


def test_store_puts_everything_that_waits_into_one_commit(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await asyncio.gather(*(store.commit([(INSERT, (n, "x"))]) for n in range(1000)))
            assert store.last_commit < 100
            assert store.read("SELECT count(*) FROM things") == [(1000,)]

    run(main)


def test_store_fails_only_the_batch_that_is_wrong(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            answers = await asyncio.gather(
                store.commit([(INSERT, (1, "one"))]),
                store.commit([(INSERT, (2, "two")), (INSERT, (1, "again"))]),
                store.commit([Rows("INSERT INTO things", [(3, "three")])]),
                store.commit([(INSERT, (1 << 70, "too large for SQLite"))]),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [
                type(None),
                StoreFailed,
                type(None),
                StoreFailed,
            ]
            assert store.read("SELECT id FROM things") == [(1,), (3,)]  # nothing of the second
            await store.commit([(INSERT, (4, "four"))])

    run(main)


def test_store_writes_in_the_order_of_the_calls(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            for n in range(200):
                store.write([("INSERT OR REPLACE INTO things VALUES (1, ?)", (str(n),))], _nothing)
            await store.commit([])
            assert store.read("SELECT name FROM things") == [("199",)]

    run(main)


def test_store_merges_rows_of_one_table_and_keeps_their_order(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            replace = "INSERT OR REPLACE INTO things"
            store.write([Rows(replace, [(n, "old") for n in range(40_000)])], _nothing)
            store.write([Rows(replace, [(7, "new")])], _nothing)
            store.write([("DELETE FROM things WHERE id = 8", ())], _nothing)
            await store.commit([Rows(replace, [])])
            assert store.read("SELECT count(*) FROM things") == [(39_999,)]
            assert store.read("SELECT name FROM things WHERE id = 7") == [("new",)]

    run(main)


def test_store_calls_back_on_the_loops_thread_after_the_commit(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            done: asyncio.Future[tuple[int, list[tuple[Any, ...]]]] = (
                asyncio.get_running_loop().create_future()
            )

            def called(error: StoreFailed | None) -> None:
                assert error is None
                done.set_result((threading.get_ident(), store.read("SELECT id FROM things")))

            store.write([(INSERT, (1, "one"))], called)
            assert await done == (threading.get_ident(), [(1,)])

    run(main)


def test_store_calls_everybody_back_when_one_callback_raises(path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        raised: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: raised.append(context))
        called: list[int] = []

        def bad(error: StoreFailed | None) -> None:
            raise ValueError("a caller's mistake")

        async with opened(path) as store:
            store.write([(INSERT, (1, "one"))], bad)
            store.write([(INSERT, (2, "two"))], lambda _: called.append(2))
            await store.commit([])
        assert called == [2]
        assert [type(context["exception"]) for context in raised] == [ValueError]

    run(main)


def test_store_commits_what_is_queued_when_it_is_closed(path: Path) -> None:
    async def main() -> None:
        store = CommitStore.open(path, (SCHEMA,))
        for n in range(100):
            store.write([(INSERT, (n, "x"))], _nothing)
        await store.close()
        with pytest.raises(StoreFailed, match="closed"):
            store.write([], _nothing)
        async with opened(path) as again:
            assert again.read("SELECT count(*) FROM things") == [(100,)]

    run(main)


def test_store_takes_schemas_further_and_keeps_their_rows(path: Path) -> None:
    wider = Schema("things", (*SCHEMA.steps, "ALTER TABLE things ADD COLUMN size INTEGER"))
    other = Schema("others", ("CREATE TABLE others (id INTEGER)",))

    async def main() -> None:
        async with opened(path) as store:
            await store.commit([(INSERT, (1, "one"))])
        async with opened(path, wider, other) as store:
            assert store.read("SELECT * FROM things") == [(1, "one", None)]
            assert store.read("SELECT * FROM others") == []
        with pytest.raises(StateError, match="version 2, this software knows 1"):
            CommitStore.open(path, (SCHEMA,))

    run(main)


def test_store_says_what_to_do_when_the_file_is_no_database(path: Path) -> None:
    async def main() -> None:
        path.write_bytes(b"not a database" * 1000)
        with pytest.raises(StateError, match="restore it from a backup"):
            CommitStore.open(path, (SCHEMA,))

    run(main)


def test_store_flushes_each_commit_and_never_checkpoints_inside_one(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            settings = {
                name: store._writer.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "wal_autocheckpoint")
            }
            assert settings == {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0}

    run(main)


def test_store_keeps_its_log_short_when_it_never_rests(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_COMMITS", 8)
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 64 << 10)

    async def main() -> None:
        async with opened(path) as store:
            for n in range(300):
                await store.commit([(INSERT, (n, "x" * 4096))])
            assert path.with_name("node.db-wal").stat().st_size < 1 << 20

    run(main)


def test_store_refuses_batches_when_the_disk_is_full_and_goes_on_with_room(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.commit([("PRAGMA user_version", ())])
            store._writer.execute("PRAGMA max_page_count = 20")  # as a full disk: SQLITE_FULL
            with pytest.raises(StoreFailed, match="full"):
                await store.commit([(INSERT, (1, "x" * 200_000))])
            await store.commit([(INSERT, (2, "small"))])
            assert store.read("SELECT id FROM things") == [(2,)]

    run(main)


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from alpyne_grid.nodes.store import CommitStore, Schema

    SCHEMA = Schema("things", ("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)",))

    async def main():
        store = CommitStore.open(Path(sys.argv[1]), (SCHEMA,))
        for n in range(1_000_000):
            await asyncio.gather(
                *(store.commit([("INSERT INTO things VALUES (?, 'x')", (n * 8 + i,))])
                  for i in range(8))
            )
            print(n * 8 + 7, flush=True)

    asyncio.run(main())
"""


@pytest.mark.crash
def test_store_has_every_confirmed_row_when_its_process_was_killed(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        confirmed = [int(process.stdout.readline()) for _ in range(50)]
        os.kill(process.pid, signal.SIGKILL)
        confirmed += [int(line) for line in process.stdout.read().split()]
    with sqlite3.connect(path) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM things ORDER BY id")]
    connection.close()
    assert ids[: confirmed[-1] + 1] == list(range(confirmed[-1] + 1))


def test_publish_makes_a_file_appear_under_its_name_only(tmp_path: Path) -> None:
    part, target = tmp_path / "part", tmp_path / "target"
    part.write_bytes(b"content")
    publish_file(part, target)
    assert (target.read_bytes(), part.exists()) == (b"content", False)


def _nothing(error: StoreFailed | None) -> None:
    assert error is None


def test_damaged_file_is_an_error_of_the_store_for_its_readers(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.commit([(INSERT, (number, "x" * 500)) for number in range(100)])
        content = bytearray(path.read_bytes())
        content[10 * 4096 :] = os.urandom(len(content) - 10 * 4096)
        path.write_bytes(content)
        async with opened(path) as store:
            with pytest.raises(StoreFailed, match="cannot be read"):
                store.read("SELECT id, name FROM things")

    run(main)
