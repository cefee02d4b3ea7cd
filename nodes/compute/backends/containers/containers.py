"""The containers of one node: what the launcher does for each verb.

    make --> running <--freeze, thaw--> frozen        any --end--> gone

Methods are called from several threads at once, those about one cell one after the other.
"""

import contextlib
import os
import secrets
import select
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpyne_grid.nodes.compute.backends.containers import recipe
from alpyne_grid.nodes.compute.backends.containers.engine import Engine, EngineFailed, EngineLost
from alpyne_grid.nodes.compute.backends.containers.rendezvous import Met, Refused, Rendezvous

START_S = 30.0  # for a container to start and its worker to come
LOOK_S = 0.25  # between looks whether it ended instead
END_S = 5.0  # for the engine to notice that a container has ended
AT_ONCE = 8  # containers that are removed at the same time
PYTHONS = ("python3", "python")  # names of the interpreter in images, tried in this order
_READY = "alpyne "  # how a probe's line begins


class NotAllowed(Exception):
    """The daemon asks for what ``open`` has not allowed."""


@dataclass(slots=True)
class Container:
    """One cell's container."""

    name: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    id: str = ""  # the engine's; empty: not made yet
    process: int = -1  # pidfd of its first process


class Containers:
    """Makes, freezes and ends the containers of one tag."""

    def __init__(self, engine: Engine, opened: Mapping[str, Any]) -> None:
        """``opened``: the fields of the verb ``open``. The engine is connected."""
        self._engine = engine
        self._opened = opened
        self.label = f"{recipe.LABEL}={opened['tag']}"  # of all its containers
        self._cells: dict[int, Container] = {}
        self._pythons: dict[str, str] = {}  # by image: the name under which it runs
        self._users = recipe.USERS, recipe.USERS_MOST
        self._lock = threading.Lock()
        self._closing = False
        self._any_left = threading.Event()  # that the engine has not removed

    # ---- verbs ----

    def look(self) -> dict[str, Any]:
        """Return what engine, images and networks there are; EngineFailed where one is missing."""
        info = self._engine.info()
        if info.get("OSType") != "linux":
            raise EngineFailed(f"expected containers of Linux, got {info.get('OSType')!r:.40}")
        for name in self._opened["networks"]:
            if not self._engine.has_network(name):
                raise EngineFailed(
                    f"there is no network {name}; make it by: docker network create {name}"
                )
        security = [str(one) for one in info.get("SecurityOptions") or ()]
        if any("userns" in one or "rootless" in one for one in security):
            self._users = recipe.MAPPED_USERS, recipe.MAPPED_USERS_MOST
        images = self._opened["images"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            pythons = list(pool.map(self._probe, images))
        return {
            "engine": str(info.get("ServerVersion"))[:40],
            "cgroup": str(info.get("CgroupVersion", "1"))[:4],
            "seccomp": any("seccomp" in one for one in security),
            "memory": bool(info.get("MemoryLimit")),
            "cpu": bool(info.get("CpuCfsQuota")),
            "processes": bool(info.get("PidsLimit")),
            "pythons": pythons,
        }

    def reap(self) -> int:
        """Remove all containers of the tag but those of living cells; return how many."""
        found = self._engine.tagged(self.label)
        with self._lock:  # a container that is being made has a name, and no id yet
            living = {cell.name for cell in self._cells.values()}
        left = [one for one, name in found if name not in living]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._engine.remove, left))
        return len(left)

    def make(self, fields: Mapping[str, Any]) -> Met:
        """Start a container, and meet its worker."""
        self._check(fields)
        number = fields["cell"]
        container = Container(_name(fields["mark"].strip(".")))
        with container.lock:  # before others can see it
            self._take_in(number, container)
            try:
                return self._start(container, fields)
            except BaseException:
                with contextlib.suppress(EngineLost, EngineFailed):  # removed when that is back
                    self.end(number)
                raise

    def freeze(self, number: int) -> None:
        """Freeze a cell; EngineFailed where it is gone."""
        container = self._of(number)
        with container.lock:
            self._engine.pause(container.id)

    def thaw(self, number: int) -> None:
        """Let a cell run again."""
        container = self._of(number)
        with container.lock:
            self._engine.unpause(container.id)

    def end(self, number: int) -> dict[str, bool]:
        """End and remove a cell, and say how it had ended before: alone, or for want of memory.

        EngineLost or EngineFailed where the engine does not remove it: ``sweep`` tries again.
        """
        with self._lock:
            container = self._cells.get(number)
        if container is None:
            return {"alone": False, "memory": False}
        with container.lock:
            try:
                return self._remove(container)
            except (EngineLost, EngineFailed):
                self._any_left.set()
                raise
            finally:
                with self._lock:
                    self._cells.pop(number, None)
                if container.process >= 0:
                    os.close(container.process)
                    container.process = -1
                shutil.rmtree(self._folder(number), ignore_errors=True)

    def sweep(self) -> None:
        """Try again to remove what the engine did not remove when it was asked."""
        if not self._any_left.is_set():
            return
        self._any_left.clear()  # before it looks: what is left meanwhile is for the next time
        try:
            self.reap()
        except (EngineLost, EngineFailed):
            self._any_left.set()

    def close(self) -> None:
        """Make no more cells, and end all there are."""
        with self._lock:
            self._closing = True
            numbers = list(self._cells)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._end_quietly, numbers))
        self.sweep()

    # ---- how ----

    def _take_in(self, number: int, container: Container) -> None:
        with self._lock:
            if self._closing or number in self._cells:
                raise NotAllowed(f"cell {number} exists already, or the node is ending")
            if len(self._cells) >= self._opened["cells_most"]:
                raise NotAllowed(f"at most {self._opened['cells_most']} containers at once")
            self._cells[number] = container

    def _probe(self, image: str) -> str:
        """Return the Python version (major.minor) of an image; EngineFailed where none will do."""
        config = self._engine.image(image)
        if config.get("Volumes"):
            raise EngineFailed(
                f"the image {image} declares volumes ({', '.join(config['Volumes'])}), which no "
                "limit of disk would hold; take one without VOLUME"
            )
        said = ""
        for python in PYTHONS:
            said = self._ask_image(image, python)
            if said.startswith(_READY):
                version, _, problem = said.removeprefix(_READY).partition(" ")
                if problem:
                    raise EngineFailed(f"the image {image} has Python {version}: {problem}")
                self._pythons[image] = python
                return version
        raise EngineFailed(
            f"the image {image} has no Python that runs ({said[-200:]}); take one that has "
            "python3 on its PATH, for instance python:3.12-slim"
        )

    def _ask_image(self, image: str, python: str) -> str:
        body = recipe.probe(self._opened, image, python, self._user())
        container = self._engine.create(body, _name("probe"))
        try:
            self._engine.start(container)
            self._engine.wait(container, START_S)
            lines = self._engine.log(container).splitlines()
            # A stderr line may stand behind it.
            ready = [line for line in lines if line.startswith(_READY)]
            return (ready or lines or ["it says nothing"])[-1]
        except EngineFailed as error:
            return str(error)
        finally:
            self._engine.remove(container)

    def _check(self, fields: Mapping[str, Any]) -> None:
        opened = self._opened
        if fields["image"] not in opened["images"]:
            raise NotAllowed(f"the image {fields['image']} is not on this node's list")
        if fields["network"] and fields["network"] not in opened["networks"]:
            raise NotAllowed(f"the network {fields['network']} is not on this node's list")
        for name, amount in (("memory", "memory"), ("disk", "memory"), ("cpus", "cpus")):
            if fields[name] > opened[f"{amount}_most"]:
                raise NotAllowed(f"{name}: at most {opened[f'{amount}_most']}, got {fields[name]}")
        if fields["processes"] > opened["processes_most"]:
            raise NotAllowed(f"processes: at most {opened['processes_most']}")

    def _start(self, container: Container, fields: Mapping[str, Any]) -> Met:
        folder = self._folder(fields["cell"])
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)  # the worker is another user; the folders above keep others out
        rendezvous = Rendezvous(folder)
        try:
            python = self._pythons.get(fields["image"], PYTHONS[0])
            body = recipe.container(self._opened, fields, python, self._user())
            container.id = self._engine.create(body, container.name)
            self._engine.start(container.id)
            met = self._meet(rendezvous, container)
        finally:
            rendezvous.close()
        try:
            container.process = os.pidfd_open(met.pid)
        except OSError:
            for descriptor in met.descriptors:
                os.close(descriptor)
            raise EngineFailed("its worker ended at once") from None
        return met

    def _meet(self, rendezvous: Rendezvous, container: Container) -> Met:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and not self._closing:
            try:
                met = rendezvous.meet(LOOK_S)
            except (OSError, Refused) as error:
                raise EngineFailed(f"its worker did not get its descriptors: {error}") from None
            if met is not None:
                return met
            state = self._engine.state(container.id)
            if not state.get("Running"):
                raise EngineFailed(self._why_ended(container, state))
        raise EngineFailed(f"its worker did not come within {START_S:.0f} s")

    def _why_ended(self, container: Container, state: Mapping[str, Any]) -> str:
        if state.get("OOMKilled"):
            return "its memory limit is too small for a Python interpreter; allow more"
        lines = self._engine.log(container.id).splitlines()
        return f"its worker ended with {state.get('ExitCode')}: {(lines or ['no word'])[-1]:.300}"

    def _remove(self, container: Container) -> dict[str, bool]:
        if not container.id:
            return {"alone": False, "memory": False}
        alone = container.process >= 0 and _has_ended(container.process)
        if alone:  # the engine may not know yet
            with contextlib.suppress(EngineLost):
                self._engine.wait(container.id, END_S)
        state = self._engine.state(container.id)
        self._engine.remove(container.id)
        return {"alone": alone, "memory": bool(state.get("OOMKilled"))}

    def _end_quietly(self, number: int) -> None:
        with contextlib.suppress(EngineLost, EngineFailed):  # the next sweep, or start, does it
            self.end(number)

    def _of(self, number: int) -> Container:
        with self._lock:
            container = self._cells.get(number)
        if container is None:
            raise EngineFailed("its container is gone")
        return container

    def _user(self) -> int:
        """Return a user that no other container has, but for a rare chance."""
        first, most = self._users
        return first + secrets.randbelow(most)

    def _folder(self, number: int) -> Path:
        return Path(self._opened["cells"]) / str(number)


def _has_ended(process: int) -> bool:
    """Say whether the process of a pidfd has; not by select(), which takes none above 1023."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


def _name(purpose: str) -> str:
    """Return a name that no container has, not even one that the engine could not remove yet."""
    return f"alpyne-{purpose}-{os.urandom(4).hex()}"
