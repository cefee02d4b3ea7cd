"""Reduce: neighbours combined in a tree on the nodes; associative, not commutative, in order.

Each level is a map over groups of neighbours, which a node folds from left to right; its results,
in order, are the next level's parts. Levels overlap, and each holds a window of its parts only.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from alpyne_grid.manager.errors import ProgramError
from alpyne_grid.manager.program import name_of
from alpyne_grid.manager.sources import Items, length_of

from alpyne_proto.jobobject import fold

FAN_IN = 16
NOTHING: Any = object()
T = TypeVar("T")


def groups(parts: Any, fan_in: int, initial: Any = NOTHING) -> tuple[Items, int | None]:
    """Return the groups of neighbours as a map's items, and how many they are, where known."""
    if isinstance(parts, AsyncIterable):
        return _groups_async(parts, fan_in, initial), None
    if not isinstance(parts, Iterable):
        raise ProgramError(
            f"reduce: expected something to iterate over, got {type(parts).__name__}"
        )
    length = length_of((parts,))
    if length is not None:
        length = -(-(length + (initial is not NOTHING)) // fan_in)
    return _Groups(parts, fan_in, initial), length


class _Groups:
    """Groups of a plain iterable, begun anew by each iteration."""

    def __init__(self, parts: Iterable[Any], fan_in: int, initial: Any) -> None:
        self._parts = parts
        self._fan_in = fan_in
        self._initial = initial

    def __iter__(self) -> Iterator[tuple[list[Any]]]:
        first = () if self._initial is NOTHING else (self._initial,)
        parts = chain(first, self._parts)
        while group := list(islice(parts, self._fan_in)):
            yield (group,)


async def _groups_async(
    parts: AsyncIterable[Any], fan_in: int, initial: Any
) -> AsyncIterator[tuple[list[Any]]]:
    group = [] if initial is NOTHING else [initial]
    async for part in parts:
        group.append(part)
        if len(group) == fan_in:
            yield (group,)
            group = []
    if group:
        yield (group,)


async def tree(
    level: Callable[[Any, Any], AsyncIterator[T]], parts: Any, initial: Any = NOTHING
) -> tuple[T, int]:
    """Reduce ``parts`` to one, and return it with the number of levels.

    ``level(parts, initial)``: folds groups of neighbours and iterates over the results in order.
    Raises TypeError where there are no parts.
    """
    depth = 0
    while True:
        depth += 1
        results = level(parts, initial)
        initial = NOTHING
        first = [result async for result in _first_two(results)]
        if not first:
            raise TypeError("reduce() of no parts, with no initial value")
        if len(first) == 1:
            return first[0], depth
        parts = _with(first, results)


async def _first_two(results: AsyncIterator[T]) -> AsyncIterator[T]:
    for _ in range(2):
        try:
            yield await anext(results)
        except StopAsyncIteration:
            return


async def _with(first: list[T], rest: AsyncIterator[T]) -> AsyncIterator[T]:
    for one in first:
        yield one
    async for one in rest:
        yield one


class Folding:
    """What a reduce sends: ``function`` folded over a group of neighbours."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.__name__ = self.__qualname__ = name_of(function)
        self.__module__ = getattr(function, "__module__", "")
        self._function = function

    def __call__(self, group: Sequence[Any]) -> Any:
        return fold(self._function, group)

    def __reduce__(self) -> Any:
        # A worker lacks this class: what it needs of it is functools and alpyne_proto.
        return partial, (fold, self._function)
