"""Subscriptions: a stream per subscriber, on which job events and load go out as they happen.

A subscriber gets each job's last state, in the order of the events' numbers. What it has not taken
yet waits as a reference to the job, so that a slow one gets fewer and newer events, and the node
keeps no events for it. Above a bound the oldest are left out and an EventGap says which.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable

from alpyne_grid.nodes.compute.job import Job
from alpyne_grid.nodes.compute.job_store import JobStore
from alpyne_grid.nodes.compute.job_table import JobTable
from alpyne_grid.wire import Connection, OutgoingStream

from alpyne_proto.codec import encode, encode_row, join_row
from alpyne_proto.errors import AlpyneError
from alpyne_proto.messages.compute import (
    SUBSCRIBE_JOBS,
    SUBSCRIBE_LOAD,
    EventGap,
    JobEvent,
    LoadEvent,
    PushEvents,
    Subscribe,
)

WAITING_MAX = 20_000  # jobs that wait to be told, beside those of the first replay
WRITE_BYTES = 48 * 1024  # rows that are put together for one write
LOAD_INTERVAL_S = 0.5  # between two load events: at most two per second
TOGETHER_S = 0.002  # by which an event may be late so that others travel with it
PUSH_URGENCY = 1


class Subscription:
    """One subscriber's stream and what it has not been told yet."""

    def __init__(
        self,
        stream: OutgoingStream,
        request: Subscribe,
        level: int,
        result: Callable[[Job], bytes | None],
    ) -> None:
        self.stream = stream
        self.wants_load = bool(request.kinds & SUBSCRIBE_LOAD)
        self._wants_jobs = bool(request.kinds & SUBSCRIBE_JOBS)
        self._journal = request.journal
        self._level = level
        self._result = result
        self._waiting: OrderedDict[int, Job] = OrderedDict()
        self._most = WAITING_MAX
        self._gap: tuple[int, int] | None = None
        self._load: LoadEvent | None = None
        self._writing: asyncio.Task[None] | None = None

    def replay(self, jobs: list[Job]) -> None:
        """Tell of ``jobs`` first."""
        for job in jobs:
            if self._is_wanted(job):
                self._waiting[job.number] = job
        self._most += len(self._waiting)

    def tell(self, job: Job) -> None:
        """Tell of the job's new state with the next ``flush``."""
        if not self._is_wanted(job):
            return
        waiting = self._waiting
        waiting[job.number] = job
        waiting.move_to_end(job.number)
        if len(waiting) > self._most:
            _, dropped = waiting.popitem(last=False)
            first = self._gap[0] if self._gap else dropped.sequence
            self._gap = (first, dropped.sequence)

    def tell_load(self, load: LoadEvent) -> None:
        """Tell of the node's load with the next ``flush``, and of no older one."""
        self._load = load

    def flush(self) -> None:
        """Write what waits and fits; where it does not fit, a task waits for room."""
        if self._writing is not None:
            return
        with contextlib.suppress(AlpyneError):  # the stream has ended; its owner is told as well
            while rows := self._next_rows():
                if not self.stream.try_write(rows):
                    self._writing = asyncio.get_running_loop().create_task(self._write(rows))
                    return

    def close(self) -> None:
        """Stop writing."""
        self._waiting.clear()
        self._wants_jobs = self.wants_load = False
        if self._writing is not None:
            self._writing.cancel()

    def _is_wanted(self, job: Job) -> bool:
        return self._wants_jobs and (not self._journal or job.spec.job_id.startswith(self._journal))

    async def _write(self, rows: bytes) -> None:
        try:
            while rows:
                await self.stream.write(rows)
                rows = self._next_rows()
        except AlpyneError:
            pass  # the stream has ended; its owner is told as well
        finally:
            self._writing = None

    def _next_rows(self) -> bytes:
        """Take rows out of what waits, at least one if there is any."""
        rows: list[bytes] = []
        size = 0
        if self._gap is not None:
            rows.append(encode_row(EventGap(*self._gap)))
            self._gap = None
        if self._load is not None:
            rows.append(encode_row(self._load))
            self._load = None
        while self._waiting and size < WRITE_BYTES:
            _, job = self._waiting.popitem(last=False)
            row = self._row(job)
            size += len(row)
            rows.append(row)
        return b"".join(rows)

    def _row(self, job: Job) -> bytes:
        if job.finished and not job.end:
            return b""  # replaced, or refused by the store, since it was put here: nobody's news
        if job.finished:
            return join_row(job.end, self._result(job) or b"")
        spec = job.spec
        event = JobEvent(
            job.sequence,
            spec.job_id,
            spec.allocation,
            job.attempt,
            job.announced,
            isolation=self._level,
        )
        return join_row(encode(event))


