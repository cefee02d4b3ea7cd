"""A data node's answers, over real connections on loopback."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from alpyne_grid.nodes.data.backends.local_files import FileStage
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.wire import Connection

from alpyne_proto.codec import encode
from alpyne_proto.container import container_id
from alpyne_proto.errors import ConnectionLost, ErrorCode, RequestFailed
from alpyne_proto.messages import data as m
from alpyne_proto.messages.access import GetStatus, LabelTraffic, NodeStatus, Register
from alpyne_proto.messages.control import BodyDigest, Error
from alpyne_proto.registry import Message

WRITER = b"w" * 16
LARGE = bytes(range(256)) * 2800
MISSING = m.ObjectInfo(0)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# ---- objects ----


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "small", "large"])
async def test_node_returns_what_was_put(site: Any, data: bytes) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        info = await client.put("a/b", data, 3)
        assert (info.counter, info.writer, info.size, info.sha256, info.deleted) == (
            3,
            WRITER,
            len(data),
            sha(data),
            False,
        )
        assert info.modified_at_ms > 1_600_000_000_000
        assert await client.get("a/b") == data
        assert await client.stat("a/b") == info


async def test_node_has_every_acknowledged_object_after_a_restart(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await client.put("small", b"x")
        await client.put("large", LARGE)
        await client.put("gone", b"x")
        await client.delete("gone", 2)
        box = client.container
    async with site() as node, node.client() as client:
        client.container = box
        assert await client.get("small") == b"x"
        assert await client.get("large") == LARGE
        assert (await client.stat("gone")).deleted
        assert node.node.driver.table.used_bytes(node.owner.key) == len(LARGE) + 2


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 10), (5, 1), (262_140, 10), (700_000, 1 << 40), (716_800, 5), (0, 0)],
)
async def test_node_returns_a_range(site: Any, offset: int, length: int) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await client.put("a", LARGE)
        found = await client.get("a", offset=offset, length=length)
        assert found == LARGE[offset : offset + length]


async def test_node_refuses_a_range_that_begins_behind_the_end(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await client.put("a", b"12345")
        error = await client.refusal(m.GetObject(client.container, "a", offset=6))
        assert error.code is ErrorCode.BAD_REQUEST
        assert "5 bytes, got 6" in str(error)


async def test_node_reads_a_superseded_version_by_its_exact_version(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await client.put("a", b"one", 1)
        await client.put("a", b"two", 2)
        await client.delete("a", 3)
        assert await client.get("a", counter=1, writer=WRITER) == b"one"
        assert await client.get("a", counter=2, writer=WRITER) == b"two"
        newest = await client.refusal(m.GetObject(client.container, "a"))
        assert (newest.code, "deleted as version 3" in str(newest)) == (ErrorCode.NOT_FOUND, True)
        other = await client.refusal(m.GetObject(client.container, "a", counter=9, writer=WRITER))
        assert (other.code, "no version 9" in str(other)) == (ErrorCode.NOT_FOUND, True)


async def test_node_says_what_stands_under_a_path(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        assert await client.stat("a") == MISSING
        error = await client.refusal(m.GetObject(client.container, "a"))
        assert error.code is ErrorCode.NOT_FOUND
        await client.put("a", b"x", 1)
        tombstone = await client.delete("a", 2)
        assert (tombstone.counter, tombstone.deleted, tombstone.size) == (2, True, 0)
        assert await client.stat("a") == tombstone


async def test_node_never_goes_back(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await client.put("a", b"five", 5)
        error = await client.put_refusal("a", b"four", 4)
        assert error.code is ErrorCode.VERSION_CONFLICT
        assert f"5 of writer {WRITER.hex()}" in str(error)
        error = await client.refusal(m.DeleteObject(client.container, "a", 5, WRITER))
        assert error.code is ErrorCode.VERSION_CONFLICT
        assert await client.get("a") == b"five"


async def test_node_answers_a_repeated_put_as_the_first_time(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        first = await client.put("a", LARGE, 5, expect=m.Expect.ABSENT)
        assert await client.put("a", LARGE, 5, expect=m.Expect.ABSENT) == first
        error = await client.put_refusal("a", LARGE[::-1], 5)
        assert error.code is ErrorCode.VERSION_CONFLICT
        assert await client.get("a") == LARGE


async def test_node_puts_only_what_was_expected(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await client.put("a", b"1", 1, expect=m.Expect.ABSENT)
        error = await client.put_refusal("a", b"2", 2, expect=m.Expect.ABSENT)
        assert error.code is ErrorCode.VERSION_CONFLICT
        at_1 = {"expect": m.Expect.VERSION, "expect_counter": 1, "expect_writer": WRITER}
        await client.put("a", b"2", 2, **at_1)
        error = await client.put_refusal("a", b"3", 3, **at_1)
        assert error.code is ErrorCode.VERSION_CONFLICT
        assert await client.get("a") == b"2"


# ---- bodies that are not what they should be ----


async def leftovers(node: Any) -> tuple[int, int]:
    """Return files in place and on their way, once what was discarded is gone."""
    await node.node.driver.close()
    return len(node.blobs), len(node.incoming)


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_node_publishes_nothing_when_the_digest_differs(site: Any, data: bytes) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        message = client.put_message("a", data, 1)
        error = await client.refusal(message, data, trailer=lambda: BodyDigest(sha(b"other")))
        assert error.code is ErrorCode.DIGEST_MISMATCH
        assert await client.stat("a") == MISSING
        assert await leftovers(node) == (0, 0)
        assert (await client.put("a", data)).sha256 == sha(data)


@pytest.mark.parametrize("size", [4, 6, 50_000, 1 << 20])
async def test_node_publishes_nothing_when_the_size_differs(site: Any, size: int) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        message = m.PutObject(client.container, "a", 1, WRITER, size)
        data = b"12345" if size < 10 else bytes(60_000)
        error = await client.refusal(message, data, trailer=lambda: BodyDigest(sha(data)))
        assert error.code is ErrorCode.BAD_REQUEST
        assert f"{size} bytes, got" in str(error)
        assert await client.stat("a") == MISSING
        assert await leftovers(node) == (0, 0)


async def test_node_publishes_nothing_when_the_digest_is_missing(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        error = await client.refusal(client.put_message("a", b"x", 1), b"x")
        assert error.code is ErrorCode.BAD_REQUEST
        assert "BodyDigest" in str(error)
        assert await client.stat("a") == MISSING


async def endless(sent: list[int]) -> AsyncIterator[bytes]:
    while True:
        sent.append(1)
        yield bytes(1 << 16)
        await asyncio.sleep(0)


async def test_node_refuses_before_the_body_when_it_could_not_take_it(
    site: Any, make_user: Callable[[], Any]
) -> None:
    async with site(open_quota_bytes=1 << 20) as node, node.client(make_user()) as client:
        await client.call(Register())
        await client.create()
        await client.put("a", b"x", 5)
        for message, code in (
            (m.PutObject(client.container, "a", 4, WRITER, 1 << 20), ErrorCode.VERSION_CONFLICT),
            (m.PutObject(client.container, "b", 4, WRITER, 1 << 40), ErrorCode.QUOTA_EXCEEDED),
            (m.PutObject(b"?" * 16, "b", 4, WRITER, 1 << 19), ErrorCode.NOT_FOUND),
            (m.PutObject(client.container, "b", 4, WRITER, 1 << 60), ErrorCode.BAD_REQUEST),
        ):
            sent: list[int] = []
            assert (await client.refusal(message, endless(sent))).code is code
            assert len(sent) <= 64  # no more than the window


@pytest.mark.parametrize("size", [1000, 1 << 20], ids=["row", "file"])
async def test_node_cuts_a_body_off_when_it_is_longer_than_announced(site: Any, size: int) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        sent: list[int] = []
        message = m.PutObject(client.container, "a", 1, WRITER, size)
        error = await client.refusal(message, endless(sent))
        assert error.code is ErrorCode.BAD_REQUEST
        assert f"{size} bytes, got more" in str(error)
        assert await leftovers(node) == (0, 0)


async def test_node_keeps_nothing_and_goes_on_when_it_cannot_store(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site() as node, node.client() as client:
        await client.create()

        async def fails(changes: object) -> None:
            raise StoreFailed("disk on fire")

        with monkeypatch.context() as patch:
            patch.setattr(node.node._backend, "commit", fails)
            error = await client.put_refusal("a", LARGE)
        assert (error.code, error.retryable) == (ErrorCode.STORE_FAILED, True)
        assert await leftovers(node) == (0, 0)
        assert await client.stat("a") == MISSING
        await client.put("a", LARGE)
        assert await client.get("a") == LARGE


async def test_node_forgets_a_body_when_its_client_is_lost_while_it_is_flushed(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        flushing, go_on = asyncio.Event(), asyncio.Event()
        finish = FileStage.finish

        async def slow(stage: FileStage) -> Any:
            flushing.set()
            await go_on.wait()
            return await finish(stage)

        monkeypatch.setattr(FileStage, "finish", slow)
        putting = asyncio.create_task(client.put("a", LARGE))
        await flushing.wait()
        client.connection.abort()
        with pytest.raises(ConnectionLost):
            await putting
        while node.node.driver.table.in_flight:
            await asyncio.sleep(0.001)
        go_on.set()
        assert await leftovers(node) == (0, 0)


async def test_node_forgets_a_put_when_its_client_is_lost(
    site: Any, make_user: Callable[[], Any]
) -> None:
    user = make_user()
    async with site(open_quota_bytes=8 << 20) as node:
        async with node.client(user) as client:
            await client.call(Register())
            await client.create()
            box = client.container
            stream = await client.connection.open(m.PutObject(box, "a", 1, WRITER, 8 << 20))
            await stream.write(bytes(3 << 20))
            while not node.incoming:
                await asyncio.sleep(0.001)
            client.connection.abort()
        while node.node.driver.table.in_flight:
            await asyncio.sleep(0.001)
        assert await leftovers(node) == (0, 0)
        async with node.client(user) as client:
            client.container = box
            await client.put("b", bytes(8 << 20))  # the reservation is free again


async def test_node_refuses_more_than_the_quota_and_takes_what_fills_it(
    site: Any, make_user: Callable[[], Any]
) -> None:
    async with site(open_quota_bytes=1000) as node, node.client(make_user()) as client:
        await client.call(Register())
        await client.create()
        await client.put("a", bytes(600))
        error = await client.put_refusal("b", bytes(401))
        assert error.code is ErrorCode.QUOTA_EXCEEDED
        assert "401 bytes do not fit: 600 of 1000" in str(error)
        await client.put("b", bytes(400))
        assert (await client.put_refusal("c", b"x")).code is ErrorCode.QUOTA_EXCEEDED


# ---- names ----

BAD_PATHS = ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a\0b", "\x1b[2J", "a\nb"]


@pytest.mark.parametrize("path", BAD_PATHS)
async def test_node_refuses_a_bad_path_in_every_request(site: Any, path: str) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        box = client.container
        for message, body in (
            (client.put_message(path, b"x", 1), b"x"),
            (m.GetObject(box, path), b""),
            (m.StatObject(box, path), b""),
            (m.DeleteObject(box, path, 1, WRITER), b""),
        ):
            error = await client.refusal(message, body)
            assert error.code is ErrorCode.BAD_REQUEST
            assert "path" in str(error)
        assert await client.list() == []
        await client.put("fine", b"x")


async def test_node_takes_the_longest_and_oddest_legal_paths(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        paths = ["x" * 1024, "%2e%2e", "a\\..\\b", "...", "\U0010ffff", "C:", "con", " "]
        for path in paths:
            await client.put(path, path.encode())
        assert [row.path for row in await client.list()] == sorted(paths, key=str.encode)
        for path in paths:
            assert await client.get(path) == path.encode()
        assert {p.name for p in node.state.rglob("*")}.isdisjoint(paths)


# ---- containers ----


async def test_node_keeps_the_highest_descriptor(site: Any) -> None:
    async with site() as node, node.client() as client:
        box = container_id(client.user.key, "box")
        members = (b"1" * 32, b"2" * 32)

        def put(counter: int, copies: int) -> m.PutContainer:
            return m.PutContainer(box, "box", copies, members, counter, WRITER)

        second = await client.call(put(2, 2))
        assert second == m.ContainerInfo(box, "box", 2, members, 2, WRITER)
        assert await client.call(put(1, 1)) == second
        assert await client.call(put(2, 1)) == second
        third = await client.call(put(3, 1))
        assert await client.call(m.GetContainer(box)) == third


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"container_id": b"x" * 16}, "expected the id"),
        ({"name": "a\0"}, "control character"),
        ({"name": ""}, "got none"),
        ({"copies": 0}, "got 0 copies"),
        ({"copies": 3}, "got 3 copies on 2 members"),
        ({"members": (b"1" * 32, b"1" * 32)}, "twice"),
        ({"members": ()}, "on 0 members"),
        ({"counter": 0}, "counter"),
        ({"counter": 1 << 63}, "counter"),
    ],
)
async def test_node_refuses_a_bad_descriptor(
    site: Any, change: dict[str, Any], reason: str
) -> None:
    async with site() as node, node.client() as client:
        good = {
            "container_id": container_id(client.user.key, "box"),
            "name": "box",
            "copies": 1,
            "members": (b"1" * 32, b"2" * 32),
            "counter": 1,
            "writer": WRITER,
        }
        error = await client.refusal(m.PutContainer(**{**good, **change}))
        assert error.code is ErrorCode.BAD_REQUEST
        assert reason in str(error)


async def test_node_lists_containers_with_what_they_hold(site: Any) -> None:
    async with site() as node, node.client() as client:
        for name in ("one", "two"):
            await client.create(name)
            await client.put("a", name.encode())
            await client.put("b", b"x")
        await client.delete("b", 2)
        answer = await client.connection.call(m.ListContainers())
        rows = [row async for row, _ in answer.body.rows()]
        assert {(row.name, row.objects, row.size_bytes) for row in rows} == {  # type: ignore[attr-defined]
            ("one", 2, 4),
            ("two", 1, 3),
        }


# ---- somebody else's ----


def verbs(box: bytes) -> list[tuple[Message, bytes]]:
    """Every request that names a container."""
    return [
        (m.GetContainer(box), b""),
        (m.PutObject(box, "a", 9, WRITER, 1), b"x"),
        (m.GetObject(box, "a"), b""),
        (m.GetObject(box, "a", 1, WRITER), b""),
        (m.StatObject(box, "a"), b""),
        (m.ListObjects(box), b""),
        (m.DeleteObject(box, "a", 9, WRITER), b""),
        (m.PutContainer(box, "box", 1, (b"1" * 32,), 9, WRITER), b""),
    ]


async def answers(connection: Connection, box: bytes) -> list[bytes]:
    """Return each verb's Error as its bytes."""
    found = []
    for message, body in verbs(box):
        with pytest.raises(RequestFailed) as caught:
            if body:
                await connection.call(message, body, trailer=lambda: BodyDigest(sha(b"x")))
            else:
                await connection.call(message)
        error = caught.value
        found.append(encode(Error(error.code, error.outcome, str(error), error.retryable)))
    return found


