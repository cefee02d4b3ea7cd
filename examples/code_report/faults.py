"""The faults that the main job makes while it works: a compute node and a data node are killed.

Both die by SIGKILL, in the middle of work: the compute node while it runs a job, the data node
while it sends an object. Nothing is told to anybody; the manager has to notice.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator

from alpyne_grid.manager import Container, JobObject, Manager
from alpyne_grid.tools.cluster import Daemon

from alpyne_proto.errors import AlpyneError

POLL_S = 0.01
WAIT_S = 30.0


class FaultMissed(AlpyneError):
    """There was no moment at which the fault could be made."""


class Killing:
    """A thread that kills ``daemon`` as soon as ``is_time()`` says so."""

    def __init__(self, daemon: Daemon, is_time: Callable[[], bool]) -> None:
        self.daemon = daemon
        self._is_time = is_time
        self._killed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="killer", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread; FaultMissed where the moment has not come."""
        self._stop.set()
        self._thread.join(WAIT_S)
        if not self._killed:
            raise FaultMissed(
                f"node {self.daemon.name}: it ran no job while the main job watched, and so could "
                "not be killed in the middle of one; use a larger folder"
            )

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            if self._is_time():
                self.daemon.kill()
                self._killed = True
                return


class OpenRead:
    """A read of an object that has begun and waits: its data node has more to send.

    The object must be larger than a stream's credit and what the sockets hold, so that the node
    cannot have sent all of it. ``key`` is the node's.
    """

    def __init__(self, grid: Manager, container: Container, item: JobObject) -> None:
        before = {node.key: node.received_bytes for node in grid.statistics().nodes}
        self._hash = hashlib.sha256()
        self._pieces: Iterator[bytes] = container.stream(item)
        self._hash.update(next(self._pieces))
        after = {node.key: node.received_bytes for node in grid.statistics().nodes}
        self.key = max(after, key=lambda key: after[key] - before.get(key, 0))

    def finish(self) -> bytes:
        """Read the rest, from whoever has it, and return the SHA-256 of all that was read."""
        for piece in self._pieces:
            self._hash.update(piece)
        return self._hash.digest()
