"""AsyncManager: the manager library for asyncio programs.

    async with AsyncManager.connect() as grid:
        async for count in grid.map(count_words, grid.container("corpus").glob("*.txt")):
            ...

It is a thin front: programs are made here, jobs are run by GridCore, maps by MapRun.
"""

import asyncio
import secrets
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, Self

from alpyne_grid.manager import journal as journals
from alpyne_grid.manager import options as opt
from alpyne_grid.manager import pool as pools
from alpyne_grid.manager import program as programs
from alpyne_grid.manager import sources
from alpyne_grid.manager.admin import parse_invitation
from alpyne_grid.manager.bundle import Bundler
from alpyne_grid.manager.chunks import ChunkSizes
from alpyne_grid.manager.core import GridCore
from alpyne_grid.manager.errors import NodeUnreachable, PoolError, ProgramError
from alpyne_grid.manager.grid_table import LOST_AFTER_S, GridTable
from alpyne_grid.manager.identity import Passphrase, home_folder, load_identity
from alpyne_grid.manager.jobs import AsyncJob
from alpyne_grid.manager.links import LinkSettings
from alpyne_grid.manager.maps import MapRun, MapWork
from alpyne_grid.manager.options import CheckedOptions, JobOptions
from alpyne_grid.manager.specs import Target, Work, needs_bundle
from alpyne_grid.manager.streams import ResultStream, values_of

from alpyne_proto.address import Address
from alpyne_proto.compression import Compression
from alpyne_proto.jobobject import JobObject

CONNECT_S = 10.0


class AsyncManager:
    """A program's connection to its grid; made by ``connect``.

    All methods belong to the event loop that it was connected on.
    """

    def __init__(self, core: GridCore, bundler: Bundler) -> None:
        self.core = core
        self._bundler = bundler
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
        act as, such as ~/.ssh/id_ed25519. ``invitation``: code for nodes that do not know the
        account yet. ``untrusted``: addresses or names of nodes whose results must not be unpickled.
        ``modules``: files and packages to send with jobs, beside those that are found.
        ``lost_after``: how long a node may be gone before its jobs move. ``timeout``: for the first
        connections. Raises PoolError, KeyFileError, NotRegistered, NodeUnreachable, JournalError.
        """
        return Connecting(
            _connect(
                addresses,
                Path(home).expanduser() if home is not None else home_folder(),
                Path(account) if account is not None else None,
                passphrase,
                parse_invitation(invitation) if invitation else b"",
                untrusted,
                modules,
                opt.parse_duration(lost_after),
                opt.parse_duration(timeout),
                host_label,
                compression,
            )
        )

    async def close(self) -> None:
        """Close all connections. Jobs that a node has accepted go on; maps are cancelled."""
        if not self._closed:
            self._closed = True
            for run in list(self._runs):
                run.close()
            await asyncio.sleep(0)  # their cancels leave before the connections close
            await self.core.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # --- single jobs ------------------------------------------------------------------------

    def submit(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        options: JobOptions | None = None,
        **kwargs: Any,
    ) -> AsyncJob:
        """Run ``function(*args, **kwargs)`` on a node; returns at once.

        Keyword arguments that are fields of JobOptions (memory, timeout, retries, cpus ...) are
        the job's options; all others go to the function. Raises ProgramError for what cannot be
        sent.
        """
        chosen, rest = split_options(options, kwargs)
        return self.submit_program(programs.call(function, args, rest), chosen.checked())

    def run_source(
        self, file: str | Path, *args: Any, options: JobOptions | None = None, **kwargs: Any
    ) -> AsyncJob:
        """Run ``main(*args, **kwargs)`` of a .py file on a node."""
        chosen, rest = split_options(options, kwargs)
        return self.submit_program(programs.source(file, args, rest), chosen.checked())

    def run_command(
        self,
        argv: Sequence[str],
        *,
        inputs: Mapping[str, str | Path | bytes] | Iterable[str | Path] = (),
        outputs: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        options: JobOptions | None = None,
        **kwargs: Any,
    ) -> AsyncJob:
        """Run a command on a node, in an empty folder with ``inputs``; its result is CommandResult.

        ``outputs``: patterns of the files to bring back.
        """
        chosen, rest = split_options(options, kwargs)
        if rest:
            raise ProgramError(f"run_command: unknown options {', '.join(rest)}")
        made = programs.command(argv, inputs=inputs, outputs=outputs, environment=environment)
        return self.submit_program(made, chosen.checked())

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

    # --- maps -------------------------------------------------------------------------------

    def map(
        self,
        function: Callable[..., Any],
        /,
        *iterables: Any,
        chunk: int = 0,
        as_completed: bool = False,
        return_exceptions: bool = False,
        on_finish: Callable[[int, Any], None] | None = None,
        on_failure: Callable[[int, Any], None] | None = None,
        options: JobOptions | None = None,
        **more: Any,
    ) -> ResultStream[Any]:
        """Call ``function`` on the items of the iterables side by side, as ``map`` does.

        Returns an asynchronous iterator over the values, in order. Items are taken as there is
        room, and results are kept for a bounded window only. An item that raises raises when its
        turn comes; the others go on. ``chunk``: items per job, 0 to adapt. ``as_completed``: values
        in the order in which they come. Further keywords are JobOptions.
        """
        items: Any = sources.as_tuples(iterables)
        chosen = more_options(options, more)
        run = self.map_run(
            function,
            items,
            sources.length_of(iterables),
            chosen,
            chunk=chunk,
            ordered=not as_completed,
        )
        return self._stream(
            run,
            return_exceptions=return_exceptions,
            on_finish=on_finish,
            on_failure=on_failure,
        )

    def map_run(
        self,
        function: Callable[..., Any],
        items: sources.Items,
        length: int | None,
        options: CheckedOptions,
        *,
        chunk: int = 0,
        ordered: bool = True,
        name: str = "",
        load: bool = False,
    ) -> MapRun:
        """Return a map that has not begun, for iterators of other kinds."""
        found: list[JobObject] = []
        row = programs.function_row(function, found)
        work = MapWork(
            function=row,
            objects=tuple(found),
            name=name or programs.name_of(function),
            options=options,
            group=secrets.token_bytes(16),
            load=load,
        )
        run = MapRun(
            self,
            work,
            sources.source_of(items, length),
            sizes=ChunkSizes(chunk),
            ordered=ordered,
        )
        self._runs.add(run)
        return run

    def _stream(self, run: MapRun, pick: Any = values_of, **how: Any) -> ResultStream[Any]:
        return ResultStream(run, pick, on_close=lambda: self._runs.discard(run), **how)

    # --- for maps ---------------------------------------------------------------------------

    def submit_chunk(self, work: MapWork, program: programs.Program) -> AsyncJob:
        """Submit one chunk of a map."""
        return self.submit_program(program, work.options, group=work.group, target=work.target)

    def total_slots(self) -> int:
        """Return the slots of all compute nodes that are up, at least 1."""
        return max(1, sum(node.slots for node in self.core.table.nodes.values() if node.up))


class Connecting:
    """A manager that is being connected: ``await`` it, or enter it by ``async with``."""

    def __init__(self, connecting: Any) -> None:
        self._connecting = connecting
        self._manager: AsyncManager | None = None

    def __await__(self) -> Generator[Any, None, AsyncManager]:
        made: Generator[Any, None, AsyncManager] = self._connecting.__await__()
        return made

    async def __aenter__(self) -> AsyncManager:
        self._manager = await self
        return self._manager

    async def __aexit__(self, *error: object) -> None:
        if self._manager is not None:
            await self._manager.close()


def split_options(
    options: JobOptions | None, given: Mapping[str, Any]
) -> tuple[JobOptions, dict[str, Any]]:
    """Divide keyword arguments into those of JobOptions and the function's own."""
    fields = JobOptions.__slots__
    own = {name: value for name, value in given.items() if name in fields}
    rest = {name: value for name, value in given.items() if name not in fields}
    if not own:
        return options or JobOptions(), rest
    base = {name: getattr(options, name) for name in fields} if options is not None else {}
    return JobOptions(**{**base, **own}), rest


