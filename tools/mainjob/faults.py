"""The faults that the main job makes while it works: a compute node and a data node are killed.

Both die by SIGKILL, in the middle of work: the compute node while it runs a job, the data node
while it sends an object. Nothing is told to anybody; the manager has to notice.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from alpyne_grid.tools.cluster import Daemon
from alpyne_proto.errors import AlpyneError

POLL_S = 0.01
WAIT_S = 30.0


class FaultMissed(AlpyneError):
    """There was no moment at which the fault could be made."""


@dataclass(slots=True)
class Killing:
    """A thread that kills ``daemon`` as soon as ``is_time()`` says so; ``join`` waits for it."""

    daemon: Daemon
    is_time: Callable[[], bool]
    done: bool = False

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="killer", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the daemon is dead; FaultMissed where the moment has not come."""
        self._stop.set()
        self._thread.join(WAIT_S)
        if not self.done:
            raise FaultMissed(
                f"node {self.daemon.name}: it never ran a job while the main job watched; use a "
                "larger folder"
            )

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            if self.is_time():
                self.daemon.kill()
                self.done = True
                return
