"""Handles of jobs: what a program holds of work that it submitted, or found again."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

from alpyne_grid.manager import results
from alpyne_grid.manager.errors import JobFailed, Receipt, ResultTimeout
from alpyne_grid.manager.grid_events import Outcome
from alpyne_grid.manager.output import OutputReader
from alpyne_grid.manager.specs import Work

from alpyne_proto.messages.compute import JobForm, JobState, Usage


@dataclass(frozen=True, slots=True)
class Ended:
    """A job's delivered outcome, and how to read it."""

    outcome: Outcome
    place: results.Place
    form: JobForm

    def value(self) -> Any:
        """Return the value, or raise the JobFailed that the outcome means."""
        return results.decode(self.outcome, self.form, self.place)


Future = concurrent.futures.Future[Ended]


class JobOwner(Protocol):
    """What a handle needs of its manager."""

    def cancel_job(self, job: "AsyncJob") -> None:
        """Have the job ended."""

    def pause_job(self, job: "AsyncJob", *, pause: bool) -> None:
        """Have the job suspended, or resumed; raises where its node cannot be told, or cannot."""

    def read_output(self, job: "AsyncJob", *, follow: bool, raw: bool) -> OutputReader:
        """Return a reader of its output."""

    def node_name(self, key: bytes | None) -> str:
        """Return what people call a node."""