def more_options(options: JobOptions | None, given: Mapping[str, Any]) -> CheckedOptions:
    """Return options where nothing else may be given; ProgramError names what is unknown."""
    chosen, rest = split_options(options, given)
    if rest:
        raise ProgramError(
            f"unknown option {', '.join(sorted(rest))}; known are {', '.join(JobOptions.__slots__)}"
        )
    return chosen.checked()


async def _connect(
    addresses: Iterable[str | Address] | None,
    home: Path,
    account: Path | None,
    passphrase: Passphrase | None,
    invitation: bytes,
    untrusted: Collection[str],
    modules: Sequence[str | Path],
    lost_after_s: float,
    timeout_s: float,
    host_label: str,
    compression: Compression,
) -> AsyncManager:
    identity = load_identity(home, account, passphrase)
    known = pools.load(home)
    nodes = list(known.nodes.values())
    if addresses is not None:
        nodes = pools.from_addresses(addresses, known)
    if not nodes:
        raise PoolError(
            f"{home / pools.FILE}: no nodes; pair with some (`alpyne pair ADDRESS`) or give "
            "addresses"
        )
    nodes = pools.distrust(nodes, untrusted)
    bundler = Bundler(modules)
    settings = LinkSettings(
        identity,
        secrets.token_bytes(16),
        invitation=invitation,
        host_label=host_label,
        compression=compression,
        home=home,
    )
    journals.remove_old(home / "journals")
    journal = journals.Journal.create(home / "journals", identity.account, secrets.token_bytes)
    table = GridTable(lost_after_s=lost_after_s)
    core = GridCore(settings=settings, journal=journal, nodes=nodes, table=table)
    core.start()
    await core.heard(timeout_s)
    if not any(link.is_up for link in core.links.values()):
        errors = [link.error for link in core.links.values() if link.error is not None]
        why = "; ".join(dict.fromkeys(map(str, errors)))
        await core.close()
        kind = type(errors[0]) if len({type(error) for error in errors}) == 1 else NodeUnreachable
        raise kind(f"no node can be reached: {why or 'no answer in time'}")
    return AsyncManager(core, bundler)
