"""Writes: k copies, replacements, conditions, and writers that overtake one another."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from alpyne_grid.manager.contents import BytesContent
from alpyne_grid.manager.errors import MaybeStale, NotEnoughCopies, VersionConflict
from alpyne_grid.manager.versions import write_order
from alpyne_grid.manager.writes import ANYTHING, ROUNDS, Condition, Writes

from alpyne_proto.messages import data as messages

ABSENT = Condition(messages.Expect.ABSENT)


def put(
    nodes: Any, data: bytes = b"x", copies: int = 2, condition: Condition = ANYTHING
) -> tuple[tuple[int, bytes], tuple[bytes, ...]]:
    return asyncio.run(_put(nodes, data, copies, condition))


def _put(
    nodes: Any, data: bytes, copies: int, condition: Condition
) -> Coroutine[Any, Any, tuple[tuple[int, bytes], tuple[bytes, ...]]]:
    writes = Writes(nodes)
    return writes.put(nodes.container(copies), "o", BytesContent(data), condition)


def order(nodes: Any) -> list[str]:
    """Return the nodes' names in the order in which an object "o" is offered to them."""
    return [key[:1].decode() for key in write_order(list(nodes.links), "o")]


def holders(nodes: Any) -> list[str]:
    return [name for name in order(nodes) if nodes[name].versions.get("o")]


def test_put_writes_the_next_counter_to_k_members(nodes: Any) -> None:
    first, keys = put(nodes)
    assert first[0] == 1 and len(keys) == 2
    assert holders(nodes) == order(nodes)[:2]
    second, _ = put(nodes)
    assert second[0] == 2 and second[1] != first[1]


def test_put_goes_above_the_newest_version_of_any_member(nodes: Any) -> None:
    nodes[order(nodes)[2]].versions["o"] = {(7, b"w" * 16): b"old"}
    assert put(nodes)[0][0] == 8


def test_put_replaces_a_member_that_fails_by_the_next(nodes: Any, lost: Any) -> None:
    def die(node: Any, message: Any) -> None:
        if isinstance(message, messages.PutObject):
            raise lost

    nodes[order(nodes)[0]].before = die
    _, keys = put(nodes)
    assert {key[:1].decode() for key in keys} == set(order(nodes)[1:])


def test_put_takes_members_that_are_up_before_those_that_are_not(nodes: Any) -> None:
    nodes[order(nodes)[0]].is_up = False
    put(nodes)
    assert holders(nodes) == order(nodes)[1:]


def test_put_names_what_exists_when_too_few_members_take_it(nodes: Any) -> None:
    for name in order(nodes)[1:]:
        nodes[name].is_up = False
    with pytest.raises(NotEnoughCopies) as raised:
        put(nodes)
    error = raised.value
    assert error.holders == (order(nodes)[0],)
    assert set(error.failures) == set(order(nodes)[1:])
    assert f"version 1 is on {order(nodes)[0]}" in str(error)


def test_put_tells_a_member_of_the_container_when_it_missed_that(nodes: Any) -> None:
    nodes[order(nodes)[0]].has_container = False
    put(nodes)
    assert holders(nodes) == order(nodes)[:2]


def test_put_tries_again_above_a_writer_that_was_faster(nodes: Any) -> None:
    def overtake(node: Any, message: Any) -> None:
        if isinstance(message, messages.PutObject) and message.counter == 1:
            node.versions["o"] = {(3, b"z" * 16): b"faster"}

    nodes[order(nodes)[0]].before = overtake
    version, _ = put(nodes)
    assert version[0] == 4


def test_put_gives_up_when_others_keep_being_faster(nodes: Any) -> None:
    def overtake(node: Any, message: Any) -> None:
        if isinstance(message, messages.PutObject):
            node.versions["o"] = {(message.counter, b"\xff" * 16): b"faster"}

    for name in "abc":
        nodes[name].before = overtake
    with pytest.raises(VersionConflict, match=f"{ROUNDS} times"):
        put(nodes)


def test_conditional_put_is_decided_by_one_member_and_followed_by_the_others(nodes: Any) -> None:
    put(nodes, condition=ABSENT)
    expects = {
        name: [m.expect for m in nodes[name].asked if isinstance(m, messages.PutObject)]
        for name in order(nodes)
    }
    first, second, third = order(nodes)
    assert expects == {first: [messages.Expect.ABSENT], second: [messages.Expect.ANY], third: []}


def test_conditional_put_writes_nowhere_when_the_condition_does_not_hold(nodes: Any) -> None:
    put(nodes)
    with pytest.raises(VersionConflict, match="expected none, there is version 1"):
        put(nodes, condition=ABSENT)
    wrong = Condition(messages.Expect.VERSION, (1, b"another writer!!"))
    with pytest.raises(VersionConflict, match="expected version 1"):
        put(nodes, condition=wrong)
    assert all(len(node.versions.get("o", {})) <= 1 for node in nodes.links.values())


def test_conditional_put_that_lost_the_race_says_so(nodes: Any) -> None:
    def overtake(node: Any, message: Any) -> None:
        if isinstance(message, messages.PutObject):
            node.versions["o"] = {(1, b"z" * 16): b"faster"}

    nodes[order(nodes)[0]].before = overtake
    with pytest.raises(VersionConflict, match="expected none"):
        put(nodes, condition=ABSENT)


def test_conditional_put_holds_though_a_newer_version_follows_at_once(nodes: Any) -> None:
    def overtake(node: Any, message: Any) -> None:
        if isinstance(message, messages.PutObject):
            node.versions["o"] = {(2, b"z" * 16): b"newer"}

    nodes[order(nodes)[1]].before = overtake
    version, keys = put(nodes, condition=ABSENT)
    assert (version[0], len(keys)) == (1, 1)


def test_only_one_of_two_conditional_puts_wins_when_they_run_side_by_side(nodes: Any) -> None:
    async def main() -> list[Any]:
        both = (_put(nodes, data, 2, ABSENT) for data in (b"one", b"two"))
        return await asyncio.gather(*both, return_exceptions=True)

    results = asyncio.run(main())
    assert sorted(isinstance(result, VersionConflict) for result in results) == [False, True]


def test_delete_writes_a_tombstone_to_every_member_that_is_up(nodes: Any) -> None:
    put(nodes)
    nodes[order(nodes)[2]].is_up = False
    version, keys = asyncio.run(Writes(nodes).delete(nodes.container(2), "o", ANYTHING))
    assert (version[0], len(keys)) == (2, 2)
    assert all(nodes[name].newest("o").deleted for name in order(nodes)[:2])


def test_newest_needs_enough_answers(nodes: Any) -> None:
    put(nodes)
    for name in order(nodes)[1:]:
        nodes[name].is_up = False
    ask = Writes(nodes).ask_newest
    assert asyncio.run(ask(nodes.container(2), "o", needed=1)).counter == 1
    with pytest.raises(MaybeStale, match="1 members answered, 2 are needed"):
        asyncio.run(ask(nodes.container(2), "o", needed=2))