class AsyncJob:
    """A job. ``await job`` is its result.

    ``id``: 32 hex digits, by which any manager of the account finds it. ``name``: for lists.
    """

    def __init__(self, owner: JobOwner, job_id: bytes, form: JobForm, name: str) -> None:
        self._owner = owner
        self.job_id = job_id
        self.form = form
        self.name = name
        self.work: Work | None = None  # of a job submitted here
        self.future: Future = concurrent.futures.Future()
        self._ended: Ended | None = None  # what the future holds; to ask it takes a lock
        self.phase = JobState.QUEUED
        self.node_key: bytes | None = None
        self.is_accepted = False
        self._waiters: list[asyncio.Future[None]] = []
        self._watchers = 0  # who wait for another state than the last one
        self._value: tuple[Any, Exception | None] | None = None

    def __repr__(self) -> str:
        return f"<job {self.id} {self.name!r} {self.state.name}>"

    # --- what it is ---

    @property
    def id(self) -> str:
        """The job's id, 32 hex digits."""
        return self.job_id.hex()

    @property
    def state(self) -> JobState:
        """Its state, as last heard."""
        return self.phase

    @property
    def node(self) -> str:
        """The node that has it, or "" while it has none."""
        return self._owner.node_name(self.node_key) if self.node_key is not None else ""

    @property
    def done(self) -> bool:
        """Whether its one result is here."""
        return self.future.done()

    @property
    def usage(self) -> Usage | None:
        """What its execution used; None before it is done."""
        return self.future.result().outcome.usage if self._has_outcome() else None

    @property
    def receipt(self) -> Receipt | None:
        """What the end of its processes looked like; None before it is done."""
        return self.future.result().outcome.receipt if self._has_outcome() else None

    @property
    def epoch(self) -> tuple[int, int] | None:
        """Allocation and attempt of the execution that settled; None before it is done."""
        if not self._has_outcome():
            return None
        outcome = self.future.result().outcome
        return outcome.allocation, outcome.attempt

    def _has_outcome(self) -> bool:
        return self.future.done() and self.future.exception() is None

    # --- waiting ---

    async def accepted(self, timeout: float | None = None) -> "AsyncJob":
        """Return once its node has it durably: it then survives this program.

        Raises ResultTimeout, or the JobFailed of a job that no node took.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._news(lambda: self.is_accepted or self.future.done())
        except TimeoutError:
            raise ResultTimeout(f"job {self.id}: no node has acknowledged it yet") from None
        if not self.is_accepted:
            await self.result()
        return self

    async def wait(self, timeout: float | None = None) -> Ended:
        """Return its outcome, decoded or not, failed or not; ResultTimeout after ``timeout``."""
        try:
            if timeout is None:
                await self._news(self._is_over)
            else:
                async with asyncio.timeout(timeout):
                    await self._news(self._is_over)
        except TimeoutError:
            raise ResultTimeout(f"job {self.id}: not done within {timeout} s; it goes on") from None
        return self._ended or self.future.result()

    def _is_over(self) -> bool:
        return self._ended is not None or self.future.done()

    async def result(self, timeout: float | None = None) -> Any:
        """Return its value. Raises the JobFailed that its end means, or ResultTimeout."""
        await self.wait(timeout)
        return self.value()

    def value(self) -> Any:
        """Return the value of a job that is done; as ``result``.

        A map's chunk: the list of its items' values, a JobFailed in the place of each that failed.
        """
        if self._value is None:
            try:
                value = (self._ended or self.future.result()).value()
                if self.form is JobForm.MAP:
                    value = [one.error if type(one) is results.Failed else one for one in value]
                self._value = (value, None)
            except Exception as error:
                self._value = (None, error)
                raise
        value, failure = self._value
        if failure is not None:
            raise failure
        return value

    async def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error that ``result`` would raise, or None."""
        await self.wait(timeout)
        try:
            self.value()
        except JobFailed as error:
            return error
        return None

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    @property
    def needs_following(self) -> bool:
        """Whether nobody waits for its outcome yet; ``follow`` begins to."""
        return False

    def follow(self) -> None:
        """Begin to wait for its outcome: jobs submitted here are followed anyway."""

    def add_done_callback(self, function: Callable[["AsyncJob"], None]) -> None:
        """Have ``function(job)`` called once its result is here; at once if it is already."""
        self.future.add_done_callback(lambda _: function(self))

    # --- acting on it ---

    def cancel(self) -> "AsyncCancel":
        """End the job and all its processes; ``.wait()`` gives the receipt."""
        self._owner.cancel_job(self)
        return AsyncCancel(self)

    def suspend(self) -> "AsyncPause":
        """Have the job pause with all its processes; one that waits pauses as soon as it runs.

        It keeps its slots and memory, its timeout does not go on, and it can be cancelled. Raises
        NodeUnreachable where its node is not connected, CannotSuspend where that suspends no jobs.
        """
        self._owner.pause_job(self, pause=True)
        return AsyncPause(self, pause=True)

    def resume(self) -> "AsyncPause":
        """Let a suspended job go on; where its node is not connected, once that is back.

        Raises CannotSuspend where its node suspends no jobs, NodeUnreachable for a job found again
        whose node is not connected.
        """
        self._owner.pause_job(self, pause=False)
        return AsyncPause(self, pause=False)

    async def reached(self, is_there: Callable[[JobState], bool], timeout: float | None) -> None:
        """Return once its state is one of those wanted; ResultTimeout after ``timeout``."""
        self._watchers += 1
        try:
            async with asyncio.timeout(timeout):
                await self._news(lambda: is_there(self.phase) or self.future.done())
        except TimeoutError:
            raise ResultTimeout(
                f"job {self.id}: still {self.state.name} after {timeout} s; it stays asked for"
            ) from None
        finally:
            self._watchers -= 1

    def output(self, *, follow: bool = True) -> OutputReader:
        """Iterate over the lines that it writes to stdout and stderr, from the first one on.

        ``follow``: go on until the job has ended. Lines come in the order in which the node saw
        them; a job that is moved or retried starts its output anew.
        """
        return self._owner.read_output(self, follow=follow, raw=False)

    # --- from the manager, on its loop ---

    def took_place(self, state: JobState, node: bytes | None, *, accepted: bool) -> None:
        """Take news of the job."""
        self.phase, self.node_key = state, node
        if accepted and not self.is_accepted:
            self.is_accepted = True
            self._wake()
        elif self._watchers:
            self._wake()

    def deliver(self, ended: Ended) -> None:
        """Take the job's one outcome."""
        self.phase = ended.outcome.state
        self.node_key = ended.outcome.node
        # A result may overtake the acknowledgement; a node that ran the job has taken it.
        self.is_accepted = self.is_accepted or ended.outcome.from_node
        if self.work is not None:
            self.work.program.payload = b""  # nobody sends it again
        if not self.future.done():
            self._ended = ended
            self.future.set_result(ended)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Tell whoever waits that no outcome will come here."""
        if not self.future.done():
            self.future.set_exception(error)
        self._wake()

    async def _news(self, heard: Callable[[], bool]) -> None:
        """Return once ``heard``; on the manager's loop, so that one wake-up is enough."""
        while not heard():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class AsyncCancel:
    """A cancellation that was asked for."""

    def __init__(self, job: AsyncJob) -> None:
        self._job = job

    async def wait(self, timeout: float | None = None) -> Receipt:
        """Return what was ended, once the job has; a job that was done before has its own receipt.

        Raises ResultTimeout.
        """
        ended = await self._job.wait(timeout)
        return ended.outcome.receipt

    def __await__(self) -> Generator[Any, None, Receipt]:
        return self.wait().__await__()


class AsyncPause:
    """A suspension, or the end of one, that was asked for."""

    def __init__(self, job: AsyncJob, *, pause: bool) -> None:
        self._job = job
        self._pause = pause

    async def wait(self, timeout: float | None = None) -> JobState:
        """Return the job's state once it is suspended, or is so no longer, or has ended.

        A job that waits for its turn is suspended when that has come. Raises ResultTimeout.
        """
        await self._job.reached(self._is_done, timeout)
        return self._job.state

    def _is_done(self, state: JobState) -> bool:
        return state >= JobState.DONE or (state is JobState.SUSPENDED) == self._pause

    def __await__(self) -> Generator[Any, None, JobState]:
        return self.wait().__await__()
