"""One sandbox of level 1, as its worker handle sees it: a bubblewrap with a worker inside.

    daemon --> bwrap (outside: waits for its child) --> supervisor, pid 1 inside --> interpreter

The supervisor is the first process of the sandbox's pid namespace: when it ends, the kernel ends
all others, and bubblewrap ends only when all are gone.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from alpyne_grid.nodes.compute.backends.base import TaskEnd
from alpyne_grid.nodes.compute.backends.bubblewrap import BROUGHT, SCRATCH, SHARED
from alpyne_grid.nodes.compute.backends.cell_groups import PAUSE_S, CellGroup
from alpyne_grid.nodes.compute.backends.cells import NOT_METERED, Metered, Walls
from alpyne_grid.nodes.compute.backends.cgroups import ControlGroups
from alpyne_grid.nodes.compute.backends.plain_cells import tree_held_bytes
from alpyne_grid.nodes.compute.backends.sandbox_files import Brought, Room
from alpyne_grid.nodes.compute.backends.sandbox_start import Start
from alpyne_grid.nodes.compute.backends.tree_freezer import TreeFreezer
from alpyne_grid.nodes.compute.worker import tree

from alpyne_proto.messages.compute import Cause, JobState

END_PATIENCE_S = 3.0  # for killed processes to be gone


class SandboxCell:
    """See ``Cell``."""

    def __init__(
        self,
        mark: str,
        started: Start,
        supervisor: int,
        walls: Walls,
        group: CellGroup,
        brought: Brought,
        clear_away: Callable[[Callable[[], object]], None],
    ) -> None:
        """Take over what was started.

        ``supervisor``: as the daemon's /proc has it. ``clear_away``: runs a function that may
        block, and keeps it in mind until it ends.
        """
        self.mark = mark
        self.supervisor = supervisor
        self.control, self.job, self.stdout, self.stderr = started.ends
        self._process = started.process
        self._pidfd = os.pidfd_open(supervisor)
        self._walls = walls
        self._group = group
        self._brought = brought
        self._clear_away = clear_away
        self._leftovers: tree.Leftovers | None = None
        self._scratch = Room(walls.disk_bytes)
        self._shared = Room(0)
        self._freezer = TreeFreezer(supervisor, started.process.pid)
        self._jobs = 0
        # Before the first job; a job that adds to them is the cell's last.
        self._oom_kills = self._refused = 0
        self._peak_is_shared = False
        self._before = _Counters()
        self._last = _Counters()

    # ---- per job ----

    def bring(self, file: Path) -> str:
        """Put the file into the cell's own folder, unless it is there."""
        return f"{BROUGHT}/{self._brought.name(file)}"

    def folder(self, folder: Path) -> str:
        """Return a folder of its own in scratch."""
        return f"{SCRATCH}/{folder.name}"

    def begin(self) -> None:
        """Begin anew with the peak; the counters go on from where the last job left them."""
        self._peak_is_shared = not self._group.gauges.reset_peak() and self._jobs > 0
        self._jobs += 1
        self._before = self._last

    def held_bytes(self, most: int) -> int:
        """Return what the group or else the tree holds."""
        held = self._group.gauges.value("memory_bytes")
        return tree_held_bytes(self.supervisor, most) if held is None else held

    def overrun(self) -> TaskEnd | None:
        """Return the verdict over the limit that the kernel, or a look at the scratch, has hit."""
        gauges = self._group.gauges
        if (gauges.value("oom_kills") or 0) > self._oom_kills:
            return self._out_of_memory()
        walls = self._walls
        if (gauges.value("processes_refused") or 0) > self._refused or self._is_crowded():
            text = f"the job wanted more than {walls.processes} processes and threads at once"
            return TaskEnd(JobState.LIMIT, Cause.PROCESSES, text)
        why = self._scratch.why_full()
        return TaskEnd(JobState.LIMIT, Cause.DISK, why) if why else None

    def _out_of_memory(self) -> TaskEnd:
        most = self._walls.memory_bytes
        if not most:
            text = "the machine ran out of memory, and the kernel ended a process of the job"
            return TaskEnd(JobState.LIMIT, Cause.MEMORY, text)
        text = f"the job and its processes wanted more than {most} bytes of memory"
        files = self._group.gauges.value("files_bytes") or 0
        if files > most // 10:
            text += f"; {files} bytes of it were files in its scratch, which is memory here"
        return TaskEnd(JobState.LIMIT, Cause.MEMORY, text)

    def _is_crowded(self) -> bool:
        """Say whether the job has as many processes as it may, where the kernel does not tell."""
        most = self._walls.processes
        if not most or self._group.gauges.value("processes") is not None:
            return False
        found = tree.descendants(self.supervisor)
        return len(found) >= most or sum(map(_threads, found)) >= most

    def metered(self) -> Metered:
        """Return what the group has counted since the job began."""
        counts = self._group.counts
        if not counts:
            return NOT_METERED
        # Kernels that count no disk traffic in version 1 show none: then the worker's word holds.
        before = self._before
        self._last = now = _Counters.of(self._group.gauges)
        peak = self._group.gauges.value("peak_bytes")
        return Metered(
            now.cpu_ms - before.cpu_ms if "cpuacct" in counts else None,
            peak,
            self._peak_is_shared and peak is not None,
            (now.read_bytes - before.read_bytes) or None,
            (now.written_bytes - before.written_bytes) or None,
        )

    def leftovers(self, interpreter: int) -> Callable[[], bool]:
        """Return what looks for processes, and for files in shared memory.

        ``interpreter`` is a pid inside; from here it is the supervisor's only child.
        """
        found = tree.children(self.supervisor)
        self._leftovers = leftovers = tree.Leftovers(self.supervisor, found[0] if found else 0)
        self._scratch.open(self.supervisor, SCRATCH)
        self._shared.open(self.supervisor, SHARED)
        gauges = self._group.gauges
        self._last = _Counters.of(gauges)
        self._oom_kills = gauges.value("oom_kills") or 0
        self._refused = gauges.value("processes_refused") or 0
        return lambda: leftovers.any() or self._shared.is_used()

    # ---- suspending ----

    async def freeze(self) -> None:
        """Freeze the group, or else stop the tree by SIGSTOP; OSError where some of it goes on."""
        if self._group.can_freeze:
            freezing = asyncio.get_running_loop().run_in_executor(None, self._group.freeze)
            try:
                await asyncio.shield(freezing)
            except (
                asyncio.CancelledError
            ):  # it is being ended; the thread may freeze it all the same
                freezing.add_done_callback(self._wake_after)
                raise
            return
        await self._freezer.freeze()

    async def thaw(self) -> None:
        """Let the group run, or the tree but for what the job had stopped itself."""
        if self._group.can_freeze:
            self._group.thaw()
            return
        await self._freezer.thaw()

    # ---- the end ----

    def wake(self) -> None:
        """Let a frozen supervisor hear; nothing inside can stop the first process by a signal."""
        with contextlib.suppress(OSError):
            self._group.thaw()

    def _wake_after(self, freezing: "asyncio.Future[None]") -> None:
        freezing.exception()  # whether it could be frozen or not
        self.wake()

    def has_exited(self) -> bool:
        """Say whether bubblewrap has ended: the last process inside has by then."""
        return self._process.poll() is not None

    async def end_all(self) -> tree.Receipt:
        """Kill the first process inside, and with it all others; then what a group still holds."""
        return await asyncio.to_thread(self._end_all)

    def _end_all(self) -> tree.Receipt:
        found = [pid for pid in tree.descendants(self.supervisor) if tree.is_alive(pid)]
        deadline = time.monotonic() + END_PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._group.kill()
            left = [pid for pid in found if tree.is_alive(pid)] if not self.has_exited() else []
            left += [pid for pid in self._group.processes() if tree.is_alive(pid)]
            if (not left and self.has_exited()) or time.monotonic() > deadline:
                break
            time.sleep(PAUSE_S)
        if not self.has_exited():
            self._process.kill()
        return tree.Receipt(max(0, len(found) - len(set(left))), len(set(left)))

    def clear_away(self) -> None:
        """Close what is open, and remove folder and group in the background."""
        os.close(self._pidfd)
        for room in (self._scratch, self._shared):
            room.close()
        if self._leftovers is not None:
            self._leftovers.close()
        self._clear_away(self._remove)

    def _remove(self) -> None:
        self._group.remove()
        self._brought.remove()


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


class _Counters(NamedTuple):
    """What a cell's group had counted at the end of a job."""

    cpu_ms: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    @classmethod
    def of(cls, gauges: ControlGroups) -> "_Counters":
        return cls(gauges.value("cpu_ms") or 0, *gauges.disk_traffic())
