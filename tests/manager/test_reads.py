"""Reads: from a holder, and on at the next where one is lost, damaged, or sends what it likes."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager.errors import ObjectUnavailable
from alpyne_grid.manager.reads import Reads

from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.jobobject import JobObject

DATA = bytes(range(256)) * 40


def read(nodes: Any, item: JobObject, *where: int) -> bytes:
    return asyncio.run(Reads(nodes).read(item, *where))


def stream(nodes: Any, item: JobObject, *where: int) -> bytes:
    async def main() -> bytes:
        return b"".join([piece async for piece in Reads(nodes).stream(item, *where)])

    return asyncio.run(main())


def to_file(nodes: Any, item: JobObject, folder: Path) -> bytes:
    """Read into a file and return what it holds."""
    path = folder / "file"
    descriptor = asyncio.run(
        Reads(nodes).to_file(item, lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    )
    os.close(descriptor)
    return path.read_bytes()


def asked(nodes: Any) -> list[str]:
    return [name for name in "abc" if nodes[name].asked]


def spoil(nodes: Any, how: Any, *names: str) -> None:
    for name in names:
        nodes[name].spoil = how


def test_read_asks_one_holder_when_that_serves(nodes: Any) -> None:
    item = nodes.give(DATA, "a", "b")
    assert read(nodes, item) == stream(nodes, item) == DATA
    assert len(asked(nodes)) == 1 and nodes.failovers == []


def test_read_asks_the_holder_on_this_machine_first(nodes: Any) -> None:
    item = nodes.give(DATA, "a", "b", "c")
    nodes["b"].label = "here"
    assert read(nodes, item) == DATA
    assert asked(nodes) == ["b"]


def test_read_asks_a_holder_that_is_down_last(nodes: Any) -> None:
    item = nodes.give(DATA, "a", "b", "c")
    nodes["a"].is_up = nodes["b"].is_up = False
    assert read(nodes, item) == DATA
    assert nodes.failovers == []


@pytest.mark.parametrize("where", [(0, 10), (100, 50), (len(DATA) - 5, 100), (len(DATA), 1)])
def test_read_gives_the_part_that_was_asked_for(nodes: Any, where: tuple[int, int]) -> None:
    item = nodes.give(DATA, "a")
    wanted = DATA[where[0] : where[0] + where[1]]
    assert read(nodes, item, *where) == stream(nodes, item, *where) == wanted


def test_stream_goes_on_at_the_byte_where_its_node_was_lost(nodes: Any, lost: Any) -> None:
    item = nodes.give(DATA, "a", "b")
    spoil(nodes, lambda data: [data[:1000], lost] if len(data) == len(DATA) else [data], "a", "b")
    assert stream(nodes, item) == DATA
    offsets = [request.offset for name in "ab" for request in nodes[name].asked]
    assert sorted(offsets) == [0, 1000]
    assert len(nodes.failovers) == 1


def test_file_goes_on_at_the_byte_where_its_node_was_lost(
    nodes: Any, lost: Any, tmp_path: Path
) -> None:
    item = nodes.give(DATA, "a", "b")
    spoil(nodes, lambda data: [data[:1000], lost] if len(data) == len(DATA) else [data], "a", "b")
    assert to_file(nodes, item, tmp_path) == DATA


def test_read_is_taken_elsewhere_when_a_node_says_that_it_is_corrupt(nodes: Any) -> None:
    item = nodes.give(DATA, "a", "b")
    corrupt = RequestFailed(ErrorCode.CORRUPT, "a block does not check")
    spoil(nodes, lambda data: [data[:10], corrupt], "a")
    for _ in range(3):
        assert read(nodes, item) == stream(nodes, item) == DATA


def test_damaged_bytes_are_never_returned_as_good(nodes: Any, tmp_path: Path) -> None:
    item = nodes.give(DATA, "a", "b")
    for name in "ab":
        nodes[name].versions["o"] = {(1, b"w" * 16): b"\x01" + DATA[1:]}
    for how in (read, stream):
        with pytest.raises(ObjectUnavailable):
            how(nodes, item)
    with pytest.raises(ObjectUnavailable):
        to_file(nodes, item, tmp_path)


def test_damaged_copy_is_read_elsewhere(nodes: Any, tmp_path: Path) -> None:
    item = nodes.give(DATA, "a", "b")
    nodes["a"].versions["o"] = {(1, b"w" * 16): b"\x01" + DATA[1:]}
    assert read(nodes, item) == to_file(nodes, item, tmp_path) == DATA


@pytest.mark.parametrize("extra", [1, 10_000])
def test_node_that_sends_more_than_the_object_has_is_left(
    nodes: Any, extra: int, tmp_path: Path
) -> None:
    item = nodes.give(DATA, "a", "b")
    spoil(nodes, lambda data: [data, b"x" * extra], "a")
    for _ in range(2):
        assert read(nodes, item) == stream(nodes, item) == DATA
        assert to_file(nodes, item, tmp_path) == DATA


def test_node_that_sends_less_than_the_object_has_is_left(nodes: Any, tmp_path: Path) -> None:
    item = nodes.give(DATA, "a", "b")
    spoil(nodes, lambda data: [data[: len(data) // 2]], "a")
    assert read(nodes, item) == stream(nodes, item) == to_file(nodes, item, tmp_path) == DATA


def test_read_says_of_each_holder_why_it_could_not_serve(nodes: Any) -> None:
    item = nodes.give(DATA, "a", "b")
    nodes["a"].is_up = False
    nodes["b"].versions.clear()
    with pytest.raises(ObjectUnavailable) as raised:
        read(nodes, item)
    assert "a: node a cannot be reached" in str(raised.value)
    assert "b: no such version" in str(raised.value)


def test_object_without_holders_is_unavailable(nodes: Any) -> None:
    item = nodes.give(DATA)
    with pytest.raises(ObjectUnavailable, match="none of its 0 holders"):
        read(nodes, item)


def test_empty_object_is_read_from_a_holder_too(nodes: Any, tmp_path: Path) -> None:
    item = nodes.give(b"", "a")
    assert read(nodes, item) == stream(nodes, item) == to_file(nodes, item, tmp_path) == b""
    nodes["a"].versions.clear()
    with pytest.raises(ObjectUnavailable):
        stream(nodes, item)
