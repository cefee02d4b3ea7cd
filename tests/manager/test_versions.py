"""Versions: the newest among answers, and the order in which members are asked."""

from collections import Counter

from alpyne_grid.manager.versions import Descriptor, newest, read_order, write_order
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.messages.data import ObjectInfo

MEMBERS = [bytes([n]) * 32 for n in range(5)]


def info(counter: int, writer: bytes = b"w" * 16, *, deleted: bool = False) -> ObjectInfo:
    return ObjectInfo(counter, writer, 1, b"h" * 32, deleted)


def test_newest_is_the_highest_counter_and_its_holders() -> None:
    found = newest({b"a": info(1), b"b": info(2), b"c": info(2), b"d": ObjectInfo(0)})
    assert (found.counter, found.holders, found.exists) == (2, (b"b", b"c"), True)


def test_newest_is_decided_by_the_writer_when_counters_are_equal() -> None:
    found = newest({b"a": info(2, b"x" * 16), b"b": info(2, b"y" * 16)})
    assert found.holders == (b"b",)


def test_newest_is_a_tombstone_when_that_is_newer() -> None:
    found = newest({b"a": info(1), b"b": info(2, deleted=True)})
    assert not found.exists and found.counter == 2


def test_newest_of_nothing_is_nothing() -> None:
    assert newest({}).info is None
    assert newest({b"a": ObjectInfo(0)}).counter == 0


def test_write_order_is_the_same_for_everybody_and_even_over_paths() -> None:
    assert write_order(MEMBERS, "a/b") == write_order(list(reversed(MEMBERS)), "a/b")
    first = Counter(write_order(MEMBERS, f"path/{n}")[0] for n in range(1000))
    assert set(first) == set(MEMBERS) and min(first.values()) > 120


def test_read_order_begins_with_holders_on_this_machine() -> None:
    assert read_order(MEMBERS, [MEMBERS[3]], "p")[0] == MEMBERS[3]


@given(st.integers(1, 8), st.integers(1, 8), st.randoms())
def test_newest_version_is_among_any_answers_that_suffice(n: int, k: int, random: object) -> None:
    k = min(n, k)
    members = tuple(bytes([m]) * 32 for m in range(n))
    where = Descriptor(b"c" * 16, "c", k, members, (1, b"w" * 16))
    shuffle = random.sample  # type: ignore[attr-defined]
    holders = set(shuffle(members, k))
    asked = shuffle(members, where.answers_needed)
    answers = {m: info(7) if m in holders else info(6) for m in asked}
    assert newest(answers).counter == 7
