"""Processes that outlive the command which started them: known again by number and start.

A process id alone may belong to somebody else by the time that it is used, after a restart of the
machine at the latest. So the start of the process and of the system are kept with it (proc(5)).
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parts.places import read_json, write_whole

POLL_S = 0.02
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Process:
    """A process. ``began``: when, as the kernel says it, and in which life of the system."""

    pid: int
    began: str

    @property
    def runs(self) -> bool:
        """Whether it lives; a child of ours that has ended is collected."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return _began(self.pid) == self.began

    @property
    def command(self) -> str:
        """The program that it runs, "" if it is gone."""
        with contextlib.suppress(OSError):
            return os.fsdecode(Path(f"/proc/{self.pid}/cmdline").read_bytes()).split("\0")[0]
        return ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal, to this process and to no other that has its number."""
        try:
            held = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.runs:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(held, number)
        finally:
            os.close(held)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 10.0) -> bool:
        """Send a signal and wait until it is gone; return whether it is."""
        self.send(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is gone; return whether it is."""
        deadline = time.monotonic() + timeout_s
        while self.runs:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


def start(
    command: Sequence[str | Path], record: Path, log: Path, environment: Mapping[str, str]
) -> Process:
    """Start a process that outlives this one, and keep in ``record`` which it is."""
    with open(log, "ab") as written:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    # It is ended by Process.end, here or in a later command: Popen need not watch over it.
    child.returncode = 0
    process = Process(child.pid, _began(child.pid))
    write_whole(record, json.dumps({"pid": process.pid, "began": process.began}))
    return process


def recorded(record: Path) -> Process | None:
    """Return the process that ``start`` kept in ``record``, if it still runs."""
    content = read_json(record)
    if not content:
        return None
    process = Process(int(content["pid"]), str(content["began"]))
    return process if process.runs else None


def named(text: str, *programs: str) -> list[Process]:
    """Return the processes of these programs with ``text`` in their command line, and below them.

    A program is known by the beginning of its file's name. What they started counts too, and what
    that started.
    """
    parents: dict[int, list[int]] = {}
    wanted: list[int] = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            parents.setdefault(int(_stat(pid)[1]), []).append(pid)
            program, *more = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
            if Path(program).name.startswith(programs) and text in " ".join(more):
                wanted.append(pid)
    reached: dict[int, Process] = {}
    while wanted:
        pid = wanted.pop()
        if pid not in reached and pid != os.getpid() and (began := _began(pid)):
            reached[pid] = Process(pid, began)
            wanted += parents.get(pid, [])
    return list(reached.values())


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()


def _began(pid: int) -> str:
    """Return the start of a process; "" if it is gone, or ended and not collected."""
    try:
        fields = _stat(pid)
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{BOOT_ID.read_text().strip()} {fields[19]}"
