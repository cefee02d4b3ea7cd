"""A node's state folder: its lock, its identity, its store id and its generation.

state/
  lock          held by the running daemon
  identity      the node's private keys (0600)
  store-id      16 random bytes in hexadecimal, made with the folder
  generation    how often a daemon has started on this folder
  node.db       accounts and the node's tables
"""

import os
from pathlib import Path

from alpyne_grid.nodes.errors import StateError

from alpyne_grid.durable import sync_folder, try_lock, write_durably
from alpyne_proto.keys import NodeIdentity


class StateFolder:
    """A node's folder, locked for one daemon.

    ``path`` is made with mode 0700 where it is missing. Raises StateError where it cannot be made,
    belongs to somebody else, or another daemon runs on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            missing = [each for each in (path, *path.parents) if not each.exists()]
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for made in missing:
                sync_folder(made.parent)  # else a power cut may take all that is acknowledged
        except OSError as error:
            raise StateError(
                f"state folder {path}: cannot be made ({error.strerror}); choose another by --state"
            ) from None
        self._refuse_foreign()
        self._lock: int | None = _lock(path / "lock")
        try:
            self.identity = self._load_identity()
            self.store_id = self._load_store_id()
            self.generation = self._next_generation()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def check(path: Path) -> None:
        """Raise StateError where another daemon runs on ``path``; changes nothing."""
        os.close(_lock(path / "lock"))

    @property
    def last_port(self) -> int:
        """The port that was listened on last; 0 where there is none that can be read."""
        path = self.path / "port"
        text = path.read_text(errors="replace").strip() if path.exists() else ""
        return int(text) if text.isdecimal() and len(text) <= 5 and int(text) < 1 << 16 else 0

    @last_port.setter
    def last_port(self, port: int) -> None:
        if port != self.last_port:
            write_durably(self.path / "port", f"{port}\n".encode())

    @property
    def database(self) -> Path:
        """The node's SQLite file."""
        return self.path / "node.db"

    def close(self) -> None:
        """Give the lock back; the folder stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _refuse_foreign(self) -> None:
        status = self.path.stat()
        if not hasattr(os, "getuid"):
            return
        if status.st_uid != os.getuid():
            raise StateError(
                f"state folder {self.path}: belongs to user {status.st_uid}, this daemon runs as "
                f"{os.getuid()}; start it as that user or choose another folder by --state"
            )
        if status.st_mode & 0o077:
            self.path.chmod(0o700)

    def _load_identity(self) -> NodeIdentity:
        path = self.path / "identity"
        if not path.exists():
            write_durably(path, NodeIdentity.create(os.urandom).to_text().encode())
        return NodeIdentity.from_text(path.read_text(errors="replace"), str(path))

    def _load_store_id(self) -> bytes:
        path = self.path / "store-id"
        if not path.exists():
            write_durably(path, os.urandom(16).hex().encode() + b"\n")
        text = path.read_text().strip()
        try:
            store_id = bytes.fromhex(text)
        except ValueError:
            store_id = b""
        if len(store_id) != 16:
            raise StateError(
                f"{path}: expected 32 hexadecimal digits, got {text[:40]!r}; "
                "restore the folder from a backup"
            )
        return store_id

    def _next_generation(self) -> int:
        path = self.path / "generation"
        text = path.read_text().strip() if path.exists() else "0"
        if not text.isdecimal() or len(text) > 18:
            raise StateError(
                f"{path}: expected a decimal number, got {text[:40]!r}; "
                "restore the folder from a backup"
            )
        generation = int(text) + 1
        write_durably(path, f"{generation}\n".encode())
        return generation


def _lock(path: Path) -> int:
    """Lock ``path`` for this process and return the descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if not try_lock(descriptor):
        os.close(descriptor)
        raise StateError(
            f"state folder {path.parent}: another daemon runs on it; stop that one, or choose "
            "another folder by --state"
        )
    return descriptor