_NOBODY: dict[tuple[Connection, int], Subscription] = {}


class Pusher:
    """All subscriptions of a node."""

    def __init__(
        self, table: JobTable, jobs: JobStore, *, level: int, load: Callable[[], LoadEvent]
    ) -> None:
        self._table = table
        self._jobs = jobs
        self._level = level
        self._load = load
        self._of_account: dict[bytes, dict[tuple[Connection, int], Subscription]] = {}
        self._next: dict[Connection, int] = {}
        self._with_load = 0
        self._last_load: LoadEvent | None = None
        self._load_timer: asyncio.TimerHandle | None = None
        self._changed: dict[Subscription, None] = {}  # have something to be told
        self._timer: asyncio.TimerHandle | None = None

    @property
    def wants_load(self) -> bool:
        """Whether anybody is told of the load."""
        return self._with_load > 0

    def number(self, connection: Connection) -> int:
        """Return the number of the connection's next subscription."""
        self._next[connection] = self._next.get(connection, 0) + 1
        return self._next[connection]

    async def begin(self, connection: Connection, number: int, request: Subscribe) -> None:
        """Open the subscription's stream and tell what ``request`` asks to be told first."""
        account = connection.account
        stream = await connection.open(PushEvents(number), urgency=PUSH_URGENCY)
        subscription = Subscription(stream, request, self._level, self._jobs.result)
        key = (connection, number)
        self._of_account.setdefault(account, {})[key] = subscription
        stream.answered.add_done_callback(lambda _: self._end(account, key))
        newer = [job for job in self._table.jobs(account) if job.sequence > request.after]
        subscription.replay(sorted(newer, key=lambda job: job.sequence))
        subscription.flush()
        if subscription.wants_load:
            self._with_load += 1
            self._last_load = None
            self.load_changed()

    def publish(self, job: Job) -> None:
        """Tell the job's account of its new state with the next ``flush``."""
        for subscription in self._of_account.get(job.account, _NOBODY).values():
            subscription.tell(job)
            self._changed[subscription] = None

    def flush(self) -> None:
        """Write what was published.

        While jobs wait, nobody waits for a single one of them: then results go out together, a
        little later.
        """
        if not self._changed:
            return
        if not self._table.counts().queued:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOGETHER_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        changed, self._changed = self._changed, {}
        for subscription in changed:
            subscription.flush()

    def load_changed(self) -> None:
        """Tell of the load soon, if it is another than the last one that was told."""
        if self._with_load and self._load_timer is None:
            loop = asyncio.get_running_loop()
            delay_s = 0.0 if self._last_load is None else LOAD_INTERVAL_S
            self._load_timer = loop.call_later(delay_s, self._tell_load)

    def forget(self, connection: Connection) -> None:
        """End the subscriptions of a connection that has ended."""
        self._next.pop(connection, None)
        for account, subscriptions in list(self._of_account.items()):
            for key in [key for key in subscriptions if key[0] is connection]:
                self._end(account, key)

    def close(self) -> None:
        """End all subscriptions."""
        for account, subscriptions in list(self._of_account.items()):
            for key in list(subscriptions):
                self._end(account, key)
        for timer in (self._load_timer, self._timer):
            if timer is not None:
                timer.cancel()

    def _tell_load(self) -> None:
        self._load_timer = None
        load = self._load()
        if load == self._last_load:
            return
        self._last_load = load
        for subscriptions in self._of_account.values():
            for subscription in subscriptions.values():
                if subscription.wants_load:
                    subscription.tell_load(load)
                    subscription.flush()

    def _end(self, account: bytes, key: tuple[Connection, int]) -> None:
        subscription = self._of_account.get(account, {}).pop(key, None)
        if subscription is None:
            return
        if not self._of_account[account]:
            del self._of_account[account]
        self._with_load -= subscription.wants_load
        self._changed.pop(subscription, None)
        subscription.close()
