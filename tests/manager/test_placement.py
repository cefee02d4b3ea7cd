"""Placement: what a node must have, and which node is taken."""

import pytest
from alpyne_grid.manager.placement import (
    PIPELINE_BYTES,
    Node,
    NodeFacts,
    Wants,
    choose,
    heaviest_labels,
    misfit,
)

from alpyne_proto.messages.compute import Operator, Requirement
from alpyne_proto.offer import Asked

KEY = b"k" * 32


def node(name: str, slots: int = 2, score: float = 0.0, queued: int = 0, load: float = 0.0) -> Node:
    made = Node(name.encode() * 32, NodeFacts(name, slots, score=score, queued=queued, load=load))
    made.came_up(made.facts)
    return made


@pytest.mark.parametrize(
    ("wants", "why"),
    [
        (Wants(only=frozenset({b"other"})), "not among the nodes asked for"),
        (Wants(without=frozenset({KEY})), "refused it"),
        (Wants(trusted=True), "not a trusted node"),
        (Wants(cpus=3), "has 2 slots, asked cpus=3"),
        (Wants(python="3.9"), "has Python 3.11,3.12, the code needs 3.9"),
        (Wants(asked=Asked(memory_bytes=200)), "has 100 bytes of memory, asked memory=200"),
        (Wants(requirements=(Requirement("os", Operator.EQUAL, "plan9"),)), "os is 'linux'"),
    ],
)
def test_misfit_says_why_when_a_node_lacks_something(wants: Wants, why: str) -> None:
    attributes = {
        "pythons": "3.11,3.12",
        "memory_bytes": "100",
        "limit.memory": "sampled",
        "os": "linux",
    }
    facts = NodeFacts("n", 2, attributes, trusted=False)
    assert misfit(facts, KEY, wants).startswith(why)


def test_misfit_refuses_what_the_node_does_not_enforce_or_list() -> None:
    facts = NodeFacts("n", 2, {"limit.disk": "none", "images": "a,b"})
    disk = misfit(facts, KEY, Wants(asked=Asked(disk_bytes=1)))
    assert disk == "does not enforce a limit on disk (limit.disk is none)"
    image = misfit(facts, KEY, Wants(asked=Asked(image="c")))
    assert image == "does not list the image 'c' for jobs (images: a, b)"


def test_choose_takes_the_faster_node_when_both_are_idle() -> None:
    slow, fast = node("s", score=50.0), node("f", score=100.0)
    assert choose([slow, fast], "f", 1, 0, 0.0) is fast


def test_choose_takes_the_slower_node_when_the_faster_one_is_busy_enough() -> None:
    slow, fast = node("s", score=50.0), node("f", score=100.0)
    for number in range(2):
        fast.take(bytes([number]), 1, 0)
    assert choose([slow, fast], "f", 1, 0, 0.0) is slow


def test_choose_counts_the_queue_of_other_accounts() -> None:
    busy, idle = node("b", queued=10), node("i")
    assert choose([busy, idle], "f", 1, 0, 0.0) is idle


def test_choose_counts_the_load_of_other_programs() -> None:
    loaded, idle = node("l", load=4.0), node("i")
    assert choose([loaded, idle], "f", 1, 0, 0.0) is idle


def test_choose_takes_a_node_without_score_as_average() -> None:
    known, unknown = node("k", score=100.0), node("u")
    assert choose([known, unknown], "f", 1, 0, 0.0) is known
    known.take(b"1", 1, 0)
    assert choose([known, unknown], "f", 1, 0, 0.0) is unknown


@pytest.mark.parametrize("spoil", ["down", "paused", "no slots"])
def test_choose_passes_over_a_node_that_cannot_take_work(spoil: str) -> None:
    only = node("n")
    if spoil == "down":
        only.up = False
    elif spoil == "paused":
        only.paused_until = 1.0
    else:
        only.slots = 0
    assert choose([only], "f", 1, 0, 0.0) is None


def test_node_takes_large_jobs_only_as_far_as_its_slots_go() -> None:
    only = node("n", slots=1)
    only.learn("f", 0.0)
    only.take(b"1", 1, PIPELINE_BYTES)
    assert only.has_room("f", 1, 1, 0.0)
    only.take(b"2", 1, 1)
    assert not only.has_room("f", 1, 1, 0.0)
    assert only.give(b"1", 1, PIPELINE_BYTES)
    assert only.has_room("f", 1, 1, 0.0)


def test_labels_are_those_with_most_bytes() -> None:
    assert heaviest_labels({"a": 5, "b": 7, "c": 7, "": 9}) == frozenset()
    assert heaviest_labels({"a": 5, "b": 7, "c": 7}) == {"b", "c"}
    assert heaviest_labels({}) == frozenset()
