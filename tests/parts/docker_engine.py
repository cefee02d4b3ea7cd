"""A container engine of one's own: `dockerd` on a folder, which may be stopped and killed.

It leaves the machine's network as it is: no default bridge, no rules, no forwarding. So containers
have no network unless a test makes one.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from parts import image as images
from parts import processes
from parts.docker_api import DockerApi
from parts.places import PartFailed, ends, short_folder

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.02
_NO_DRIVER = re.compile("graphdriver|driver not supported|storage-driver", re.IGNORECASE)


class Engine:
    """An engine with its data below ``folder``; the socket stays the same over all starts."""

    image = images.PYTHON_IMAGE
    other_image = images.OTHER_IMAGE
    bare_image = images.BARE_IMAGE

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._short = short_folder(self.folder)
        self.socket = self._short / "docker.sock"
        self.api = DockerApi(self.socket)

    @property
    def host(self) -> str:
        """The address that clients take."""
        return f"unix://{self.socket}"

    @property
    def log(self) -> Path:
        """What the engine has said, over all starts."""
        return self.folder / "dockerd.log"

    @property
    def process(self) -> processes.Process | None:
        """The engine's process, if it runs."""
        return processes.recorded(self.folder / "dockerd.process")

    @property
    def driver(self) -> str:
        """The storage driver that works here; "" before the first start."""
        try:
            return (self.folder / "driver").read_text()
        except OSError:
            return ""

    def start(self) -> Self:
        """Start it if it does not run, and return when it answers. Raises PartFailed."""
        if self.process is not None and self.api.answers():
            return self
        if shutil.which("dockerd", path=_path()) is None:
            raise PartFailed("dockerd is not installed; run ./dev parts")
        if self.process is not None:  # it runs and does not answer
            self._end()
        self.folder.mkdir(parents=True, exist_ok=True)
        drivers = [self.driver] if self.driver else ["overlay2", "fuse-overlayfs", "vfs"]
        for driver in drivers:
            if self._start(driver):
                (self.folder / "driver").write_text(driver)
                return self
        raise PartFailed(
            f"dockerd does not start on {self.folder}; its log {self.log} ends:\n{ends(self.log)}"
        )

    def make_images(self) -> list[str]:
        """Make the images that are missing or old; return their names. Raises PartFailed."""
        entries = images.of_python()
        made = []
        for name, files, which in (
            (self.image, entries, "python"),
            (self.other_image, entries, "other"),
            (self.bare_image, images.without_python(), "bare"),
        ):
            if self.has_image(name, wanted := images.identity(files)):
                continue
            made.append(name)
            if which == "other":
                self._derive(name, which, wanted)
                continue
            with tempfile.TemporaryFile(dir=self.folder) as archive:
                images.write(files, which, archive)
                archive.seek(0)
                changes = [*images.CHANGES, f"LABEL {images.LABEL}={wanted}"]
                repository, tag = name.split(":")
                self.api.load(archive, repository, tag, changes)
        return made

    def has_image(self, name: str, identity: str = "") -> bool:
        """Whether the engine holds an image of ours, and the one of that identity."""
        found = self.api.get(f"/images/{name}/json")
        labels = ((found or {}).get("Config") or {}).get("Labels") or {}
        return images.LABEL in labels and identity in ("", labels[images.LABEL])

    def stop(self) -> None:
        """End it as a system's shutdown does; its containers end with it."""
        if self.process is None and self._left():
            with contextlib.suppress(PartFailed):  # it was killed: it ends its containers itself
                self.start()
        self._end()

    def kill(self) -> None:
        """SIGKILL the engine alone; its containers go on without it."""
        if (process := self.process) is not None:
            process.end(signal.SIGKILL)
        self._forget_containerd()

    def clear(self) -> None:
        """Remove all containers and the networks that somebody made; images stay."""
        for container in self.api.get("/containers/json", all="true") or ():
            with contextlib.suppress(PartFailed):  # it may end by itself at this moment
                self.api.delete(f"/containers/{container['Id']}", force="true", v="true")
        self.api.post("/networks/prune")

    def remove(self) -> None:
        """End it and remove all that it had."""
        if self.process is not None and self.api.answers():
            with contextlib.suppress(PartFailed):
                self.clear()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, driver: str) -> bool:
        """Start it with a storage driver; False where the folder's file system has not got it."""
        for stale in (self.folder / "dockerd.pid", self.socket):
            stale.unlink(missing_ok=True)  # dockerd takes any process of that number for itself
        self._forget_containerd()
        self._short.mkdir(mode=0o700, exist_ok=True)
        # Settings of the machine's own engine are not for this one.
        (self.folder / "daemon.json").write_text("{}\n")
        said = self.log.stat().st_size if self.log.exists() else 0
        process = processes.start(
            self._command(driver),
            self.folder / "dockerd.process",
            self.log,
            {**os.environ, "PATH": _path()},
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.api.answers():
            if not process.runs or time.monotonic() > deadline:
                process.end(signal.SIGKILL)
                with open(self.log, errors="replace") as log:
                    log.seek(said)
                    if _NO_DRIVER.search(log.read()):
                        return False
                raise PartFailed(
                    f"dockerd does not start; its log {self.log} ends:\n{ends(self.log)}"
                )
            time.sleep(POLL_S)
        return True

    def _command(self, driver: str) -> list[str | Path]:
        name = self._short.name
        return [
            "dockerd",
            *("--data-root", self.folder / "root"),
            *("--exec-root", self._short / "exec"),
            *("--pidfile", self.folder / "dockerd.pid"),
            *("--config-file", self.folder / "daemon.json"),
            *("--host", self.host),
            *("--storage-driver", driver),
            # Where containerd is the machine's, its other users are left alone.
            *("--containerd-namespace", name, "--containerd-plugins-namespace", f"{name}-plugins"),
            *("--bridge", "none", "--iptables=false", "--ip-forward=false"),
            *("--userland-proxy=false", "--shutdown-timeout", "2", "--log-level", "warn"),
        ]

    def _derive(self, name: str, which: str, identity: str) -> None:
        """Make the other image of Python: one file differs, everything else is shared."""
        made = self.api.post("/containers/create", {"Image": self.image, "Cmd": ["true"]})
        try:
            with tempfile.TemporaryFile(dir=self.folder) as archive:
                images.write({}, which, archive)
                archive.seek(0)
                self.api.put(f"/containers/{made['Id']}/archive", archive.read(), path="/")
            repository, tag = name.split(":")
            self.api.post(
                "/commit",
                {"Labels": {images.LABEL: identity}},
                container=made["Id"],
                repo=repository,
                tag=tag,
            )
        finally:
            self.api.delete(f"/containers/{made['Id']}", force="true")

    def _end(self) -> None:
        if (process := self.process) is not None and not process.end(timeout_s=STOP_TIMEOUT_S):
            process.end(signal.SIGKILL)
        for left in self._left():
            left.end(signal.SIGKILL)
        for place in _mounted_below(self.folder, self._short):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
        shutil.rmtree(self._short, ignore_errors=True)

    def _forget_containerd(self) -> None:
        """End the containerd of an engine that has died, and forget its number.

        It dies a moment after the engine; one started in that moment takes it for alive, for ever.
        """
        for process in self._left():
            if process.command.endswith("containerd"):
                process.end(signal.SIGKILL)
        (self._short / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def _left(self) -> list[processes.Process]:
        """Return what the engine has started and, killed, has left."""
        return processes.named(self._short.name, "dockerd", "containerd")


class SharedEngine(Engine):
    """An engine that was here already, for users who may not start one; it is never stopped."""

    def __init__(self, socket: Path, folder: Path) -> None:
        self.folder = folder
        self.socket = socket
        self.api = DockerApi(socket)

    def start(self) -> Self:
        """Return at once: it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def stop(self) -> None:
        """Do nothing: others use it."""

    kill = clear = remove = stop


def _path() -> str:
    """Return where dockerd and what it starts lie: system folders are not on all users' path."""
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


def _mounted_below(*folders: Path) -> list[str]:
    """Return where something is mounted below the folders, the deepest first (proc(5))."""
    places = []
    with open("/proc/self/mountinfo", errors="replace") as table:
        for line in table:
            place = line.split()[4].replace("\\040", " ")
            if any(Path(place).is_relative_to(folder) for folder in folders):
                places.append(place)
    return sorted(places, key=len, reverse=True)
