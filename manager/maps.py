"""Maps: chunks of items as jobs, their results in order, with a bounded window in between.

A MapRun takes items from its source as there is room, makes each chunk a job, and hands out the
chunks' outcomes in order (or as they come). It never holds more than a window of chunks, so that
neither the input nor the results are in memory as a whole. A chunk that crashes or hits a limit is
halved until the item that does it is alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from alpyne_grid.manager import program as programs
from alpyne_grid.manager.chunks import ChunkSizes
from alpyne_grid.manager.errors import JobFailed
from alpyne_grid.manager.jobs import AsyncJob, Ended
from alpyne_grid.manager.map_work import PENDING, Chunk, MapWork, all_failed, written_object
from alpyne_grid.manager.results import Failed, failure
from alpyne_grid.manager.sources import Item, ItemSource

from alpyne_proto.messages.compute import Cause, JobState

# What one item may have brought upon the others of its chunk.
DIVIDED = (
    *(Cause.CRASH, Cause.MEMORY, Cause.PROCESSES, Cause.DISK),
    *(Cause.OUTPUT, Cause.WALL_TIME),
)
DECODED_HERE = 256 * 1024  # bytes; larger results are decoded in a thread
Row = tuple[int, Item, Any]  # index, item, value or Failed


class MapOwner(Protocol):
    """What a map needs of its manager."""

    def submit_chunk(self, work: MapWork, program: programs.Program) -> AsyncJob:
        """Submit one chunk."""
        ...

    def total_slots(self) -> int:
        """Return the slots of all nodes that are up, at least 1."""
        ...


Earlier = Mapping[int, tuple[AsyncJob, int]]
Prepare = Callable[[], Awaitable[tuple[MapWork, Earlier]]]


class MapRun:
    """One map on its way. Runs on the loop; iterators are made of ``next_rows``.

    ``prepare()``: returns what the map runs, and chunks that an earlier run of it has done or has
    under way: index of the first item -> job and number of items. It is called once, when the map
    begins.
    """

    def __init__(
        self,
        owner: MapOwner,
        prepare: Prepare,
        source: ItemSource,
        *,
        sizes: ChunkSizes | None = None,
        ordered: bool = True,
        on_progress: Callable[["MapRun"], None] = lambda run: None,
    ) -> None:
        self.items_done = 0
        self.items_failed = 0
        self.on_closed: Callable[[], None] = lambda: None
        self._owner = owner
        self._prepare = prepare
        self._work: MapWork | None = None
        self._source = source
        self._sizes = sizes or ChunkSizes()
        self._ordered = ordered
        self._earlier: Earlier = {}
        self._on_progress = on_progress
        self._window: deque[Chunk] = deque()  # sent, not yet handed out
        self._ready: deque[Chunk] = deque()  # unordered only: finished, not yet handed out
        self._jobs: dict[AsyncJob, Chunk] = {}
        self._buffered = 0  # bytes of results that wait for the consumer
        self._next = 0  # index of the next item
        self._exhausted = False
        self._failure: BaseException | None = None
        self._closed = False
        self._room = asyncio.Event()  # for the feeder
        self._news = asyncio.Event()  # for the consumer
        self._feeder: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What is mapped, for people; "" before it begins."""
        return self._work.name if self._work is not None else ""

    @property
    def total(self) -> int | None:
        """How many items there are, where that is known."""
        left = 0 if self._exhausted else self._source.left
        return None if left is None else self._next + left

    @property
    def _running(self) -> MapWork:
        assert self._work is not None
        return self._work

    def start(self) -> None:
        """Begin to take items and send chunks; nothing happens the second time."""
        if self._feeder is None and not self._closed:
            self._feeder = asyncio.ensure_future(self._feed())

    async def next_rows(self) -> list[Row] | None:
        """Return (index, item, value or Failed) of the next chunk that is done; None at the end.

        Raises what the source of items raised, once what came before is handed out.
        """
        self.start()
        while True:
            chunk = self._take_ready()
            if chunk is not None:
                self._buffered -= chunk.result_bytes
                self._room.set()
                rows = zip(chunk.items, chunk.outcomes, strict=True)
                return [(chunk.first + at, *row) for at, row in enumerate(rows)]
            if self._closed or (self._exhausted and not self._window and not self._ready):
                self.close()
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
                return None
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Stop: no more items are taken, and chunks that are under way are cancelled."""
        if self._closed:
            return
        self._closed = True
        self._source.close()
        if self._feeder is not None:
            self._feeder.cancel()
        for job in list(self._jobs):
            job.cancel()
        self._jobs.clear()
        self._news.set()
        self.on_closed()

    def _take_ready(self) -> Chunk | None:
        if self._ready:
            return self._ready.popleft()
        if self._ordered and self._window and not self._window[0].missing:
            return self._window.popleft()
        return None

    # --- sending ----------------------------------------------------------------------------

    async def _feed(self) -> None:
        try:
            self._work, self._earlier = await self._prepare()
            more = True
            while more:
                while not self._has_room():
                    self._room.clear()
                    await self._room.wait()
                more = await self._feed_chunk()
        except Exception as error:  # noqa: BLE001 - raised where the results are taken
            self._failure = error
        self._exhausted = True
        self._news.set()
        self._on_progress(self)

    def _has_room(self) -> bool:
        window = len(self._window) + len(self._ready)
        slots = self._owner.total_slots()
        return self._sizes.has_room(window, len(self._jobs), self._buffered, slots)

    async def _feed_chunk(self) -> bool:
        """Send the next chunk; False where it was the last."""
        first = self._next
        found = self._earlier.get(first)
        if found is not None:
            job, count = found
            items, _ = await self._source.take(count, lambda items: None)
            chunk = self._add(items)
            self._follow(job, chunk)
            return len(items) == count
        size = self._sizes.next_size(self._source.left, self._owner.total_slots())
        items, program = await self._source.take(
            size, lambda items: self._running.program(first, items) if items else None
        )
        if program is not None:
            self._sizes.learn_bytes(len(items), len(program.payload))
            self._submit(self._add(items), program)
        return len(items) == size

    def _add(self, items: Sequence[Item]) -> Chunk:
        chunk = Chunk.of(self._next, items)
        self._next += len(items)
        self._window.append(chunk)
        return chunk

    def _submit(self, chunk: Chunk, program: programs.Program | None = None) -> None:
        work = self._running
        program = program or work.program(chunk.first, chunk.items)
        self._follow(self._owner.submit_chunk(work, program), chunk)

    def _follow(self, job: AsyncJob, chunk: Chunk) -> None:
        self._jobs[job] = chunk
        job.add_done_callback(self._ended)
        job.follow()

    # --- results ----------------------------------------------------------------------------

    def _ended(self, job: AsyncJob) -> None:
        if job not in self._jobs or self._closed:
            return
        size = len(job.future.result().outcome.body) if job.future.exception() is None else 0
        if size > DECODED_HERE:
            asyncio.ensure_future(self._decode_aside(job))  # noqa: RUF006 - the job is kept
        else:
            self._take(job, lambda: job.future.result().value())

    async def _decode_aside(self, job: AsyncJob) -> None:
        loop = asyncio.get_running_loop()
        decoded = loop.run_in_executor(None, job.future.result().value)
        await asyncio.wait((decoded,))
        if job in self._jobs:
            self._take(job, decoded.result)

    def _take(self, job: AsyncJob, decode: Callable[[], Any]) -> None:
        chunk = self._jobs.pop(job)
        try:
            self._take_end(chunk, job.future.result(), decode)
        except Exception as error:  # noqa: BLE001 - raised where the results are taken
            self._failure = self._failure or error
            self.close()
        self._room.set()
        self._news.set()
        self._on_progress(self)

    def _take_end(self, chunk: Chunk, ended: Ended, decode: Callable[[], Any]) -> None:
        outcome = ended.outcome
        count = len(chunk.items)
        if outcome.state is JobState.DONE:
            self._sizes.learn(count, outcome.usage.wall_ms)
            chunk.result_bytes += len(outcome.body)
            try:
                outcomes = self._retried(chunk, self._objects(decode(), ended))
            except JobFailed as error:  # the values do not unpickle in this program
                outcomes = all_failed(chunk, error)
            self._fill(chunk, 0, outcomes)
        elif count > 1 and outcome.cause in DIVIDED:
            self._sizes.shrink(count)
            self._submit(Chunk.of(chunk.first, chunk.items[: count // 2], chunk))
            second = chunk.first + count // 2
            self._submit(Chunk.of(second, chunk.items[count // 2 :], chunk))
        else:
            self._fill(chunk, 0, all_failed(chunk, failure(outcome, ended.place)))

    def _objects(self, outcomes: list[Any], ended: Ended) -> list[Any]:
        """Return the objects that a map ``into`` a container has written, instead of values."""
        target = self._running.target
        if target is None:
            return outcomes
        codec = ended.place.codec
        return [
            one if type(one) is Failed else written_object(one, target, codec) for one in outcomes
        ]

    def _retried(self, chunk: Chunk, outcomes: list[Any]) -> list[Any]:
        """Send items that raised once more, as often as the program allows."""
        retries = self._running.options.retries
        for at, outcome in enumerate(outcomes):
            if type(outcome) is not Failed or outcome.error.cause is not Cause.EXCEPTION:
                continue
            if chunk.tries < retries:
                again = Chunk.of(chunk.first + at, chunk.items[at : at + 1], chunk)
                again.tries = chunk.tries + 1
                self._submit(again)
                outcomes[at] = PENDING
        return outcomes

    def _fill(self, chunk: Chunk, offset: int, outcomes: list[Any]) -> None:
        """Put outcomes into ``chunk`` from ``offset`` on; a whole chunk goes into its parent."""
        for at, outcome in enumerate(outcomes, offset):
            if outcome is not PENDING:
                chunk.outcomes[at] = outcome
                chunk.missing -= 1
        if chunk.missing:
            return
        if chunk.parent is not None:
            chunk.parent.result_bytes += chunk.result_bytes
            self._fill(chunk.parent, chunk.first - chunk.parent.first, chunk.outcomes)
            return
        self._buffered += chunk.result_bytes
        failed = sum(type(outcome) is Failed for outcome in chunk.outcomes)
        self.items_done += len(chunk.items) - failed
        self.items_failed += failed
        if not self._ordered:
            self._window.remove(chunk)
            self._ready.append(chunk)