async def test_node_answers_for_a_foreign_container_as_for_an_unknown_one(
    site: Any, make_user: Callable[[], Any]
) -> None:
    async with site() as node, node.client() as owner, node.client(make_user()) as other:
        await other.call(Register())
        box = container_id(owner.user.key, "box")
        unknown = await answers(other.connection, box)
        await owner.create("box")
        await owner.put("a", b"secret")
        assert await answers(other.connection, box) == unknown
        assert await owner.get("a") == b"secret"
        listed = await other.connection.call(m.ListContainers())
        assert [row async for row in listed.body.rows()] == []


# ---- damage ----


def flip(node: Any, at: int) -> None:
    (file,) = node.blobs
    with file.open("r+b") as blob:
        blob.seek(at)
        byte = blob.read(1)
        blob.seek(at)
        blob.write(bytes([byte[0] ^ 1]))


async def status(client: Any) -> NodeStatus:
    found = await client.call(GetStatus())
    assert isinstance(found, NodeStatus)
    return found


async def test_node_answers_corrupt_before_the_first_byte_and_says_so_in_its_status(
    site: Any,
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        info = await client.put("bad", LARGE)
        flip(node, 0)
        error = await client.refusal(m.GetObject(client.container, "bad"))
        assert error.code is ErrorCode.CORRUPT
        assert await client.stat("bad") == info
        while not (health := (await status(client)).health):
            await asyncio.sleep(0)
        assert health.startswith("damaged objects: 'bad'; put them again")
        await client.put("bad", LARGE, 1)
        assert await client.get("bad") == LARGE
        assert (await status(client)).health == ""


async def test_node_resets_a_read_when_it_meets_damage_and_sends_no_byte_of_it(
    site: Any,
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        data = os.urandom(6 << 20)
        await client.put("bad", data)
        flip(node, 4 << 20)
        answer = await client.connection.call(m.GetObject(client.container, "bad"))
        got = bytearray()
        with pytest.raises(RequestFailed) as caught:
            async for chunk in answer.body:
                got += chunk
        assert caught.value.code is ErrorCode.CORRUPT
        assert data.startswith(bytes(got))
        assert len(got) <= 4 << 20


# ---- many at once ----


async def test_node_loses_none_of_many_concurrent_puts(site: Any) -> None:
    async with site() as node, node.client() as one, node.client() as two:
        await one.create()
        two.container = one.container
        contents = {f"{n:03}": os.urandom(1 << (n % 18)) for n in range(200)}
        await asyncio.gather(
            *((one, two)[n % 2].put(path, data) for n, (path, data) in enumerate(contents.items()))
        )
        rows = await one.list()
        assert {row.path: row.sha256 for row in rows} == {p: sha(d) for p, d in contents.items()}
        for path, data in contents.items():
            assert await two.get(path) == data


async def test_node_shows_readers_whole_versions_only_and_ends_with_the_highest(
    site: Any,
) -> None:
    async with site() as node, node.client() as writer, node.client() as reader:
        await writer.create()
        reader.container = writer.container
        contents = {n: bytes([n]) * (30_000 + n) for n in range(1, 31)}
        await writer.put("hot", contents[1], 1)
        seen = []

        async def read_on() -> None:
            while True:
                answer = await reader.connection.call(m.GetObject(reader.container, "hot"))
                data = await answer.body.read()
                info = answer.message
                assert isinstance(info, m.ObjectInfo)
                assert data == contents[info.counter]
                seen.append(info.counter)

        reading = asyncio.create_task(read_on())
        results = await asyncio.gather(
            *(writer.put("hot", contents[n], n) for n in range(2, 31)), return_exceptions=True
        )
        highest = await reader.stat("hot")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert highest.counter == 30
        assert seen == sorted(seen)
        refused = [r for r in results if isinstance(r, BaseException)]
        assert {getattr(r, "code", r) for r in refused} <= {ErrorCode.VERSION_CONFLICT}
        for n, result in zip(range(2, 31), results, strict=True):
            if not isinstance(result, BaseException):
                assert await reader.get("hot", counter=n, writer=WRITER) == contents[n]


# ---- lists ----


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["a.txt", "a/1.bin", "a/b/2.txt", "b.txt"]),
        ({"prefix": "a/"}, ["a/1.bin", "a/b/2.txt"]),
        ({"pattern": "*.txt"}, ["a.txt", "b.txt"]),
        ({"pattern": "**/*.txt"}, ["a.txt", "a/b/2.txt", "b.txt"]),
        ({"prefix": "a/", "pattern": "**.txt"}, ["a/b/2.txt"]),
        ({"prefix": "b", "pattern": "a/*"}, []),
        ({"after": "a/1.bin"}, ["a/b/2.txt", "b.txt"]),
        ({"limit": 2}, ["a.txt", "a/1.bin"]),
        ({"tombstones": True, "prefix": "gone"}, ["gone"]),
    ],
)
async def test_node_lists_what_is_asked(
    site: Any, asked: dict[str, Any], expected: list[str]
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        for path in ("b.txt", "a/b/2.txt", "a.txt", "a/1.bin", "gone"):
            await client.put(path, path.encode())
        await client.delete("gone", 2)
        rows = await client.list(**asked)
        assert [row.path for row in rows] == expected
        for row in rows:
            assert row.deleted or row.sha256 == sha(row.path.encode())


@pytest.mark.parametrize("pattern", ["[a", "a\0", "[]"])
async def test_node_refuses_a_bad_pattern(site: Any, pattern: str) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        error = await client.refusal(m.ListObjects(client.container, pattern=pattern))
        assert error.code is ErrorCode.BAD_REQUEST
        assert "pattern" in str(error)


def many(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(count):
        yield (1, f"{n % 100:02}/{n:06}", 1, WRITER, n, bytes(32), 0, 1, None)


async def test_node_lists_100_000_objects_a_page_at_a_time(site: Any) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        store = node.node._host.store
        row = f"({','.join('?' * 9)})"
        rows = list(many(100_000))
        for at in range(0, len(rows), 2000):
            some = rows[at : at + 2000]
            sql = f"INSERT INTO data_objects VALUES {','.join([row] * len(some))}"
            await store.commit([(sql, [value for each in some for value in each])])
        answer = await client.connection.call(m.ListObjects(client.container))
        last, count = "", 0
        async for found, _ in answer.body.rows():
            assert found.path > last  # type: ignore[attr-defined]
            last, count = found.path, count + 1  # type: ignore[attr-defined]
        assert count == 100_000
        few = await client.list(pattern="42/*7", limit=5)
        assert [found.path for found in few] == []
        few = await client.list(pattern="47/*1047", limit=5)
        assert [found.path for found in few] == [
            f"47/{n:06}" for n in (1047, 11047, 21047, 31047, 41047)
        ]


async def test_node_makes_rows_only_as_fast_as_they_are_taken(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await asyncio.gather(*(client.put(f"{n:04}" + "x" * 1000, b"") for n in range(3000)))
        pages = []
        backend = node.node._backend
        objects = backend.objects

        async def counted(*args: Any) -> Any:
            pages.append(1)
            return await objects(*args)

        monkeypatch.setattr(backend, "objects", counted)
        answer = await client.connection.call(m.ListObjects(client.container))
        await asyncio.sleep(0.2)  # 3 MB of rows wait at the node: one window may leave
        assert 1 <= len(pages) <= 8
        rows = [row async for row in answer.body.rows()]
        assert len(rows) == 3000


# ---- status ----


async def test_node_counts_body_bytes_by_host_label(site: Any) -> None:
    async with site() as node, node.client(label="here") as here, node.client(label="there") as far:
        await here.create()
        far.container = here.container
        await here.put("a", bytes(1000))
        await far.get("a")
        await far.get("a", length=10)
        found = await status(here)
        assert found.traffic == (
            LabelTraffic("here", 0, 1000),
            LabelTraffic("there", 1010, 0),
        )
        assert (found.used_bytes, found.quota_bytes, found.health) == (1000, 0, "")
        assert found.disk_free > 0
