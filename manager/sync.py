"""Manager: the manager library for plain programs.

    with Manager.connect() as grid:
        corpus = grid.container("corpus", copies=2)
        corpus.push_tree("texts/")
        counts = grid.map(count_words, corpus.glob("*.txt"))
        total = grid.reduce(add, counts)

The event loop of an AsyncManager runs in a thread; each method here hands its work to it and waits.
All objects may be used from any thread.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from alpyne_grid.manager import results
from alpyne_grid.manager.aio import AsyncManager
from alpyne_grid.manager.contents import Given
from alpyne_grid.manager.errors import JobFailed, ManagerClosed, Receipt, ResultTimeout
from alpyne_grid.manager.jobs import AsyncJob
from alpyne_grid.manager.nodes import Node
from alpyne_grid.manager.objects import AsyncContainer, VersionLike
from alpyne_grid.manager.output import OutputLine, OutputReader
from alpyne_grid.manager.progress import Progress
from alpyne_grid.manager.reduce import FAN_IN, NOTHING
from alpyne_grid.manager.statistics import Statistics
from alpyne_grid.manager.streams import ResultStream
from alpyne_grid.manager.trees import Transfer
from alpyne_grid.manager.versions import Descriptor

from alpyne_proto.address import Address
from alpyne_proto.jobobject import TO_THE_END, JobObject
from alpyne_proto.messages.compute import JobState, Usage
from alpyne_proto.messages.data import ContainerRow

T = TypeVar("T")
LISTED_AT_ONCE = 256  # objects handed over by the loop at a time
PIECES_AT_ONCE = 16


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="alpyne-manager", daemon=True)
        self._closed = False
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and return its result."""
        if self._closed:
            work.close()
            raise ManagerClosed("the manager is closed; connect again")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "a blocking call on the manager's own thread would wait for itself; callbacks "
                "that need the grid use another thread"
            )
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise ManagerClosed("the manager was closed while this waited") from None
        except BaseException:
            future.cancel()
            raise

    def call_function(self, function: Callable[[], T]) -> T:
        """Call a function on the loop and return its result."""

        async def work() -> T:
            return function()

        return self.call(work())

    def close(self) -> None:
        """Stop the loop and end the thread."""
        if not self._closed:
            self._closed = True
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


