"""What a map hands out: asynchronous iterators over its values, in order or as they come."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar

from alpyne_grid.manager.errors import JobFailed
from alpyne_grid.manager.maps import MapRun, Row
from alpyne_grid.manager.results import Failed

T = TypeVar("T")
Pick = Callable[[Row], Iterable[Any]]


def values_of(row: Row) -> Iterable[Any]:
    """Give each item's value."""
    return (row[2],)


class ResultStream(Generic[T]):
    """Iterates over a map's results. An item that failed raises its JobFailed when its turn comes;
    the next call goes on with the item behind it.

    ``pick(row)``: returns what one item adds to the results. ``return_exceptions``: hand errors out
    like values. ``on_finish(index, value)``, ``on_failure(index, error)``: called once per item, as
    it is handed out.
    """

    def __init__(
        self,
        run: MapRun,
        pick: Pick = values_of,
        *,
        return_exceptions: bool = False,
        on_finish: Callable[[int, Any], None] | None = None,
        on_failure: Callable[[int, JobFailed], None] | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.run = run
        self._pick = pick
        self._return_exceptions = return_exceptions
        self._on_finish = on_finish
        self._on_failure = on_failure
        self._on_close = on_close
        self._buffer: deque[Any] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._buffer:
            if not await self.fill():
                raise StopAsyncIteration
        return self.pop()

    async def fill(self) -> bool:
        """Wait for the next results and keep them; False at the end."""
        rows = await self.run.next_rows()
        if rows is None:
            self._on_close()
            return False
        self._buffer.extend(self.picked(rows))
        return True

    def picked(self, rows: Iterable[Row]) -> Iterable[Any]:
        """Return results and Failed for ``rows``, and tell the callbacks."""
        picked: list[Any] = []
        for row in rows:
            outcome = row[2]
            if type(outcome) is Failed:
                picked.append(outcome)
                if self._on_failure is not None:
                    self._on_failure(row[0], outcome.error)
            else:
                if self._on_finish is not None:
                    self._on_finish(row[0], outcome)
                picked.extend(self._pick(row))
        return picked

    def pop(self) -> T:
        """Return the next kept result, or raise the error that stands in its place."""
        result = self._buffer.popleft()
        if type(result) is Failed:
            if self._return_exceptions:
                error: Any = result.error
                return error  # type: ignore[no-any-return]
            raise result.error
        value: T = result
        return value

    @property
    def has_kept(self) -> bool:
        """Whether ``pop`` has something to return."""
        return bool(self._buffer)

    async def close(self) -> None:
        """Stop: jobs that are under way are cancelled."""
        self.run.close()
        self._on_close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
