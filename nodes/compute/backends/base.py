"""The seam between the job table and what runs jobs; one contract suite tests every back end.

    table --run(task, sink)--> back end --started, output*, ended--> sink
    table --cancel(execution)--> back end --ended (with the receipt)--> sink

All calls happen on the event loop's thread, both ways. For every ``run`` the sink gets exactly one
``ended``, as the last call about that execution, at the earliest after ``run`` has returned: also
when the worker crashed, when it could not be started (FAILED, cause NODE) and after ``cancel``.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from alpyne_proto.messages.compute import Cause, JobForm, JobState, ResultCodec, Usage
from alpyne_proto.messages.worker import ObjectFollows, ObjectWritten, ReadObject, WriteObject

Enforcement = Literal["kernel", "sampled", "none"]
Suspends = Literal["none", "signals", "kernel"]  # signals: a job can see that it was stopped
LIMIT_NAMES = ("cpu", "memory", "wall", "output", "result", "processes", "disk", "network")

_NO_USAGE = Usage()


class Execution(NamedTuple):
    """One run of one job. Two accounts may use the same job id, so the account is part of it."""

    account: bytes  # Ed25519 key, 32 bytes
    job_id: bytes  # 16 bytes
    allocation: int  # minted by the owner's manager
    attempt: int  # minted by this node


@dataclass(frozen=True, slots=True)
class Task:
    """What a back end needs to run one execution.

    ``program`` is the job's payload (rows, see ``alpyne_proto.messages.program``), or a file with
    it, which the back end must not change or move. ``bundle`` is a file: the zip of the job's
    modules. ``folder`` does not exist yet: the back end makes it where the program needs a working
    folder of its own (a command's) and removes it after the end; calls and sources may share an
    empty one, which is made once per worker. Sizes are bytes; 0 means no limit.
    """

    execution: Execution
    form: JobForm
    codec: ResultCodec
    folder: Path
    program: bytes | Path
    bundle: Path | None = None
    bundle_sha256: bytes = b""
    python: str = ""  # major.minor that the code needs; the node has checked that it has it
    cpus: int = 1  # slots
    memory_bytes: int = 0  # enforced by the back end: LIMIT, cause MEMORY
    timeout_ms: int = 0  # for information: the table cancels
    output_bytes: int = 0  # for information: the sink counts and the table cancels
    result_bytes: int = 0  # enforced by the back end: LIMIT, cause OUTPUT
    tickets: tuple[bytes, ...] = ()
    data_nodes: tuple[str, ...] = ()
    processes: int = 0  # enforced by the back end: LIMIT, cause PROCESSES; threads count too
    disk_bytes: int = 0  # of scratch; enforced by the back end: LIMIT, cause DISK
    network: str = ""  # one of the back end's networks; "" means none where it can deny it
    image: str = ""  # one of the back end's images; "" means its first


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How an execution ended.

    ``state`` is DONE, FAILED, LIMIT or KILLED. After ``cancel`` the table keeps the state and cause
    for which it cancelled, and takes the receipt from here: ``ended`` processes that were ended,
    ``left`` those that could not be. ``result`` is the result's bytes (rows), or a file in the back
    end's folder that now belongs to the caller, who moves it away; nobody has flushed it to disk.
    A FAILED call has its Failure row as its result.
    """

    state: JobState
    cause: Cause = Cause.NONE
    text: str = ""  # the failure in a line, at most 1024 bytes of UTF-8
    exit_status: int = 0  # of a command; 256 + n: signal n
    result: bytes | Path = b""
    ended: int = 0
    left: int = 0
    usage: Usage = _NO_USAGE


class TaskSink(Protocol):
    """Where a back end reports to."""

    def started(self, execution: Execution) -> None:
        """Tell that the program is about to run: STARTING becomes RUNNING."""

    def output(self, execution: Execution, descriptor: int, data: bytes) -> None:
        """Hand over what the job wrote to stdout (1) or stderr (2), in order, before ``ended``."""

    def suspended(self, execution: Execution) -> None:
        """Tell that nothing of the execution runs any more until it is resumed."""

    def resumed(self, execution: Execution) -> None:
        """Tell that the execution, which was suspended, runs again."""

    def ended(self, execution: Execution, end: TaskEnd) -> None:
        """Tell that the execution is over, its processes gone or counted in ``left``."""


class TaskObjects(Protocol):
    """The objects of one execution: what its worker asks for is read and written through this.

    It acts only under the tickets of that execution. All methods raise AlpyneErrors, whose code and
    text the worker is told.
    """

    read_bytes: int  # of objects, so far
    written_bytes: int
    failovers: int  # reads that went on at another data node

    async def read(self, order: ReadObject) -> tuple[ObjectFollows, bytes]:
        """Return at most OBJECT_PIECE bytes of an object."""

    async def write(self, order: WriteObject, body: AsyncIterator[bytes]) -> ObjectWritten:
        """Write the body as an object in as many copies as the order asks."""

    def close(self) -> None:
        """Tell that the execution is over; what still runs for it is dropped."""


class ObjectAccess(Protocol):
    """Opens the objects of executions (``alpyne_grid.nodes.compute.objects``)."""

    def open(self, task: Task) -> TaskObjects:
        """Return the objects of ``task``; nothing is dialled before the first use."""

    async def close(self) -> None:
        """Close its connections; the back end calls it when the last job has ended."""


@dataclass(frozen=True, slots=True)
class BackendSetup:
    """What every back end is made from."""

    folder: Path  # its own folder inside the state folder; kept over restarts of the daemon
    boot_id: bytes  # 16 bytes, new at each start of the daemon
    objects: ObjectAccess | None = None  # None: jobs of this node reach no objects
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # see BackendFactory
    slots: int = 1  # jobs that run at once; the number may change while the node runs


class Backend(Protocol):
    """Runs jobs. ``level`` is the isolation level that every result reports."""

    @property
    def name(self) -> str:
        """The name by which a node is told to use it, for instance ``process``."""

    @property
    def level(self) -> int:
        """0 plain process, 1 namespaces and cgroups, 2 container."""

    @property
    def limits(self) -> Mapping[str, Enforcement]:
        """How each of LIMIT_NAMES is enforced; a name that is left out counts as ``none``."""

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Python versions (major.minor) that calls and sources may ask for."""

    @property
    def images(self) -> tuple[str, ...]:
        """The images that a job may ask for, the default first; empty: it has no images."""

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that a job may ask for; empty: none can be asked for."""

    @property
    def suspends(self) -> Suspends:
        """How ``suspend`` stops a job; ``none``: it must not be called."""

    async def check(self) -> str:
        """Return in a line what it found on this machine, for a check of the configuration.

        Starts nothing that stays. Raises OSError or ConfigError saying what to do where ``start``
        would fail.
        """

    def confine(self) -> None:
        """Give up for good what the daemon's process needs no more once it serves.

        Called once, after ``start`` and before anything is taken from the network. It acts on the
        whole process, so a program that only embeds a back end does not call it.
        """

    async def reap(self) -> int:
        """Before ``start``: end all that an earlier daemon of this folder left; count processes."""

    async def start(self) -> None:
        """Get ready to run jobs. Raises OSError with what to do where it cannot."""

    def warm(self, account: bytes, workers: int) -> None:
        """Keep about ``workers`` idle workers ready for ``account``; 0 ends its idle ones."""

    def run(self, task: Task, sink: TaskSink) -> None:
        """Run ``task`` in a worker that has only ever served its account. Never blocks."""

    def cancel(self, execution: Execution) -> None:
        """End the execution's whole tree now. Without effect where it has ended or is ending."""

    def suspend(self, execution: Execution) -> None:
        """Stop the execution's tree; the sink gets ``suspended`` once it stands still.

        Without effect where it has ended. One that cannot be stopped ends as FAILED, cause NODE.
        One that waits for its worker is held back: ``started`` and ``suspended`` follow one
        another, and nothing of it runs. A program that returns meanwhile ends as it did.
        """

    def resume(self, execution: Execution) -> None:
        """Let a suspended execution go on; the sink gets ``resumed``. Else without effect."""

    async def close(self) -> None:
        """End every worker and job; each running execution still gets its ``ended``."""


class BackendFactory(Protocol):
    """What an entry point of the group ``alpyne.compute_backends`` names.

    Its attribute ``options`` (frozenset of str) names the options that a node's administrator may
    give to it; where it has no such attribute, it takes none.
    """

    def __call__(self, setup: BackendSetup) -> Backend:
        """Return a back end that has started nothing yet."""