class Manager:
    """A program's connection to its grid; made by ``connect``, closed by ``close`` or ``with``."""

    def __init__(self, grid: AsyncManager, thread: LoopThread, *, progress: bool | None) -> None:
        self.grid = grid
        self._thread = thread
        self._progress = Progress(wanted=progress)
        grid.core.reader = ThreadReader(grid, thread)

    @classmethod
    def connect(
        cls,
        addresses: Iterable[str | Address] | None = None,
        *,
        progress: bool | None = None,
        **how: Any,
    ) -> "Manager":
        """Connect to the nodes of ``addresses``, or of the pool file.

        ``progress``: bars for maps and folders; None: on a terminal. All others: see
        AsyncManager.connect. Raises PoolError, KeyFileError, NotRegistered, NodeUnreachable,
        JournalError.
        """
        thread = LoopThread()
        try:

            async def connect() -> AsyncManager:
                return await AsyncManager.connect(addresses, **how)

            return cls(thread.call(connect()), thread, progress=progress)
        except BaseException:
            thread.close()
            raise

    def close(self) -> None:
        """Close all connections. Jobs that a node has accepted go on; maps are cancelled."""
        if not self._thread.loop.is_closed():
            self._thread.call(self.grid.close())
            self._thread.close()
        self._progress.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def statistics(self) -> Statistics:
        """Return what was done so far: jobs, moves, failed-over reads and bytes, by node."""
        return self._thread.call_function(self.grid.statistics)

    def nodes(self) -> list[Node]:
        """Ask the nodes of the pool what they have and how busy they are."""
        return self._thread.call(self.grid.nodes())

    # --- single jobs ------------------------------------------------------------------------

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Job":
        """Run ``function(*args, **kwargs)`` on a node; returns at once.

        Keywords that the function does not take itself and that are fields of JobOptions (memory,
        timeout, retries, cpus ...) are the job's options. Raises ProgramError.
        """
        return Job(self._thread, self.grid.submit(function, *args, **kwargs))

    def run_source(self, file: str | Path, /, *args: Any, **kwargs: Any) -> "Job":
        """Run ``main(*args, **kwargs)`` of a .py file on a node."""
        return Job(self._thread, self.grid.run_source(file, *args, **kwargs))

    def run_command(self, argv: Collection[str], /, **how: Any) -> "Job":
        """Run a command on a node; see AsyncManager.run_command."""
        return Job(self._thread, self.grid.run_command(list(argv), **how))

    def job(self, job_id: str | bytes) -> "Job":
        """Return a job of this account by its id, whoever submitted it; UnknownJob for none."""
        return Job(self._thread, self._thread.call(self.grid.job(job_id)))

    def jobs(self, *, tag: str = "", group: bytes = b"", limit: int = 0) -> "list[Job]":
        """Return this account's jobs on all nodes, the chunks of a map in order."""
        found = self._thread.call(self.grid.jobs(tag=tag, group=group, limit=limit))
        return [Job(self._thread, job) for job in found]

    # --- maps -------------------------------------------------------------------------------

    def map(self, function: Callable[..., Any], /, *iterables: Any, **how: Any) -> "Results":
        """Call ``function`` on the items of the iterables side by side, as ``map`` does.

        Returns an iterator over the values, in order; see AsyncManager.map.
        """
        return self._results(lambda more: self.grid.map(function, *iterables, **more), how)

    def starmap(self, function: Callable[..., Any], items: Any, /, **how: Any) -> "Results":
        """Call ``function(*item)`` for each item; else as ``map``."""
        return self._results(lambda more: self.grid.starmap(function, items, **more), how)

    def filter(self, predicate: Callable[[Any], Any], items: Any, /, **how: Any) -> "Results":
        """Iterate over the items for which ``predicate(item)`` is true; else as ``map``."""
        return self._results(lambda more: self.grid.filter(predicate, items, **more), how)

    def reduce(
        self,
        function: Callable[[Any, Any], Any],
        parts: Any,
        /,
        initial: Any = NOTHING,
        *,
        into: "Container | None" = None,
        fan_in: int = FAN_IN,
        **options: Any,
    ) -> Any:
        """Combine ``parts`` by an associative ``function(left, right)`` in a tree on the nodes.

        See AsyncManager.reduce.
        """
        inner = into.container if into is not None else None
        work = self.grid.reduce(function, parts, initial, into=inner, fan_in=fan_in, **options)
        return self._thread.call(work)

    def _results(
        self, make: Callable[[dict[str, Any]], ResultStream], how: dict[str, Any]
    ) -> "Results":
        into = how.get("into")
        if isinstance(into, Container):
            how["into"] = into.container
        bar = self._progress.bar(how.get("title", ""))
        how.setdefault("on_progress", bar.show_run)
        stream = self._thread.call_function(lambda: make(how))
        bar.name(stream.run.name)
        return Results(self._thread, stream, bar.close)

    # --- objects ----------------------------------------------------------------------------

    def container(
        self, name: str, copies: int | None = None, members: Collection[str | bytes] = ()
    ) -> "Container":
        """Return the container ``name`` of this account; it is made on first use.

        ``copies``: how many data nodes keep each object (default 2, or as it is). ``members``: its
        data nodes, by address, name or key (default: all of the pool).
        """
        inner = self._thread.call_function(lambda: self.grid.container(name, copies, members))
        return Container(self._thread, inner, self._progress)

    def containers(self) -> list[ContainerRow]:
        """Return the account's containers."""
        return self._thread.call(self.grid.containers())


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
            _callbacks().submit(function, self)

        self.job.add_done_callback(call)

    def cancel(self) -> "Cancel":
        """End the job and all its processes; ``.wait()`` gives the receipt."""
        self.job.cancel()
        return Cancel(self)

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


class Batches(Generic[T]):
    """A plain iterator over an asynchronous one, taking many items at a time."""

    def __init__(self, thread: LoopThread, items: AsyncIterator[T], at_once: int) -> None:
        self._thread = thread
        self._items = items
        self._at_once = at_once
        self._kept: Iterator[T] = iter(())
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        for item in self._kept:
            return item
        if self._ended:
            raise StopIteration
        batch = self._thread.call(self._take())
        self._ended = len(batch) < self._at_once
        self._kept = iter(batch)
        for item in self._kept:
            return item
        raise StopIteration

    async def _take(self) -> list[T]:
        batch: list[T] = []
        async for item in self._items:
            batch.append(item)
            if len(batch) == self._at_once:
                break
        return batch


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


