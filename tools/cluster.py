"""Real node daemons on this machine, as separate processes, for the main job, figures and tests.

    with LocalCluster(folder) as cluster:
        one = cluster.start("compute", slots=1)
        store = cluster.start("data", host_label="a")
        ...Manager.connect(cluster.addresses, home=cluster.home)...
        one.kill()          # SIGKILL
        one.start()         # again, on the same state folder and port

Each daemon has its own state folder and a free port. All daemons are ended on leaving.
"""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from alpyne_proto.errors import AlpyneError

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_READY = re.compile(rb"^alpyne (compute|data) node ready (alpyne://\S+)\n$")


class DaemonFailed(AlpyneError):
    """A daemon did not start; the message holds the end of its log."""


@dataclass(slots=True)
class Daemon:
    """One node's process. ``address`` and ``pid`` are known once it has started."""

    name: str
    kind: str
    state: Path
    arguments: list[str]
    environment: Mapping[str, str]
    address: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return self.process.pid if self.process is not None and self.running else 0

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """All that it has logged, over all starts."""
        path = self._log_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _log_path(self) -> Path:
        return self.state.with_suffix(".log")

    def launch(self) -> None:
        """Start the process without waiting until it serves; ``wait_ready`` follows."""
        with open(self._log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "alpyne_grid.nodes.daemon", self.kind, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(self.environment),
                cwd=self.state.parent,
            )

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait for the line that says it serves. Raises DaemonFailed."""
        assert self.process is not None and self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        line = self.process.stdout.readline() if ready else b""
        match = _READY.match(line)
        if match is None:
            self.kill()
            raise DaemonFailed(
                f"node {self.name}: expected its ready line within {timeout_s:.0f} s, got "
                f"{line!r}; its log ends:\n{self.log[-2000:]}"
            )
        self.address = match[2].decode()

    def start(self) -> None:
        """Start the process, on the port that it had before, and wait until it serves."""
        if self.address:
            port = self.address.partition("#")[0].rpartition(":")[2]
            at = self.arguments.index("--port") + 1
            self.arguments[at] = port
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL the daemon alone; what it started must end by itself."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, wait, and return the exit code; SIGKILL after STOP_TIMEOUT_S."""
        if self.process is None:
            return 0
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._reaped()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(number)
        self._reaped()

    def _reaped(self) -> int:
        if self.process is None:
            return 0
        code = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


class LocalCluster:
    """Daemons below ``folder``, owned by an account below it too (``home``, an ALPYNE_HOME).

    ``make_account`` is called once with ``home`` and must leave ``account.pub`` there.
    """

    def __init__(self, folder: Path, make_account: Callable[[Path], object]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.daemons: list[Daemon] = []
        folder.mkdir(parents=True, exist_ok=True)
        make_account(self.home)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ALPYNE")}
        self.environment = {**kept, "ALPYNE_HOME": str(self.home)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def addresses(self) -> list[str]:
        """Addresses of all daemons, in the order in which they were added."""
        return [daemon.address for daemon in self.daemons]

    def add(self, kind: str, *options: str, name: str = "") -> Daemon:
        """Add a daemon of ``kind`` ("compute" or "data") with command line ``options``."""
        name = name or f"{kind}-{sum(d.kind == kind for d in self.daemons) + 1}"
        state = self.folder / name
        arguments = ["--state", str(state), "--port", "0", *options]
        if "--owner" not in options:
            arguments += ["--owner", str(self.home / "account.pub")]
        daemon = Daemon(name, kind, state, arguments, self.environment)
        self.daemons.append(daemon)
        return daemon

    def start(self, kind: str, *options: str, name: str = "") -> Daemon:
        """Add a daemon and start it."""
        daemon = self.add(kind, *options, name=name)
        daemon.start()
        return daemon

    def start_all(self, daemons: Iterable[Daemon]) -> None:
        """Start several at once; returns when all serve."""
        started = list(daemons)
        for daemon in started:
            daemon.launch()
        deadline = time.monotonic() + READY_TIMEOUT_S
        for daemon in started:
            daemon.wait_ready(max(0.1, deadline - time.monotonic()))

    def close(self) -> None:
        """End all daemons in order."""
        for daemon in self.daemons:
            if daemon.process is not None and daemon.running:
                daemon.process.terminate()
        for daemon in self.daemons:
            daemon.stop()
