"""What a map hands out: an asynchronous iterator over its results, in order or as they come."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from alpyne_grid.manager.errors import JobFailed
from alpyne_grid.manager.maps import MapRun, Row
from alpyne_grid.manager.results import Failed

from alpyne_proto.jobobject import ObjectReader

if TYPE_CHECKING:
    from alpyne_grid.manager.objects import AsyncContainer


class Picks(Enum):
    """What an item of a map adds to the results."""

    VALUES = "its value"
    ITEMS = "the item itself, where its value is true"
    OBJECTS = "the object that its value was written to"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What a map takes beside its function, its items and the options of its jobs."""

    chunk: int = 0
    as_completed: bool = False
    return_exceptions: bool = False
    on_finish: Callable[[int, Any], None] | None = None
    on_failure: Callable[[int, JobFailed], None] | None = None
    on_progress: Callable[[MapRun], None] = lambda run: None
    into: "AsyncContainer | None" = None
    resume: str = ""
    title: str = ""

    @classmethod
    def taken_from(cls, how: dict[str, Any]) -> "StreamOptions":
        """Take the keywords that are these options out of ``how``."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: how.pop(name) for name in names if name in how})


class ResultStream:
    """Iterates over a map's results. An item that failed raises its JobFailed when its turn comes;
    the next call goes on with the item behind it.

    ``fill`` and ``pop`` are for iterators of other kinds: many results per wait.
    """

    def __init__(
        self,
        run: MapRun,
        picks: Picks,
        options: StreamOptions,
        reader: ObjectReader | None = None,
    ) -> None:
        self.run = run
        self._picks = picks
        self._options = options
        self._reader = reader
        self._buffer: deque[Any] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._buffer:
            rows = await self.next_rows()
            if rows is None:
                raise StopAsyncIteration
            self.take(rows)
        return self.pop()

    async def next_rows(self) -> list[Row] | None:
        """Return the rows of the next chunk; None at the end."""
        return await self.run.next_rows()

    def take(self, rows: Iterable[Row]) -> None:
        """Keep what ``rows`` add to the results, and tell the callbacks; from any one thread."""
        options, buffer, picks = self._options, self._buffer, self._picks
        for index, item, outcome in rows:
            if type(outcome) is Failed:
                buffer.append(outcome)
                if options.on_failure is not None:
                    options.on_failure(index, outcome.error)
                continue
            if picks is Picks.OBJECTS:
                outcome = replace(outcome, reader=self._reader)
            if options.on_finish is not None:
                options.on_finish(index, outcome)
            if picks is not Picks.ITEMS:
                buffer.append(outcome)
            elif outcome:
                buffer.append(item[0])

    @property
    def has_kept(self) -> bool:
        """Whether ``pop`` has something to return."""
        return bool(self._buffer)

    def pop(self) -> Any:
        """Return the next kept result, or raise the error that stands in its place."""
        result = self._buffer.popleft()
        if type(result) is not Failed:
            return result
        if self._options.return_exceptions:
            return result.error
        raise result.error

    async def close(self) -> None:
        """Stop: jobs that are under way are cancelled."""
        self.run.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
