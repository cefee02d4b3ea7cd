"""One container as the pool of workers sees it."""

import asyncio
import contextlib
import os
import select
import shutil
import socket
import stat
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from alpyne_grid.nodes.compute.backends.assignment import failed
from alpyne_grid.nodes.compute.backends.base import TaskEnd
from alpyne_grid.nodes.compute.backends.cells import Metered, Walls
from alpyne_grid.nodes.compute.backends.cgroups import ControlGroups, GroupReading
from alpyne_grid.nodes.compute.backends.containers.link import Done, LauncherLink
from alpyne_grid.nodes.compute.backends.containers.recipe import CELL
from alpyne_grid.nodes.compute.worker import tree

from alpyne_proto.messages.compute import Cause, JobState

FILES_KEPT = 8  # brought into a cell and not asked for since; links, which take no room
END_S = 15.0  # for the launcher to end a container
EXIT_S = 2.0  # for a first process that has closed its end of the connection
HANG_UP_S = 4.0  # for a supervisor whose connection is closed; its own patience is 2 s
FILES_WORTH_A_WORD = 10  # an out of memory is explained by files from a tenth of the limit on
_EXECUTION_SEGMENTS = 2  # of a folder's path that tell two executions apart

LOST = (
    "its container ended while the job ran, and not by its own doing: the container engine "
    "stopped, or somebody removed the container; run the job again"
)


