"""Job and Results: jobs and maps for plain programs; see AsyncJob and ResultStream."""

import concurrent.futures
import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

from alpyne_grid.manager.errors import JobFailed, Receipt, ResultTimeout
from alpyne_grid.manager.jobs import AsyncJob, AsyncPause
from alpyne_grid.manager.loop_thread import LoopThread, callbacks
from alpyne_grid.manager.maps import MapRun
from alpyne_grid.manager.output import OutputLine, OutputReader
from alpyne_grid.manager.streams import ResultStream

from alpyne_proto.messages.compute import JobState, Usage


class Job:
    """A job. ``id``: 32 hex digits, by which any manager of the account finds it."""

    def __init__(self, thread: LoopThread, job: AsyncJob) -> None:
        self.job = job
        self._thread = thread

    def __repr__(self) -> str:
        return repr(self.job)

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def name(self) -> str:
        """Its name, for lists."""
        return self.job.name

    @property
    def state(self) -> JobState:
        """Its state, as last heard."""
        return self.job.state

    @property
    def node(self) -> str:
        """The node that has it, or "" while it has none."""
        return self.job.node

    @property
    def done(self) -> bool:
        """Whether its one result is here."""
        return self.job.done

    @property
    def usage(self) -> Usage | None:
        """What its execution used; None before it is done."""
        return self.job.usage

    def accepted(self, timeout: float | None = None) -> Self:
        """Return once its node has it durably: it then survives this program."""
        if not self.job.is_accepted:
            self._thread.call(self.job.accepted(timeout))
        return self

    def wait(self, timeout: float | None = None) -> Self:
        """Return once it has ended, well or not; ResultTimeout after ``timeout`` seconds."""
        if not self.job.done:
            if self.job.needs_following:
                self._thread.call_function(self.job.follow)
            try:
                concurrent.futures.wait([self.job.future], timeout).done.pop()
            except KeyError:
                raise ResultTimeout(
                    f"job {self.id}: not done within {timeout} s; it goes on"
                ) from None
        return self

    def result(self, timeout: float | None = None) -> Any:
        """Return its value. Raises the JobFailed that its end means, or ResultTimeout."""
        future = self.job.future
        if not future.done():
            if self.job.needs_following:
                self._thread.call_function(self.job.follow)
            try:
                future.result(timeout)
            except concurrent.futures.TimeoutError:
                if not future.done():
                    raise ResultTimeout(
                        f"job {self.id}: not done within {timeout} s; it goes on"
                    ) from None
                raise
        return self.job.value()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error that ``result`` would raise, or None."""
        self.wait(timeout)
        try:
            self.job.value()
        except JobFailed as error:
            return error
        return None

    def add_done_callback(self, function: Callable[["Job"], None]) -> None:
        """Have ``function(job)`` called once its result is here, in a thread for callbacks.

        At once if it is already.
        """

        def call(_: AsyncJob) -> None:
            callbacks().submit(function, self)

        self.job.add_done_callback(call)

    def cancel(self) -> "Cancel":
        """End the job and all its processes; ``.wait()`` gives the receipt."""
        self.job.cancel()
        return Cancel(self)

    def suspend(self) -> "Pause":
        """Have the job pause with all its processes; one that waits pauses as soon as it runs.

        It keeps its slots and memory, its timeout does not go on, and it can be cancelled. Raises
        NodeUnreachable where its node is not connected, CannotSuspend where that suspends no jobs.
        """
        return Pause(self._thread, self._thread.call_function(self.job.suspend))

    def resume(self) -> "Pause":
        """Let a suspended job go on; where its node is not connected, once that is back.

        Raises CannotSuspend where its node suspends no jobs, NodeUnreachable for a job found again
        whose node is not connected.
        """
        return Pause(self._thread, self._thread.call_function(self.job.resume))

    def output(self, *, follow: bool = True) -> Iterator[OutputLine]:
        """Iterate over the lines that it writes to stdout and stderr, from the first one on.

        ``follow``: go on until the job has ended.
        """
        if self.job.needs_following:
            self._thread.call_function(self.job.follow)
        reader: OutputReader = self._thread.call_function(lambda: self.job.output(follow=follow))
        while lines := self._thread.call(reader.next_lines()):
            yield from lines


class Cancel:
    """A cancellation that was asked for."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def wait(self, timeout: float | None = None) -> Receipt:
        """Return what was ended, once the job has; a job that was done before has its own receipt.

        Raises ResultTimeout.
        """
        self._job.wait(timeout)
        return self._job.job.receipt or Receipt()


class Pause:
    """A suspension, or the end of one, that was asked for."""

    def __init__(self, thread: LoopThread, pause: AsyncPause) -> None:
        self._thread = thread
        self._pause = pause

    def wait(self, timeout: float | None = None) -> JobState:
        """Return the job's state once it is suspended, or is so no longer, or has ended.

        Raises ResultTimeout.
        """
        return self._thread.call(self._pause.wait(timeout))


class Results:
    """Iterates over a map's results. An item that failed raises its JobFailed when its turn comes;
    the next call goes on with the item behind it.
    """

    def __init__(
        self, thread: LoopThread, stream: ResultStream, on_end: Callable[[], None]
    ) -> None:
        self._thread = thread
        self._stream = stream
        self._on_end = on_end
        # Whoever drops the iterator wants no more results: nodes must not go on for nobody.
        self._finalizer = weakref.finalize(self, _drop, thread, stream.run)
        self._finalizer.atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        stream = self._stream
        while not stream.has_kept:
            rows = self._thread.call(stream.next_rows())
            if rows is None:
                self._on_end()
                raise StopIteration
            stream.take(rows)
        return stream.pop()

    def close(self) -> None:
        """Stop: jobs that are under way are cancelled."""
        self._thread.call(self._stream.close())
        self._on_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _drop(thread: LoopThread, run: MapRun) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: so is the map
        thread.loop.call_soon_threadsafe(run.close)
