"""Reduce: neighbours, in order, in a tree; never all parts at once."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
from alpyne_grid.manager.errors import ProgramError
from alpyne_grid.manager.reduce import NOTHING, groups, tree
from alpyne_grid.manager.sources import source_of

from alpyne_proto.jobobject import JobObject, fold, install_reader


def concatenate(parts: Any, fan_in: int = 3, initial: Any = NOTHING) -> tuple[str, int, list[str]]:
    """Reduce texts by addition; return the result, the depth, and every group that was folded."""
    folded: list[str] = []

    async def level(values: Any, first: Any) -> AsyncIterator[str]:
        items, _ = groups(values, fan_in, first)
        source = source_of(items)
        while True:
            (taken, _) = await source.take(1, lambda some: some)
            if not taken:
                source.close()
                return
            (group,) = taken[0]
            folded.append("|".join(group))
            yield fold(lambda left, right: left + right, group)

    result, depth = asyncio.run(tree(level, parts, initial))
    return result, depth, folded


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 28])
def test_reduce_keeps_the_order_of_its_parts(count: int) -> None:
    letters = [chr(ord("A") + n) for n in range(count)]
    result, _, folded = concatenate(letters)
    assert result == "".join(letters)
    assert all(len(group.split("|")) <= 3 for group in folded)


def test_reduce_of_a_thousand_parts_is_a_tree() -> None:
    result, depth, _ = concatenate([str(n % 10) for n in range(1000)], fan_in=10)
    assert (len(result), depth) == (1000, 3)


def test_reduce_begins_with_the_initial_value() -> None:
    assert concatenate(["b", "c"], initial="a")[0] == "abc"
    assert concatenate([], initial="a")[0] == "a"


def test_reduce_of_nothing_is_an_error() -> None:
    with pytest.raises(TypeError, match="no parts"):
        concatenate([])


def test_reduce_takes_asynchronous_parts() -> None:
    async def parts() -> AsyncIterator[str]:
        for letter in "abcdefg":
            yield letter

    assert concatenate(parts())[0] == "abcdefg"


def test_reduce_folds_first_groups_before_it_has_taken_the_last_parts() -> None:
    taken = []

    def parts() -> Iterator[str]:
        for number in range(30):
            taken.append(number)
            yield str(number % 10)

    seen: list[int] = []

    async def level(values: Any, first: Any) -> AsyncIterator[str]:
        items: Any = groups(values, 3, first)[0]
        iterator = aiter(items) if hasattr(items, "__aiter__") else _aiter(items)
        async for (group,) in iterator:
            seen.append(len(taken))
            yield "".join(group)

    asyncio.run(tree(level, parts()))
    assert seen[0] == 3


async def _aiter(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def test_groups_are_counted_when_the_parts_are() -> None:
    assert groups([1] * 10, 3)[1] == 4
    assert groups([1] * 9, 3, 0)[1] == 4
    assert groups(iter([1]), 3)[1] is None


def test_groups_of_what_cannot_be_iterated_are_refused() -> None:
    with pytest.raises(ProgramError, match="iterate"):
        groups(3, 3)


def test_fold_loads_value_objects_one_at_a_time() -> None:
    loaded: list[str] = []

    class Reader:
        def read(self, item: JobObject, offset: int, length: int) -> bytes:
            raise AssertionError

        def stream(self, item: JobObject) -> Iterator[bytes]:
            raise AssertionError

        def value(self, item: JobObject) -> str:
            loaded.append(item.path)
            return item.path

    install_reader(Reader())
    try:
        items = [JobObject(b"c" * 16, path, 1, b"w" * 16, 1, b"h" * 32) for path in "ab"]

        def join(left: str, right: str) -> str:
            assert loaded[-1] == right
            return left + right

        assert fold(join, items) == "ab"
    finally:
        install_reader(None)