class DockerCell:
    """A running container and the daemon's ends to its worker; see ``Cell``."""

    def __init__(
        self,
        link: LauncherLink,
        number: int,
        mark: str,
        walls: Walls,
        done: Done,
        folder: Path,
        remove: Callable[[], None],
    ) -> None:
        """``done``: of the verb ``make``. ``remove``: has the container removed.

        OSError where the worker has ended; then the descriptors are closed.
        """
        self.mark = mark
        self.supervisor = pid = int(done.value["pid"])
        self._link = link
        self._number = number
        self._walls = walls
        self._folder = folder
        self._remove = remove
        control, job, self.stdout, self.stderr, *self._disks = done.descriptors
        try:
            self._process = os.pidfd_open(pid)
            done.descriptors.append(self._process)
            self._groups = ControlGroups.of(pid)
        except OSError:
            for descriptor in done.descriptors:
                os.close(descriptor)
            raise
        self.control, self.job = socket.socket(fileno=control), socket.socket(fileno=job)
        self._exited = select.poll()
        self._exited.register(self._process, select.POLLIN)
        self._begun = self._groups.read()
        self._losses = link.engine_losses
        self._peak_is_new = False
        self._leftovers: tree.Leftovers | None = None
        self._brought: OrderedDict[tuple[str, int, int], str] = OrderedDict()
        self._files = 0
        self._frozen = False
        self._waking: asyncio.Task[None] | None = None
        self._verdict: TaskEnd | None = None

    # ---- per job ----

    def bring(self, file: Path) -> str:
        """Link ``file`` into the folder that is mounted inside; return its path there."""
        about = file.stat()
        key = (str(file), about.st_ino, about.st_mtime_ns)
        known = self._brought.get(key)
        if known is not None:
            self._brought.move_to_end(key)
            return known
        self._files += 1
        name = str(self._files)
        inside = self._folder / name
        try:
            os.link(file, inside)
        except OSError:  # another file system, or it allows no links
            shutil.copyfile(file, inside)
        # The worker is another user. So is the node's own file then readable to all, which the
        # folders above it, its owner's alone, keep from all.
        inside.chmod(stat.S_IMODE(about.st_mode) | 0o444)
        self._brought[key] = f"{CELL}/{name}"
        while len(self._brought) > FILES_KEPT:
            _, oldest = self._brought.popitem(last=False)
            (self._folder / Path(oldest).name).unlink(missing_ok=True)
        return self._brought[key]

    def folder(self, folder: Path) -> str:
        """Return a path in the scratch."""
        return "/tmp/" + "-".join(folder.parts[-_EXECUTION_SEGMENTS:])

    def begin(self) -> None:
        """Note all counters, and have the peak begin anew where the rights allow it."""
        self._peak_is_new = self._groups.reset_peak()
        self._begun = self._groups.read()
        if not self._link.engine_is_away:  # else the loss so far may still end this container
            self._losses = self._link.engine_losses

    def held_bytes(self, most: int) -> int:
        """Return what the kernel counts: pages, files in scratch, caches."""
        return self._groups.value("memory_bytes") or 0

    def overrun(self) -> TaskEnd | None:
        """Return why the job ends where the kernel hit a limit, or where the container is lost."""
        now, begun, walls = self._groups.read(), self._begun, self._walls
        if (now.oom_kills or 0) > (begun.oom_kills or 0):
            return self._out_of_memory(now)
        if self._verdict is not None:
            return self._verdict
        if self._link.engine_losses != self._losses and self.has_exited():
            # The engine, back again, ended what it found; the interpreter perhaps first.
            return failed(Cause.NODE, LOST)
        if (now.processes_refused or 0) > (begun.processes_refused or 0):
            text = f"the job wanted more than {walls.processes} processes and threads at once"
            return TaskEnd(JobState.LIMIT, Cause.PROCESSES, text)
        if any(map(_is_full, self._disks)):
            text = (
                f"the job's files filled its scratch folders, which hold {walls.disk_bytes} bytes"
            )
            return TaskEnd(JobState.LIMIT, Cause.DISK, text)
        return None

    def metered(self) -> Metered:
        """Return the difference of all counters since ``begin``."""
        now, begun = self._groups.read(), self._begun
        peak = now.peak_bytes
        # Higher than at the beginning: then it is this job's, whoever could not reset it.
        is_own = self._peak_is_new or (peak or 0) > (begun.peak_bytes or 0)
        return Metered(
            _since(now.cpu_ms, begun.cpu_ms),
            peak,
            peak is not None and not is_own,
            # Where the kernel counts no disk traffic it shows none: then the worker's word holds.
            _since(now.read_bytes, begun.read_bytes) or None,
            _since(now.written_bytes, begun.written_bytes) or None,
        )

    def leftovers(self, interpreter: int) -> Callable[[], bool]:
        """Return what looks for processes, and for files in shared memory.

        ``interpreter`` is a pid inside; from here it is the supervisor's only child. The scratch is
        emptied by the worker itself.
        """
        below = tree.children(self.supervisor)
        leftovers = self._leftovers = tree.Leftovers(self.supervisor, below[0] if below else 0)
        shared_memory = self._disks[1]
        empty = _files(shared_memory)
        return lambda: leftovers.any() or _files(shared_memory) > empty

    # ---- suspending ----

    async def freeze(self) -> None:
        """Freeze the container; OSError where the engine cannot."""
        self._frozen = True
        await self._link.ask("freeze", cell=self._number)

    async def thaw(self) -> None:
        """Let the container run again; OSError where the engine cannot."""
        await self._link.ask("thaw", cell=self._number)
        self._frozen = False

    # ---- the end ----

    def wake(self) -> None:
        """Thaw the container where it is frozen, in the background."""
        if self._frozen and self._waking is None:
            self._waking = asyncio.get_running_loop().create_task(self._wake())

    async def _wake(self) -> None:
        with contextlib.suppress(OSError):  # then it ends by force
            await self.thaw()

    def has_exited(self) -> bool:
        """Say whether the first process has ended, and with it all others inside."""
        return bool(self._exited.poll(0))

    async def end_all(self) -> tree.Receipt:
        """Have the container ended; where the engine is away, its own processes do it at EOF."""
        inside = tree.descendants(self.supervisor)
        if self.control.fileno() < 0:  # lost: it is about to exit, and must seem to do so alone
            await self._await_exit(EXIT_S)
        try:
            async with asyncio.timeout(END_S):
                done = await self._link.ask("end", cell=self._number)
            self._judge(alone=bool(done.value["alone"]), memory=bool(done.value["memory"]))
        except (OSError, TimeoutError):
            self._judge(alone=True, memory=False)
            await self._hang_up()
        left = 0 if self.has_exited() else sum(map(tree.is_alive, inside)) + 1
        return tree.Receipt(max(0, len(inside) - left), left)

    def clear_away(self) -> None:
        """Close what it holds, and have the container removed."""
        if self._leftovers is not None:
            self._leftovers.close()
        if self._waking is not None:
            self._waking.cancel()
        self._groups.close()
        for descriptor in (self._process, *self._disks):
            os.close(descriptor)
        self._disks = []
        self._remove()

    async def _hang_up(self) -> None:
        """Close the connection to the supervisor, which then ends its tree and itself."""
        with contextlib.suppress(OSError):  # it has ended already
            self.control.shutdown(socket.SHUT_RDWR)
        await self._await_exit(HANG_UP_S)

    async def _await_exit(self, within_s: float) -> None:
        """Return when the first process has ended, or after ``within_s``."""
        exited = select.poll()  # its own: this one may be asked meanwhile
        exited.register(self._process, select.POLLIN)
        await asyncio.to_thread(exited.poll, within_s * 1000)

    def let_go(self) -> None:
        """Drop a cell that no worker handle has taken over."""
        self.control.close()
        self.job.close()
        os.close(self.stdout)
        os.close(self.stderr)
        self.clear_away()

    def _judge(self, *, alone: bool, memory: bool) -> None:
        """Take why the container had ended before it was told to."""
        if memory:
            self._verdict = self._out_of_memory(self._groups.read())
        elif alone:
            self._verdict = failed(Cause.NODE, LOST)

    def _out_of_memory(self, now: GroupReading) -> TaskEnd:
        most = self._walls.memory_bytes
        text = f"the job and its processes wanted more than {most} bytes of memory"
        if not most:
            text = "the machine ran out of memory, and the kernel ended a process of the job"
        elif (now.files_bytes or 0) > most // FILES_WORTH_A_WORD:
            text += f"; {now.files_bytes} bytes of it were files in its scratch, which is memory"
        return TaskEnd(JobState.LIMIT, Cause.MEMORY, text)


def _since(now: int | None, begun: int | None) -> int | None:
    return None if now is None else max(0, now - (begun or 0))


def _is_full(disk: int) -> bool:
    about = os.fstatvfs(disk)
    return about.f_bavail == 0 or about.f_favail == 0


def _files(disk: int) -> int:
    about = os.fstatvfs(disk)
    return about.f_files - about.f_ffree
