"""AsyncManager: the manager library for asyncio programs.

    async with AsyncManager.connect() as grid:
        async for count in grid.map(count_words, grid.container("corpus").glob("*.txt")):
            ...

A thin front: programs are made here, jobs are run by GridCore, maps by MapRun.
"""

import secrets
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from alpyne_grid.manager import options as opt
from alpyne_grid.manager import program as programs
from alpyne_grid.manager import reduce as reduction
from alpyne_grid.manager import results, sources
from alpyne_grid.manager.admin import parse_invitation
from alpyne_grid.manager.attach import AttachedJob, Finder, chunks_done
from alpyne_grid.manager.bundle import Bundler
from alpyne_grid.manager.chunks import ChunkSizes
from alpyne_grid.manager.command import Command
from alpyne_grid.manager.connecting import JOURNALS, ConnectOptions, connect_core
from alpyne_grid.manager.containers import Containers
from alpyne_grid.manager.core import GridCore
from alpyne_grid.manager.deleting import delete_all, noting
from alpyne_grid.manager.errors import ProgramError
from alpyne_grid.manager.grid_table import LOST_AFTER_S
from alpyne_grid.manager.identity import Passphrase, home_folder
from alpyne_grid.manager.jobs import AsyncJob
from alpyne_grid.manager.map_work import MapWork
from alpyne_grid.manager.maps import Earlier, MapRun
from alpyne_grid.manager.nodes import Node, nodes
from alpyne_grid.manager.objects import AsyncContainer, Store
from alpyne_grid.manager.options import CheckedOptions, more_options, split_options
from alpyne_grid.manager.reads import Reads
from alpyne_grid.manager.specs import Target, Work, needs_bundle
from alpyne_grid.manager.statistics import Statistics, statistics
from alpyne_grid.manager.streams import Picks, ResultStream, StreamOptions
from alpyne_grid.manager.writes import Writes

from alpyne_proto.address import Address
from alpyne_proto.compression import Compression
from alpyne_proto.jobobject import TO_THE_END, JobObject
from alpyne_proto.messages.compute import ListJobs
from alpyne_proto.messages.data import ContainerRow

CONNECT_S = 10.0
CANCELS_S = 2.0  # what cancelled jobs get to end before the connections are closed


