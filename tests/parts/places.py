"""Where the parts of a checkout lie, and what `./dev parts` found out about them.

Everything is below the folder `.parts` of the checkout, which may be removed after `./dev parts
--stop`. Unix sockets lie elsewhere: their paths must not exceed 107 bytes (unix(7)), and a checkout
may lie deep.
"""

import contextlib
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = CHECKOUT / ".parts"
# Below the range from which systems take ports for connections that go out (ip_local_port_range).
PORTS = range(20_000, 32_000)


class PartFailed(Exception):
    """A part is not there or does not start; the text says what to do."""


def found() -> dict[str, dict[str, str]]:
    """Return what the last `./dev parts` said of each part; empty before the first."""
    try:
        content = json.loads((PARTS / "parts.json").read_text())
    except (OSError, ValueError):
        return {}
    return {name: dict(entries) for name, entries in content.items()}


def remember(parts: dict[str, dict[str, str]]) -> None:
    """Keep what later commands need to reach the parts."""
    write_whole(PARTS / "parts.json", json.dumps(parts, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file that only its owner reads, and that is never seen half written."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
    beside.replace(path)


def short_folder(folder: Path) -> Path:
    """Return a folder with a short path that belongs to ``folder``; only its owner enters it.

    Raises PartFailed where somebody else has made it.
    """
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
    # Other users may make names in /tmp before us; in /run only root may.
    base = Path("/run") if os.geteuid() == 0 and os.access("/run", os.W_OK) else Path("/tmp")
    made = base / f"alpyne-parts-{name}"
    with contextlib.suppress(FileExistsError):
        made.mkdir(mode=0o700)
    state = made.lstat()
    if not made.is_dir() or made.is_symlink() or state.st_uid != os.geteuid():
        raise PartFailed(f"{made}: expected a folder of your own, found another's; remove it")
    made.chmod(0o700)
    return made


def free_ports(count: int) -> list[int]:
    """Return TCP ports of loopback on which nobody listens now."""
    found_free: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found_free) < count:
            port = secrets.choice(PORTS)
            tried = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                tried.bind(("127.0.0.1", port))
                found_free.append(port)
    return found_free


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let a second `./dev parts` of the same checkout wait for the first."""
    import fcntl  # POSIX only, as the parts are

    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def ends(path: Path, size: int = 2000) -> str:
    """Return the end of a log, or "" if there is none."""
    try:
        return path.read_text(errors="replace")[-size:].strip()
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file of ours holds; empty if it is not there or damaged."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
