"""Manager: the manager library for plain programs.

    with Manager.connect() as grid:
        corpus = grid.container("corpus", copies=2)
        corpus.push_tree("texts/")
        counts = grid.map(count_words, corpus.glob("*.txt"))
        total = grid.reduce(add, counts)

The event loop of an AsyncManager runs in a thread; each method here hands its work to it and waits.
All objects may be used from any thread.
"""

import atexit
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Self

from alpyne_grid.manager.aio import AsyncManager
from alpyne_grid.manager.loop_thread import LoopThread
from alpyne_grid.manager.nodes import Node
from alpyne_grid.manager.progress import Progress
from alpyne_grid.manager.reduce import FAN_IN, NOTHING
from alpyne_grid.manager.statistics import Statistics
from alpyne_grid.manager.streams import ResultStream
from alpyne_grid.manager.sync_jobs import Job, Results
from alpyne_grid.manager.sync_objects import Container, ThreadReader

from alpyne_proto.address import Address
from alpyne_proto.messages.data import ContainerRow


class Manager:
    """A program's connection to its grid; made by ``connect``, closed by ``close`` or ``with``."""

    def __init__(self, grid: AsyncManager, thread: LoopThread, *, progress: bool | None) -> None:
        self.grid = grid
        self._thread = thread
        self._progress = Progress(wanted=progress)
        grid.core.reader = ThreadReader(grid, thread)
        atexit.register(self.close)  # what is to be settled still leaves

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
        atexit.unregister(self.close)
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

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job:
        """Run ``function(*args, **kwargs)`` on a node; returns at once.

        Keywords that the function does not take itself and that are fields of JobOptions (memory,
        timeout, retries, cpus ...) are the job's options. Raises ProgramError.
        """
        return Job(self._thread, self.grid.submit(function, *args, **kwargs))

    def run_source(self, file: str | Path, /, *args: Any, **kwargs: Any) -> Job:
        """Run ``main(*args, **kwargs)`` of a .py file on a node."""
        return Job(self._thread, self.grid.run_source(file, *args, **kwargs))

    def run_command(self, argv: Collection[str], /, **how: Any) -> Job:
        """Run a command on a node; see AsyncManager.run_command."""
        return Job(self._thread, self.grid.run_command(list(argv), **how))

    def job(self, job_id: str | bytes) -> Job:
        """Return a job of this account by its id, whoever submitted it; UnknownJob for none."""
        return Job(self._thread, self._thread.call(self.grid.job(job_id)))

    def jobs(self, *, tag: str = "", group: bytes = b"", limit: int = 0) -> list[Job]:
        """Return this account's jobs on all nodes, the chunks of a map in order."""
        found = self._thread.call(self.grid.jobs(tag=tag, group=group, limit=limit))
        return [Job(self._thread, job) for job in found]

    # --- maps -------------------------------------------------------------------------------

    def map(self, function: Callable[..., Any], /, *iterables: Any, **how: Any) -> Results:
        """Call ``function`` on the items of the iterables side by side, as ``map`` does.

        Returns an iterator over the values, in order; see AsyncManager.map.
        """
        return self._results(lambda more: self.grid.map(function, *iterables, **more), how)

    def starmap(self, function: Callable[..., Any], items: Any, /, **how: Any) -> Results:
        """Call ``function(*item)`` for each item; else as ``map``."""
        return self._results(lambda more: self.grid.starmap(function, items, **more), how)

    def filter(self, predicate: Callable[[Any], Any], items: Any, /, **how: Any) -> Results:
        """Iterate over the items for which ``predicate(item)`` is true; else as ``map``."""
        return self._results(lambda more: self.grid.filter(predicate, items, **more), how)

    def reduce(
        self,
        function: Callable[[Any, Any], Any],
        parts: Any,
        /,
        initial: Any = NOTHING,
        *,
        into: Container | None = None,
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
    ) -> Results:
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
    ) -> Container:
        """Return the container ``name`` of this account; it is made on first use.

        ``copies``: how many data nodes keep each object (default 2, or as it is). ``members``: its
        data nodes, by address, name or key (default: all of the pool).
        """
        inner = self._thread.call_function(lambda: self.grid.container(name, copies, members))
        return Container(self._thread, inner, self._progress)

    def containers(self) -> list[ContainerRow]:
        """Return the account's containers."""
        return self._thread.call(self.grid.containers())
