"""The seam between the pool of workers and what they live in: a process, a sandbox, a container.

    pool --walls(task)--> Kind --make(kind, mark)--> Cell <--one to one--> worker handle

A cell holds one worker: its supervisor, its interpreter and whatever the jobs start. Workers of one
kind are interchangeable; a cell never serves two accounts. The frames between daemon and worker are
the same at all levels; what differs is how a cell is made, watched and ended.

All calls come from the event loop's thread, and none but those that are ``async`` may block it.
"""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from alpyne_grid.nodes.compute.backends.base import Enforcement, Suspends, Task, TaskEnd
from alpyne_grid.nodes.compute.worker.tree import Receipt


class Walls(NamedTuple):
    """What is fixed for a cell's life; 0 or "" means that nothing is asked of that kind."""

    memory_bytes: int = 0  # with swap
    cpus: int = 0  # of processor time per second
    processes: int = 0  # threads included
    disk_bytes: int = 0  # scratch: files and folders that its jobs write
    network: str = ""  # "": none, where the level can deny it
    image: str = ""


class Kind(NamedTuple):
    """Workers of one kind can take each other's jobs."""

    account: bytes
    walls: Walls


class Metered(NamedTuple):
    """What a job used since ``begin``; None: the cell cannot tell, ask the worker's own word."""

    cpu_ms: int | None = None  # of all processes of the cell
    peak_bytes: int | None = None  # of memory
    peak_is_shared: bool = False  # the peak may be an earlier job's: it could not be reset
    read_bytes: int | None = None  # from disks
    written_bytes: int | None = None  # to disks


NOT_METERED = Metered()


class Cell(Protocol):
    """Where one worker lives, and the daemon's ends to it."""

    mark: str  # in the environment of every process inside
    supervisor: int  # pid of the worker's supervisor in the daemon's /proc; 0: not to be seen there
    control: socket.socket  # to the supervisor, non-blocking; the worker handle closes it
    job: socket.socket  # to the interpreter, likewise
    stdout: int  # reading end of the pipe, non-blocking; the worker handle closes it
    stderr: int

    # ---- per job; at most some microseconds where nothing has to be done ----

    def bring(self, file: Path) -> str:
        """Make a node's file (a program or a bundle) readable inside; return its path there.

        Called for each job that has one, mostly with the same file again. OSError where it fails.
        """

    def folder(self, folder: Path) -> str:
        """Return the path inside for a command's working folder, which the worker makes.

        ``folder`` is the node's own name for it. The worker removes it after the command; what
        a worker that ended could not remove goes with ``clear_away``.
        """

    def begin(self) -> None:
        """Tell that a job begins: peaks and counters count from here."""

    def held_bytes(self, most: int) -> int:
        """Return the memory that the cell holds now; 0 where it cannot be told.

        ``most``: the limit against which it is held, 0 = none; a dearer but exact way of counting
        may wait until the cheap one goes beyond it.
        """

    def overrun(self) -> TaskEnd | None:
        """Return the verdict where the cell knows since ``begin`` why its job ends or must end.

        LIMIT with MEMORY, PROCESSES or DISK and the numbers where the kernel hit a limit; FAILED
        with NODE where the cell was lost with its engine. None: nothing of that kind. It is asked
        before the supervisor exits; afterwards it may know no more than it did then.
        """

    def metered(self) -> Metered:
        """Return what was used since ``begin``.

        After the supervisor has exited, at least what was returned before it did.
        """

    def leftovers(self, interpreter: int) -> Callable[[], bool]:
        """Return what tells whether anything but the worker itself lives in the cell.

        ``interpreter``: its pid as it sees itself, which is the daemon's view only without a pid
        namespace. Called once, when the worker is ready; what it opens goes with ``clear_away``.
        """

    # ---- suspending ----

    async def freeze(self) -> None:
        """Stop all that the jobs run; return once it stands still. OSError where it cannot."""

    async def thaw(self) -> None:
        """Let it run again. OSError where it cannot."""

    # ---- the end ----

    def wake(self) -> None:
        """Let a stopped or frozen supervisor hear ``EndWorker``; returns at once, never raises."""

    def has_exited(self) -> bool:
        """Say whether the supervisor's process is gone and reaped."""

    async def end_all(self) -> Receipt:
        """End every process inside by force, without the supervisor's help, and count them.

        Bounded in time (some seconds), and never raises: what could not be ended is ``left``.
        """

    def clear_away(self) -> None:
        """Remove what is left of the cell (folders, groups, container) in the background."""


class CellMaker(Protocol):
    """Makes the cells of one back end at one level.

    What it offers is final when ``start`` has returned.
    """

    when_lost: Callable[[str], None]  # set by the pool; tell it why all cells are lost at once

    @property
    def level(self) -> int:
        """The isolation level that results report."""

    @property
    def limits(self) -> Mapping[str, Enforcement]:
        """As of ``Backend``. Where memory is ``sampled``, the pool asks ``held_bytes`` often."""

    @property
    def suspends(self) -> Suspends:
        """As of ``Backend``."""

    @property
    def pythons(self) -> tuple[str, ...]:
        """As of ``Backend``."""

    @property
    def images(self) -> tuple[str, ...]:
        """As of ``Backend``."""

    @property
    def networks(self) -> tuple[str, ...]:
        """As of ``Backend``."""

    def walls(self, task: Task | None) -> Walls:
        """Return the walls that ``task`` needs, the node's defaults filled in; called per job.

        None: those of a job that asks for nothing. A level without walls returns ``Walls()``, so
        that any worker of the account fits.
        """

    async def reap(self) -> int:
        """End what an earlier daemon of this folder left; return how many processes (or cells)."""

    async def start(self) -> None:
        """Get ready to make cells. OSError with what to do where it cannot."""

    async def check(self) -> str:
        """Return in a line what it found, starting nothing that stays; OSError as ``start``."""

    def confine(self) -> None:
        """Give up for good what the daemon's process does not need from here on."""

    async def make(self, kind: Kind, mark: str) -> Cell:
        """Make a cell and start its worker; OSError with why and what to do where it cannot.

        Several may be under way at once. Bounded in time. When it is cancelled, nothing of the cell
        stays.
        """

    async def close(self) -> None:
        """Let go of what it holds; all of its cells have been cleared away by now."""
