"""Where a map's items come from: the program's iterables, read as the map has room.

A plain iterable is read in a thread of its own: it may block, on a file or on another map's
results, and the event loop must not. What is read is pickled there too.
"""

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from alpyne_grid.manager.errors import ProgramError

Item = tuple[Any, ...]
Items = Iterable[Item] | AsyncIterable[Item]
_T = TypeVar("_T")
_Order = tuple[int, Callable[[list[Item]], Any], "asyncio.Future[Any]"]


class ItemSource(Protocol):
    """A map's items."""

    async def take(self, count: int, make: Callable[[list[Item]], _T]) -> tuple[list[Item], _T]:
        """Return the next ``count`` items, fewer only at the end, and what ``make`` made of them.

        Raises what the program's iterable raises.
        """
        ...

    @property
    def left(self) -> int | None:
        """How many items are left, where that is known."""
        ...

    def close(self) -> None:
        """Nobody takes items any more."""
        ...


def length_of(iterables: Iterable[Any]) -> int | None:
    """Return how many items the shortest of ``iterables`` has, or None where one does not say."""
    lengths = []
    for iterable in iterables:
        try:
            lengths.append(len(iterable))
        except TypeError:
            return None
    return min(lengths, default=None)


def as_tuples(iterables: tuple[Any, ...]) -> Items:
    """Return the items of the iterables side by side, as tuples; asynchronous where one is."""
    if not iterables:
        raise ProgramError("map: expected at least one iterable of items")
    if any(isinstance(iterable, AsyncIterable) for iterable in iterables):
        return _zip_async(iterables)
    for iterable in iterables:
        if not isinstance(iterable, Iterable):
            kind = type(iterable).__name__
            raise ProgramError(f"map: expected something to iterate over, got {kind}")
    return _Zipped(iterables)


class _Zipped:
    """As zip, begun anew by each iteration."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self._iterables = iterables

    def __iter__(self) -> Iterator[Item]:
        return zip(*self._iterables, strict=False)


async def _zip_async(iterables: tuple[Any, ...]) -> AsyncIterator[Item]:
    iterators = [
        aiter(one) if isinstance(one, AsyncIterable) else _as_async(one) for one in iterables
    ]
    while True:
        try:
            yield tuple([await anext(iterator) for iterator in iterators])
        except StopAsyncIteration:
            return


async def _as_async(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class ThreadSource:
    """Items of a plain iterable, read in a thread."""

    def __init__(self, items: Iterable[Item], length: int | None) -> None:
        self._items = items
        self._length = length
        self._taken = 0
        self._loop = asyncio.get_running_loop()
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def left(self) -> int | None:
        return None if self._length is None else max(0, self._length - self._taken)

    async def take(self, count: int, make: Callable[[list[Item]], _T]) -> tuple[list[Item], _T]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="alpyne-items", daemon=True)
            self._thread.start()
        answer: asyncio.Future[tuple[list[Item], _T]] = self._loop.create_future()
        self._orders.put((count, make, answer))
        items, made = await answer
        self._taken += len(items)
        return items, made

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._orders.put(None)

    def _run(self) -> None:
        """In the thread: read, and make."""
        iterator: Iterator[Item] | None = None
        while (order := self._orders.get()) is not None:
            count, make, answer = order
            result: Any = None
            error: BaseException | None = None
            try:
                if iterator is None:
                    iterator = iter(self._items)
                items = list(islice(iterator, count))
                result = (items, make(items))
            except BaseException as problem:  # noqa: BLE001 - raised where the items are taken
                error = problem
            try:
                self._loop.call_soon_threadsafe(_settle, answer, result, error)
            except RuntimeError:
                return  # the loop is closed: the program ends
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


class AsyncSource:
    """Items of an asynchronous iterable."""

    def __init__(self, items: AsyncIterable[Item]) -> None:
        self._items: AsyncIterator[Item] = aiter(items)

    @property
    def left(self) -> int | None:
        return None

    async def take(self, count: int, make: Callable[[list[Item]], _T]) -> tuple[list[Item], _T]:
        items: list[Item] = []
        while len(items) < count:
            try:
                items.append(await anext(self._items))
            except StopAsyncIteration:
                break
        return items, make(items)

    def close(self) -> None:
        """Nothing is under way between two calls."""


def source_of(items: Items, length: int | None = None) -> ItemSource:
    """Return the source for what the program gave; ProgramError for what cannot be iterated."""
    if isinstance(items, AsyncIterable):
        return AsyncSource(items)
    if isinstance(items, Iterable):
        return ThreadSource(items, length)
    raise ProgramError(f"items: expected something to iterate over, got {type(items).__name__}")


def _settle(answer: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    elif isinstance(error, StopIteration):
        answer.set_exception(RuntimeError("the items' iterator raised StopIteration"))
    else:
        answer.set_exception(error)