class Container:
    """A named tree of objects, each kept in k copies; see AsyncContainer for what each raises."""

    def __init__(self, thread: LoopThread, container: AsyncContainer, progress: Progress) -> None:
        self.container = container
        self.name = container.name
        self.id = container.id
        self._thread = thread
        self._progress = progress

    def __repr__(self) -> str:
        return repr(self.container)

    def describe(self) -> Descriptor:
        """Return who keeps its objects, and in how many copies."""
        return self._thread.call(self.container.describe())

    def reconfigure(self, **how: Any) -> Descriptor:
        """Change copies or members from now on."""
        return self._thread.call(self.container.reconfigure(**how))

    def put(
        self,
        path: str,
        content: Given,
        *,
        if_absent: bool = False,
        if_version: VersionLike | None = None,
    ) -> JobObject:
        """Write a new version: bytes, a pathlib.Path, a binary file, or an iterable of bytes."""
        return self._thread.call(
            self.container.put(path, content, if_absent=if_absent, if_version=if_version)
        )

    def put_value(self, path: str, value: Any, **how: Any) -> JobObject:
        """Write a value, so that ``.value()`` of the object returns it, here and in jobs."""
        return self._thread.call(self.container.put_value(path, value, **how))

    def push(self, file: str | Path, path: str = "", **how: Any) -> JobObject:
        """Write a file under ``path``, by default under its own name."""
        return self.put(path or Path(file).name, Path(file), **how)

    def get(
        self,
        path: str | JobObject,
        offset: int = 0,
        length: int = TO_THE_END,
        *,
        allow_stale: bool = False,
    ) -> bytes:
        """Return an object's bytes.

        ``allow_stale``: also where too few members answer to know the newest version.
        """
        work = self.container.get(path, offset, length, allow_stale=allow_stale)
        return self._thread.call(work)

    def stream(self, path: str | JobObject, *, allow_stale: bool = False) -> Iterator[bytes]:
        """Iterate over an object's bytes as they come."""
        pieces = self.container.stream(path, allow_stale=allow_stale)
        return Batches(self._thread, pieces, PIECES_AT_ONCE)

    def value(self, path: str | JobObject) -> Any:
        """Return the value that a value object holds."""
        return self._thread.call(self.container.value(path))

    def pull(
        self, path: str | JobObject, target: str | Path, *, allow_stale: bool = False
    ) -> JobObject:
        """Write an object to a file, which appears whole or not at all."""
        return self._thread.call(self.container.pull(path, target, allow_stale=allow_stale))

    def stat(self, path: str, *, allow_stale: bool = False) -> JobObject:
        """Return the newest version of an object."""
        return self._thread.call(self.container.stat(path, allow_stale=allow_stale))

    def exists(self, path: str, *, allow_stale: bool = False) -> bool:
        """Return whether there is an object under ``path``."""
        return self._thread.call(self.container.exists(path, allow_stale=allow_stale))

    def delete(self, path: str, **how: Any) -> None:
        """Delete an object."""
        self._thread.call(self.container.delete(path, **how))

    def ls(self, prefix: str = "", **how: Any) -> Iterator[JobObject]:
        """Iterate over the objects whose path begins with ``prefix``, in path order."""
        return Batches(self._thread, self.container.ls(prefix, **how), LISTED_AT_ONCE)

    def glob(self, pattern: str, **how: Any) -> Iterator[JobObject]:
        """Iterate over the objects that match: ``*`` within a segment, ``**`` across them."""
        return Batches(self._thread, self.container.glob(pattern, **how), LISTED_AT_ONCE)

    def push_tree(self, folder: str | Path, **how: Any) -> Transfer:
        """Write the files below a folder, under their relative paths."""
        with self._progress.bar(f"push {folder}") as bar:
            how.setdefault("on_progress", bar.show_transfer)
            return self._thread.call(self.container.push_tree(folder, **how))

    def pull_tree(self, folder: str | Path, **how: Any) -> Transfer:
        """Write the objects as files below a folder."""
        with self._progress.bar(f"pull {self.name}") as bar:
            how.setdefault("on_progress", bar.show_transfer)
            return self._thread.call(self.container.pull_tree(folder, **how))


class ThreadReader:
    """Reads objects for the program's own threads: what JobObject.read() uses here."""

    def __init__(self, grid: AsyncManager, thread: LoopThread) -> None:
        self._grid = grid
        self._thread = thread

    def read(self, item: JobObject, offset: int, length: int) -> bytes:
        """Return bytes of an object."""
        return self._thread.call(self._grid.read(item, offset, length))

    def stream(self, item: JobObject) -> Iterator[bytes]:
        """Iterate over an object's bytes."""
        return Batches(self._thread, self._grid.stream(item), PIECES_AT_ONCE)

    def value(self, item: JobObject) -> Any:
        """Return the value of a value object."""
        data = self.read(item, 0, TO_THE_END)
        return results.decode_value(data, item.codec)


_callback_pool: concurrent.futures.ThreadPoolExecutor | None = None
_callback_lock = threading.Lock()


def _callbacks() -> concurrent.futures.ThreadPoolExecutor:
    """Return the thread that runs callbacks, one after the other."""
    global _callback_pool  # noqa: PLW0603 - one for the program, made when first needed
    with _callback_lock:
        if _callback_pool is None:
            _callback_pool = concurrent.futures.ThreadPoolExecutor(1, "alpyne-callbacks")
        return _callback_pool