class AsyncManager:
    """A program's connection to its grid; made by ``connect``.

    All methods belong to the event loop that it was connected on.
    """

    def __init__(self, core: GridCore, bundler: Bundler, home: Path) -> None:
        self.core = core
        self._bundler = bundler
        self._finder = Finder(core, home / JOURNALS)
        containers = Containers(core, core.settings.identity.account)
        self._store = Store(core, containers, Reads(core), Writes(core), lambda: core.reader)
        self._runs: set[MapRun] = set()
        self._closed = False

    # --- life -------------------------------------------------------------------------------

    @staticmethod
    def connect(
        addresses: Iterable[str | Address] | None = None,
        *,
        home: str | Path | None = None,
        account: str | Path | None = None,
        passphrase: Passphrase | None = None,
        invitation: str = "",
        untrusted: Collection[str] = (),
        modules: Sequence[str | Path] = (),
        lost_after: opt.Duration = LOST_AFTER_S,
        timeout: opt.Duration = CONNECT_S,
        host_label: str = "",
        compression: Compression = Compression.AUTO,
    ) -> "Connecting":
        """Return a manager to be awaited, or entered by ``async with``.

        ``addresses``: nodes; None for those of the pool file. ``home``: folder of keys, pool and
        journals (default: ALPYNE_HOME, else ~/.config/alpyne). ``account``: an Ed25519 key file to
        act as, such as ~/.ssh/id_ed25519; ``passphrase``: asked where it is protected.
        ``invitation``: code for nodes that do not know the account yet. ``untrusted``: addresses or
        names of nodes whose results must not be unpickled. ``modules``: files and packages to send
        with jobs, beside those that are found. ``lost_after``: how long a node may be gone before
        its jobs move. ``timeout``: for the first connections. ``host_label``: this machine's.
        Raises PoolError, KeyFileError, NotRegistered, NodeUnreachable, JournalError.
        """
        folder = Path(home).expanduser() if home is not None else home_folder()
        options = ConnectOptions(
            home=folder,
            addresses=tuple(addresses) if addresses is not None else None,
            account=Path(account) if account is not None else None,
            passphrase=passphrase,
            invitation=parse_invitation(invitation) if invitation else b"",
            untrusted=untrusted,
            lost_after_s=opt.parse_duration(lost_after),
            timeout_s=opt.parse_duration(timeout),
            host_label=host_label,
            compression=compression,
        )
        return Connecting(options, Bundler(modules))

    async def close(self) -> None:
        """Close all connections. Jobs that a node has accepted go on; maps are cancelled."""
        if not self._closed:
            self._closed = True
            for run in list(self._runs):
                run.close()
            await self.core.cancelled_ended(CANCELS_S)
            await self.core.close()
            self._finder.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def statistics(self) -> Statistics:
        """Return what was done so far: jobs, moves, failed-over reads and bytes, by node."""
        return statistics(self.core)

    async def nodes(self) -> list[Node]:
        """Ask the nodes of the pool what they have and how busy they are."""
        return await nodes(self.core)

    # --- single jobs ------------------------------------------------------------------------

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncJob:
        """Run ``function(*args, **kwargs)`` on a node; returns at once.

        Keywords that the function does not take itself and that are fields of JobOptions (memory,
        timeout, retries, cpus ...) are the job's options; ``options=JobOptions(...)`` gives them
        where names would clash. Raises ProgramError for what cannot be sent.
        """
        options, rest = split_options(kwargs, function)
        return self.submit_program(programs.call(function, args, rest), options.checked())

    def run_source(self, file: str | Path, /, *args: Any, **kwargs: Any) -> AsyncJob:
        """Run ``main(*args, **kwargs)`` of a .py file on a node; keywords as in ``submit``."""
        options, rest = split_options(kwargs)
        return self.submit_program(programs.source(file, args, rest), options.checked())

    def run_command(
        self,
        argv: Sequence[str],
        /,
        *,
        inputs: Mapping[str, str | Path | bytes] | Iterable[str | Path] = (),
        outputs: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> AsyncJob:
        """Run a command on a node, in an empty folder with ``inputs``; its result: CommandResult.

        ``inputs``: files, which keep their names, or name -> file or content. ``outputs``: patterns
        of the files to bring back. Further keywords are JobOptions.
        """
        made = programs.command(argv, inputs=inputs, outputs=outputs, environment=environment)
        return self.submit_program(made, more_options(options))

    def submit_program(
        self,
        program: programs.Program,
        options: CheckedOptions,
        *,
        group: bytes = b"",
        target: Target | None = None,
    ) -> AsyncJob:
        """Submit a program made by ``alpyne_grid.manager.program``; from any thread."""
        bundle = self._bundler.current() if needs_bundle(program.form) else None
        work = Work(self.core.new_job_id(), program, options, bundle, group, target)
        return self.core.submit(work, options.name or program.kind)

    # --- jobs found again -------------------------------------------------------------------

    async def job(self, job_id: str | bytes) -> AsyncJob:
        """Return a job of this account by its id, whoever submitted it; UnknownJob for none."""
        return await self._finder.job(job_id)

    async def jobs(self, *, tag: str = "", group: bytes = b"", limit: int = 0) -> list[AttachedJob]:
        """Return this account's jobs on all nodes, the chunks of a map in order.

        ``tag``: only those with it. ``limit``: only so many of each node, the newest.
        """
        return await self._finder.jobs(ListJobs(tag=tag, group=group, limit=limit))

    # --- objects ----------------------------------------------------------------------------

    def container(
        self, name: str, copies: int | None = None, members: Collection[str | bytes] = ()
    ) -> AsyncContainer:
        """Return the container ``name`` of this account; it is made on first use.

        ``copies``: how many data nodes keep each object (default 2, or as it is). ``members``: its
        data nodes, by address, name or key (default: all of the pool).
        """
        keys = [self.core.node_key(member) for member in members]
        return AsyncContainer(self._store, name, copies, keys)

    async def containers(self) -> list[ContainerRow]:
        """Return the account's containers."""
        return await self._store.containers.names()

    async def read(self, item: JobObject, offset: int = 0, length: int = TO_THE_END) -> bytes:
        """Return bytes of an object, as a result refers to it."""
        return await self._store.reads.read(item, offset, length)

    async def value(self, item: JobObject) -> Any:
        """Return the value of a value object, as a map or reduce ``into`` leaves it."""
        return results.decode_value(await self.read(item), item.codec)

    def stream(self, item: JobObject) -> AsyncIterator[bytes]:
        """Yield an object's bytes as they come."""
        return self._store.reads.stream(item)

    # --- maps -------------------------------------------------------------------------------

    def map(self, function: Callable[..., Any], /, *iterables: Any, **how: Any) -> ResultStream:
        """Call ``function`` on the items of the iterables side by side, as ``map`` does.

        ``function``: also a ``Source`` or a ``Command``. Returns an asynchronous iterator over the
        values, in order. Items are taken as there is room, and results are kept for a bounded
        window only. An item that raises raises when its turn comes; the others go on. Keywords:

        ``chunk``: items per job, 0 to adapt. ``as_completed``: values in the order in which they
        come. ``return_exceptions``: errors like values. ``on_finish(index, value)``,
        ``on_failure(index, error)``: called once per item, as it is handed out. ``into``: a
        container for the values; the results are then JobObjects. ``resume``: a tag; chunks that an
        earlier run with it has done, or has under way, are not done again. All others are fields of
        JobOptions.
        """
        length = sources.length_of(iterables)
        return self._map(function, sources.as_tuples(iterables), length, Picks.VALUES, how)

    def starmap(self, function: Callable[..., Any], items: Any, /, **how: Any) -> ResultStream:
        """Call ``function(*item)`` for each item; else as ``map``."""
        return self._map(function, items, sources.length_of((items,)), Picks.VALUES, how)

    def filter(self, predicate: Callable[[Any], Any], items: Any, /, **how: Any) -> ResultStream:
        """Iterate over the items for which ``predicate(item)`` is true; else as ``map``."""
        if isinstance(predicate, Command):
            predicate = predicate.predicate()
        length = sources.length_of((items,))
        return self._map(predicate, sources.as_tuples((items,)), length, Picks.ITEMS, how)

    async def reduce(
        self,
        function: Callable[[Any, Any], Any],
        parts: Any,
        /,
        initial: Any = reduction.NOTHING,
        *,
        into: AsyncContainer | None = None,
        fan_in: int = reduction.FAN_IN,
        **options: Any,
    ) -> Any:
        """Combine ``parts`` by ``function(left, right)`` in a tree on the nodes.

        ``function`` is associative; it need not be commutative, the order is kept. Parts that are
        value objects are loaded on the nodes. ``into``: a container for partial results, for those
        over about a MiB; the result is then a JobObject of the last one. ``fan_in``: neighbours
        that one step combines. Further keywords are JobOptions. Raises TypeError for no parts
        without ``initial``.
        """
        if fan_in < 2:
            raise ProgramError(f"reduce: fan_in: expected 2 or more, got {fan_in}")
        folding = reduction.Folding(function)
        name = f"reduce {programs.name_of(function)}"
        scratch: list[JobObject] = []
        streams: list[ResultStream] = []

        def level(values: Any, first: Any) -> AsyncIterator[Any]:
            items, length = reduction.groups(values, fan_in, first)
            how = {**options, "into": into, "title": name}
            stream = self._map(folding, items, length, Picks.VALUES, how)
            streams.append(stream)
            return noting(stream, scratch) if into is not None else stream

        try:
            result, _ = await reduction.tree(level, parts, initial)
        finally:
            for stream in streams:
                await stream.close()
        if into is not None:
            await delete_all(into, [item for item in scratch if item.path != result.path])
        return result

    def _map(
        self,
        function: Callable[..., Any],
        items: Any,
        length: int | None,
        picks: Picks,
        how: dict[str, Any],
    ) -> ResultStream:
        given = StreamOptions.taken_from(how)
        options = more_options(how)
        found: list[JobObject] = []
        work = MapWork(
            function=programs.function_row(function, found),
            objects=tuple(found),
            name=given.title or programs.name_of(function),
            options=options,
            group=secrets.token_bytes(16),
        )
        run = MapRun(
            self,
            lambda: self._prepare(work, given.into, given.resume),
            sources.source_of(items, length),
            sizes=ChunkSizes(given.chunk),
            ordered=not given.as_completed,
            on_progress=given.on_progress,
        )
        self._runs.add(run)
        run.on_closed = lambda: self._runs.discard(run)
        if given.into is not None:
            picks = Picks.OBJECTS
        return ResultStream(run, picks, given, reader=self.core.reader)

    async def _prepare(
        self, work: MapWork, into: AsyncContainer | None, resume: str
    ) -> tuple[MapWork, Earlier]:
        """Return what a map runs, and what an earlier run of it has."""
        earlier: Earlier = {}
        if resume:
            earlier = chunks_done(await self.jobs(tag=resume))
            tags = dict.fromkeys((*work.options.tags, resume))
            work = replace(work, options=replace(work.options, tags=tuple(tags)))
        if into is not None:
            where = await into.describe()
            prefix = f"{work.name.split()[0].strip('<>')}-{work.group[:6].hex()}"
            target = Target(where.container_id, where.members, prefix)
            work = replace(work, target=target, copies=where.copies)
        return work, earlier

    # --- for maps ---------------------------------------------------------------------------

    def submit_chunk(self, work: MapWork, program: programs.Program) -> AsyncJob:
        """Submit one chunk of a map."""
        return self.submit_program(program, work.options, group=work.group, target=work.target)

    def total_slots(self) -> int:
        """Return the slots of all compute nodes that are up, at least 1."""
        return max(1, sum(node.slots for node in self.core.table.nodes.values() if node.up))


class Connecting:
    """A manager that is being connected: ``await`` it, or enter it by ``async with``."""

    def __init__(self, options: ConnectOptions, bundler: Bundler) -> None:
        self._options = options
        self._bundler = bundler
        self._manager: AsyncManager | None = None

    async def _connect(self) -> AsyncManager:
        core = await connect_core(self._options)
        return AsyncManager(core, self._bundler, self._options.home)

    def __await__(self) -> Generator[Any, None, AsyncManager]:
        return self._connect().__await__()

    async def __aenter__(self) -> AsyncManager:
        self._manager = await self._connect()
        return self._manager

    async def __aexit__(self, *error: object) -> None:
        if self._manager is not None:
            await self._manager.close()
