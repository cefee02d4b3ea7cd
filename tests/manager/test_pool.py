"""The pool file: nodes, trust, and the highest generations seen."""

import threading
from pathlib import Path

import pytest
from alpyne_grid.manager import pool as pools
from alpyne_grid.manager.errors import PoolError
from alpyne_grid.manager.pool import Pool, PoolNode, Seen

from alpyne_proto.address import Address
from alpyne_proto.messages.hello import NodeKind


def node(number: int, *, trusted: bool = True, name: str = "") -> PoolNode:
    address = Address((("127.0.0.1", 7000 + number),), bytes([number]) * 32)
    return PoolNode(address, NodeKind.COMPUTE, trusted, "host", name)


def test_pool_without_a_file_is_empty(tmp_path: Path) -> None:
    assert pools.load(tmp_path) == Pool()


def test_pool_has_what_was_saved(tmp_path: Path) -> None:
    pools.save_node(tmp_path, node(1, trusted=False, name="big"))
    pools.save_node(tmp_path, node(2))
    pools.note(tmp_path, node(2).key, Seen(b"s" * 16, 3), NodeKind.DATA, "other")
    found = pools.load(tmp_path)
    assert next(iter(found.nodes.values())) == node(1, trusted=False, name="big")
    assert (found.nodes[node(2).key].kind, found.nodes[node(2).key].label) == (
        NodeKind.DATA,
        "other",
    )
    assert found.seen == {node(2).key: Seen(b"s" * 16, 3)}
    pools.remove_node(tmp_path, node(1).key)
    assert list(pools.load(tmp_path).nodes) == [node(2).key]


def test_pool_keeps_the_highest_generation_of_a_store(tmp_path: Path) -> None:
    for generation in (3, 5, 4):
        pools.note(tmp_path, b"k" * 32, Seen(b"s" * 16, generation), NodeKind.DATA, "")
    assert pools.load(tmp_path).seen[b"k" * 32].generation == 5


def test_pool_loses_no_node_when_many_are_paired_at_once(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=pools.save_node, args=(tmp_path, node(n))) for n in range(1, 13)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pools.load(tmp_path).nodes) == 12


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"version": 2, "nodes": []}',
        '{"version": 1, "nodes": [{"address": "alpyne://x:1"}]}',
        '{"version": 1}',
    ],
)
def test_pool_refuses_a_file_that_is_none_and_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / pools.FILE).write_text(content)
    with pytest.raises(PoolError, match="pair anew"):
        pools.load(tmp_path)


def test_node_is_not_trusted_when_the_file_does_not_say_so(tmp_path: Path) -> None:
    text = f'{{"version": 1, "nodes": [{{"address": "{node(1).address}"}}]}}'
    (tmp_path / pools.FILE).write_text(text)
    assert not pools.load(tmp_path).nodes[node(1).key].trusted


@pytest.mark.parametrize("text", ["big", "127.0.0.1:7001", str(node(1).address), "AQEBA"])
def test_node_is_found_by_name_route_address_or_start_of_its_key(text: str) -> None:
    pool = Pool({n.key: n for n in (node(1, name="big"), node(2))})
    assert pool.find(text) == node(1, name="big")


@pytest.mark.parametrize("text", ["", "AQ", "small"])
def test_node_that_is_not_there_is_answered_with_those_that_are(text: str) -> None:
    pool = Pool({n.key: n for n in (node(1, name="big"), node(2))})
    with pytest.raises(PoolError, match=r"no node named .*known are: big, 127"):
        pool.find(text)


def test_addresses_of_a_program_keep_what_the_pool_says_of_their_keys() -> None:
    known = Pool({node(1).key: node(1, trusted=False)})
    moved = Address((("10.0.0.1", 1),), node(1).key)
    first, second = pools.from_addresses([str(moved), str(node(2).address)], known)
    assert (first.address, first.trusted) == (moved, False)
    assert second.trusted


def test_distrust_takes_trust_from_the_named_nodes_only() -> None:
    first, second = pools.distrust([node(1), node(2)], [str(node(2).address)])
    assert (first.trusted, second.trusted) == (True, False)
    with pytest.raises(PoolError):
        pools.distrust([node(1)], ["nobody"])
