"""Trees of processes on Linux: who descends from whom, and how a tree ends without escape.

Used by the supervisor on the tree below it, and by the daemon on trees that lost their supervisor.
Source: proc(5), signal(7).
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

SCAN_PAUSE_S = 0.001  # between scans; a stopped process needs one scheduler tick to show it
PAGE = os.sysconf("SC_PAGE_SIZE")
_SOME = 4096  # bytes, of a list of which only the first two matter
# Stopped, traced, zombie, dead; or deep in the kernel, for instance in vfork(2) until its stopped
# child goes on: the signal is taken before anything else can be done.
_QUIET = "TtZXxD"


class Receipt(NamedTuple):
    """What ending a tree came to."""

    ended: int  # processes that were ended
    left: int  # processes that were still there when patience ran out


def children(pid: int) -> list[int]:
    """Return the children of all threads of ``pid``, zombies too; empty where it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except ProcessLookupError:
        pass
    except FileNotFoundError:
        if os.path.exists(f"/proc/{pid}/task"):
            return _children_by_scan(pid)
    return found


def _children_by_scan(pid: int) -> list[int]:
    """Do the same where the kernel was built without ``children`` files."""
    return [other for other in pids() if parent(other) == pid]


def descendants(pid: int) -> list[int]:
    """Return all that descend from ``pid``, zombies too, parents before their children."""
    found: list[int] = []
    waiting = children(pid)
    seen = {pid}
    while waiting:
        one = waiting.pop(0)
        if one not in seen:
            seen.add(one)
            found.append(one)
            waiting += children(one)
    return found


def pids() -> list[int]:
    """Return all process ids that are visible here."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    """Return the fields of ``stat`` behind the name, which may itself hold spaces and brackets."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def parent(pid: int) -> int:
    """Return the parent's id; 0 where ``pid`` is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def in_session(session: int) -> list[int]:
    """Return all processes of a session, which setsid(2) began and all its children are born in."""
    return [pid for pid in pids() if _stat(pid)[3:4] == [str(session)]]


def state(pid: int) -> str:
    """Return the state letter of proc(5); X where ``pid`` is gone."""
    fields = _stat(pid)
    return fields[0] if fields else "X"


def is_alive(pid: int) -> bool:
    """Say whether ``pid`` can still run or be stopped; a zombie cannot."""
    return state(pid) not in "ZXx"


def resident_bytes(pid: int) -> int:
    """Return the resident set of one process; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def proportional_bytes(pid: int) -> int:
    """Return the proportional set: pages shared by n processes count 1/n; 0 where unknown."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def marked(name: str, prefix: str) -> list[int]:
    """Return all processes whose environment has a ``name`` that begins with ``prefix``.

    The environment is the one that the process was started with; a job cannot lose it but by an
    exec with another one. Processes of other users cannot be read and are not ours.
    """
    wanted = f"{name}={prefix}".encode()
    found = []
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue
        if any(variable.startswith(wanted) for variable in variables):
            found.append(pid)
    return found


def with_descendants(roots: Iterable[int]) -> list[int]:
    """Return ``roots`` and all that descend from them, each once."""
    found: dict[int, None] = {}
    for root in roots:
        found[root] = None
        found.update(dict.fromkeys(descendants(root)))
    return list(found)


def end_all(
    find: Callable[[], list[int]],
    *,
    reap: Callable[[], None] = lambda: None,
    patience_s: float = 2.0,
) -> Receipt:
    """End every process that ``find`` returns, those started meanwhile too, and wait for it.

    First all are stopped, until two scans agree and none of them can fork any more; then all are
    killed; ``reap`` collects the caller's own dead children. Killing one by one without stopping
    first would race with a process that forks faster than it is found.
    """
    begun = time.monotonic()
    deadline = begun + patience_s
    ended: set[int] = set()
    while True:
        stopped = _stop_until(find, begun + patience_s / 4)
        for pid in stopped:
            _send(pid, signal.SIGKILL)
        ended |= stopped
        reap()
        alive = [pid for pid in find() if is_alive(pid)]
        if not alive or time.monotonic() > deadline:
            reap()  # those that died since
            return Receipt(len(ended) - len(alive), len(alive))
        time.sleep(SCAN_PAUSE_S)


def stop_all(find: Callable[[], list[int]], patience_s: float, spared: Collection[int]) -> int:
    """Stop every process that ``find`` returns; return how many went on after ``patience_s``.

    Whole process groups are stopped: the kernel lets none of a group fork past such a signal, so
    that a chain of processes, each the child of one that has ended, is caught by it. ``spared``:
    processes outside of the tree that may share its groups; they go on.
    """

    def stop(pid: int) -> None:
        group = _stat(pid)[2:3]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group and int(group[0]) not in (0, os.getpgrp()):
                os.killpg(int(group[0]), signal.SIGSTOP)
        _send(pid, signal.SIGSTOP)
        continue_all(spared)

    _stop_until(find, time.monotonic() + patience_s, stop)
    return sum(state(pid) not in _QUIET for pid in find())


def continue_all(found: Iterable[int]) -> None:
    """Let stopped processes run again."""
    for pid in found:
        _send(pid, signal.SIGCONT)


def _stop(pid: int) -> None:
    _send(pid, signal.SIGSTOP)


def _stop_until(
    find: Callable[[], list[int]], deadline: float, stop: Callable[[int], None] = _stop
) -> set[int]:
    """Stop all that is found, until nothing new is or the deadline comes; return who was found."""
    stopped: set[int] = set()
    before: set[int] | None = None
    while True:
        found = {pid for pid in find() if is_alive(pid)}
        for pid in found - stopped:
            stop(pid)
        stopped |= found
        quiet = found == before and all(state(pid) in _QUIET for pid in found)
        if not found or quiet or time.monotonic() > deadline:
            return stopped
        if found == before:
            time.sleep(SCAN_PAUSE_S)
        before = found


def _send(pid: int, number: signal.Signals) -> None:
    # Gone already; or it changed its user, and then it counts as left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


class Leftovers:
    """Tells whether a worker's job left processes behind; made for the end of each job.

    ``children`` files are kept open: reading two of them costs less than a context switch.
    """

    def __init__(self, supervisor: int, worker: int) -> None:
        """``supervisor``: takes in the orphans; ``worker``: its one child that may stay."""
        self._supervisor = supervisor
        self._worker = worker
        self._files: list[int] = []
        try:
            for pid in (worker, supervisor):
                path = f"/proc/{pid}/task/{pid}/children"
                self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()  # the kernel has no such files, or the worker just died

    def any(self) -> bool:
        """Say whether a process other than the worker lives below the supervisor.

        The order matters: an orphan goes from the worker's list to the supervisor's. Children of
        other threads than its first the worker has reported itself (see CleanState.is_spent):
        looking at its threads from here takes as long as all the rest of a small job.
        """
        try:
            if self._files:
                below_worker = os.pread(self._files[0], _SOME, 0)
                below_supervisor = os.pread(self._files[1], _SOME, 0)
                if not below_worker and below_supervisor.split() == [b"%d" % self._worker]:
                    return False
        except OSError:
            return False  # the worker itself is gone, which is told otherwise
        found = descendants(self._supervisor)
        return any(pid != self._worker and is_alive(pid) for pid in found)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()
