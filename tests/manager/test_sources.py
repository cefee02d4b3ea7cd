"""Items of maps: read in a thread of their own, as many as are asked for."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from alpyne_grid.manager.errors import ProgramError
from alpyne_grid.manager.sources import AsyncSource, as_tuples, length_of, source_of


def take_all(items: Any, count: int = 2, length: int | None = None) -> list[list[Any]]:
    async def main() -> list[list[Any]]:
        source = source_of(items, length)
        taken = []
        while True:
            some, made = await source.take(count, len)
            assert made == len(some)
            if some:
                taken.append(some)
            if len(some) < count:
                source.close()
                return taken

    return asyncio.run(main())


def test_items_are_taken_in_order_as_many_as_asked() -> None:
    assert take_all(as_tuples(([1, 2, 3],))) == [[(1,), (2,)], [(3,)]]


def test_iterables_are_taken_side_by_side_up_to_the_shortest() -> None:
    assert take_all(as_tuples((range(9), "ab"))) == [[(0, "a"), (1, "b")]]
    assert length_of((range(9), "ab")) == 2
    assert length_of((range(9), iter("ab"))) is None


def test_asynchronous_and_plain_iterables_go_together() -> None:
    async def letters() -> AsyncIterator[str]:
        for letter in "abc":
            yield letter

    items = as_tuples((letters(), range(9)))
    assert take_all(items) == [[("a", 0), ("b", 1)], [("c", 2)]]


def test_plain_iterable_is_read_in_another_thread_and_always_the_same() -> None:
    threads = set()

    def items() -> Iterator[tuple[int]]:
        for number in range(5):
            threads.add(threading.get_ident())
            yield (number,)

    take_all(items())
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_error_of_the_items_is_raised_to_who_takes_them() -> None:
    def items() -> Iterator[tuple[int]]:
        yield (1,)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        take_all(items())


def test_generator_is_closed_when_nobody_takes_more() -> None:
    closed = threading.Event()

    def items() -> Iterator[tuple[int]]:
        try:
            while True:
                yield (1,)
        finally:
            closed.set()

    async def main() -> None:
        source = source_of(items())
        await source.take(3, len)
        source.close()

    asyncio.run(main())
    assert closed.wait(5)


def test_items_left_are_known_when_their_number_is() -> None:
    async def main() -> None:
        source = source_of(as_tuples((range(5),)), 5)
        assert source.left == 5
        await source.take(2, len)
        assert source.left == 3
        source.close()

    asyncio.run(main())


def test_source_is_asynchronous_for_asynchronous_items() -> None:
    async def nothing() -> AsyncIterator[Any]:
        return
        yield

    async def main() -> None:
        assert isinstance(source_of(nothing()), AsyncSource)

    asyncio.run(main())


@pytest.mark.parametrize("given", [(), (3,), ([1], None)])
def test_what_cannot_be_iterated_is_refused(given: Any) -> None:
    with pytest.raises(ProgramError):
        as_tuples(given)
