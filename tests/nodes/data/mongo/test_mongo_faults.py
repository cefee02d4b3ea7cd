"""Servers that are killed, hang or are away, under a data node at work, and nodes that are killed.

The objects are put by the manager library into a node's daemon, as users do.
"""

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alpyne_grid.nodes.data.records import Usage
from alpyne_grid.tools.contracts.data.bench import ANN
from mongo_bench import MIB, with_boxes
from mongo_site import PUTTERS, Site, content
from parts.mongo_set import MongoSet
from pymongo.errors import PyMongoError

from alpyne_proto.errors import AlpyneError

pytestmark = pytest.mark.crash

PAUSE_S = 20.0  # the longest that an election may make a client wait, on a busy machine


def when(site: Site, count: int, act: Callable[[], object]) -> threading.Thread:
    """Do something once ``count`` objects are acknowledged."""

    def wait() -> None:
        while len(site.acknowledged) < count:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_no_acknowledged_object_is_lost_or_torn_when_the_primary_is_killed_during_1000_puts(
    mongo_set: MongoSet, open_site: Callable[..., Site]
) -> None:
    site = open_site(mongo_set.uri)
    dead: list[int] = []

    def kill_again() -> None:
        mongo_set.restart(dead[0])
        mongo_set.kill_primary()

    paths = [f"{n % 7}/{n}" for n in range(1000)]
    first = when(site, 200, lambda: dead.append(mongo_set.kill_primary()))
    second = when(site, 600, kill_again)
    with ThreadPoolExecutor(PUTTERS) as putters:
        list(putters.map(site.put, paths))  # raises what any put raised
    first.join()
    second.join()
    assert len(site.acknowledged) == 1000
    assert max(site.acknowledged.values()) < PAUSE_S
    assert sorted(item.path for item in site.box.glob("**")) == sorted(paths)
    mongo_set.make_whole()
    site.check_all()


@pytest.mark.parametrize("after_s", [0.02, 0.08, 0.15])
async def test_back_end_starts_while_the_primary_changes(
    mongo_set: MongoSet, tmp_path: Path, after_s: float
) -> None:
    primary = mongo_set.primary()

    def step_down() -> None:
        time.sleep(after_s)
        with mongo_set.client(primary) as client, contextlib.suppress(PyMongoError):
            client.admin.command("replSetStepDown", 5, force=True)

    stepping = asyncio.create_task(asyncio.to_thread(step_down))
    async with with_boxes(mongo_set.uri, tmp_path) as backend:
        assert (await backend.usages())[ANN] == Usage(0, 1)
    await stepping


def test_puts_go_on_at_the_next_primary_when_one_hangs(
    mongo_set: MongoSet, open_site: Callable[..., Site]
) -> None:
    site = open_site(mongo_set.uri)
    hanging: list[int] = []

    def hang() -> None:
        hanging.append(mongo_set.primary())
        mongo_set.suspend(hanging[0])

    thread = when(site, 8, hang)
    try:
        # Few: while a member hangs, the set itself takes half a second for each write.
        with ThreadPoolExecutor(PUTTERS) as putters:
            list(putters.map(site.put, [f"{n}" for n in range(40)]))
        thread.join()
        assert mongo_set.process(hanging[0]) is not None
        site.check_all()
    finally:
        for index in hanging:
            mongo_set.resume(index)
    mongo_set.make_whole()
    site.check_all()


def refusal(act: Callable[[], object]) -> str:
    """Return what the manager says of something that is refused."""
    with pytest.raises(AlpyneError) as caught:
        act()
    return str(caught.value)


def test_node_refuses_writes_while_its_server_is_away_and_goes_on_without_a_restart(
    mongo_single: MongoSet, open_site: Callable[..., Site]
) -> None:
    site = open_site(mongo_single.uri, timeoutMS=1000)
    for n in range(20):
        site.put(f"before/{n}")
    pid = site.daemon.pid
    mongo_single.kill(0)
    try:
        for act in (
            lambda: site.put("a"),
            lambda: site.box.get("before/1"),
            lambda: list(site.box.glob("**")),
            lambda: site.box.delete("before/1"),
        ):
            said = refusal(act)
            assert f"MongoDB at 127.0.0.1:{mongo_single.ports[0]}" in said
            assert "no primary" in said
    finally:
        mongo_single.restart(0)
    mongo_single.primary()
    site.put("a")
    site.check_all()
    assert site.daemon.pid == pid
    assert "administrator:" not in site.daemon.log  # no URI, no password


def test_node_acknowledges_nothing_while_a_majority_is_away(
    mongo_set: MongoSet, open_site: Callable[..., Site]
) -> None:
    site = open_site(mongo_set.uri, timeoutMS=3000)
    site.put("before")
    primary = mongo_set.primary()
    others = [index for index in range(3) if index != primary]
    for index in others:
        mongo_set.kill(index)
    try:
        said = refusal(lambda: site.put("during"))
        assert "MongoDB at" in said
        assert "during" not in site.acknowledged
    finally:
        mongo_set.make_whole()
    for path in ("during", "after"):
        site.put(path)
    site.check_all()
    assert sorted(item.path for item in site.box.glob("**")) == ["after", "before", "during"]


def test_node_has_all_that_it_acknowledged_when_it_was_killed_during_puts(
    mongo_single: MongoSet, open_site: Callable[..., Site]
) -> None:
    site = open_site(mongo_single.uri)
    for life in range(2):
        thread = when(site, len(site.acknowledged) + 25, site.daemon.kill)

        def put_until_it_is_gone(putter: int, life: int = life) -> None:
            with contextlib.suppress(AlpyneError):
                for n in range(1000):
                    site.put(f"{life}/{putter}/{n}")

        with ThreadPoolExecutor(PUTTERS) as putters:
            list(putters.map(put_until_it_is_gone, range(PUTTERS)))
        thread.join()
        site.daemon.start()
        site.check_all()
        for item in site.box.glob("**"):  # whether acknowledged or not: whole
            assert site.box.get(item.path) == content(item.path)


@pytest.mark.slow
def test_node_keeps_its_memory_bounded_when_an_object_has_2_gib(
    mongo_single: MongoSet, open_site: Callable[..., Site]
) -> None:
    site = open_site(mongo_single.uri)
    block = os.urandom(4096) * 256  # a server packs it well: the disk is not what is tested

    def blocks() -> Iterator[bytes]:
        for n in range(2048):
            yield n.to_bytes(8, "big") + block[8:]

    site.box.put("large", blocks())
    sent, got = hashlib.sha256(), hashlib.sha256()
    for one in blocks():
        sent.update(one)
    for piece in site.box.stream("large"):
        got.update(piece)
    assert got.digest() == sent.digest()
    status = Path(f"/proc/{site.daemon.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    assert int(line.split()[1]) * 1024 < 200 * MIB
