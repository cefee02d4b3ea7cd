"""Processes as the machine sees them from outside; a job whose processes do not want to die."""

import time
from collections.abc import Callable
from pathlib import Path


def marked(mark: str) -> list[int]:
    """Processes that carry a mark in the environment that they were started with."""
    return _processes("environ", f"ALPYNE_JOB_MARK={mark}".encode())


def named(token: str) -> list[int]:
    """Processes with a token on their command line."""
    return _processes("cmdline", token.encode())


def _processes(file: str, wanted: bytes) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            if wanted in (path / file).read_bytes() and not is_dead(int(path.name)):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def is_dead(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return True
    return state in b"ZX"


def wait_gone(find: Callable[[], list[int]], within_s: float) -> list[int]:
    """Wait until no process is found any more; return those that are left."""
    deadline = time.monotonic() + within_s
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def escape(token: str) -> None:
    """Leave processes that do not want to die: in other sessions, orphaned, without the mark."""
    import os
    import signal
    import time

    def deaf() -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    deaf()
    for clean in (False, True):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            deaf()
            environment = {} if clean else dict(os.environ)
            if os.fork() == 0:
                os.execve("/bin/sleep", ["sleep", token], environment)
            time.sleep(3600)
    os.wait()
    os.wait()
    while True:
        found = [p for p in os.listdir("/proc") if p.isdigit() and _is_sleep(p, token)]
        if len(found) == 2:
            break
    print(os.environ["ALPYNE_JOB_MARK"])
    time.sleep(3600)


def _is_sleep(pid: str, token: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return token.encode() in file.read()
    except OSError:
        return False
