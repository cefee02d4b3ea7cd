"""Containers that the engine does not remove at once, and orders that wait for no slow one."""

import fcntl
import json
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.compute.backends.containers import launcher, verbs
from alpyne_grid.nodes.compute.backends.containers.containers import Container, Containers
from alpyne_grid.nodes.compute.backends.containers.engine import EngineFailed, EngineLost


class PlayedEngine:
    """An engine with one container, which it removes when it is no longer told to refuse."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.removed: list[str] = []

    def state(self, container: str) -> dict[str, Any]:
        return {}

    def wait(self, container: str, within_s: float) -> None:
        return

    def tagged(self, label: str) -> list[tuple[str, str]]:
        return [("id", "name")]

    def remove(self, container: str) -> None:
        if self.error is not None:
            raise self.error
        self.removed.append(container)


def played(folder: Path) -> tuple[PlayedEngine, Containers, Container]:
    """Return an engine and containers with cell 1 on it."""
    engine: Any = PlayedEngine()
    containers = Containers(engine, {"tag": "t", "cells": str(folder), "cells_most": 1})
    container = Container("name", id="id")
    containers._cells[1] = container
    return engine, containers, container


@pytest.fixture(params=[EngineFailed("busy"), EngineLost("slow")], ids=["failed", "lost"])
def refused(request: Any, tmp_path: Path) -> tuple[PlayedEngine, Containers]:
    """A cell that the engine refused to remove once."""
    engine, containers, _ = played(tmp_path)
    engine.error = request.param
    with pytest.raises(type(request.param)):
        containers.end(1)
    containers.sweep()  # in vain
    engine.error = None
    return engine, containers


@pytest.mark.parametrize("how", ["sweep", "reap", "close"])
def test_container_that_the_engine_refused_to_remove_is_removed_later(
    refused: tuple[PlayedEngine, Containers], how: str
) -> None:
    engine, containers = refused
    getattr(containers, how)()
    assert engine.removed == ["id"]


def test_container_that_waits_to_be_removed_keeps_no_other_out(
    refused: tuple[PlayedEngine, Containers],
) -> None:
    engine, containers = refused
    containers._take_in(1, Container("other"))  # a start is tried again under the same number
    containers.sweep()
    assert (engine.removed, list(containers._cells)) == (["id"], [1])


def test_sweep_leaves_containers_that_nobody_ended(tmp_path: Path) -> None:
    engine, containers, _ = played(tmp_path)
    containers.sweep()
    assert (engine.removed, containers.reap()) == ([], 0)


def test_container_is_ended_when_its_descriptor_is_a_high_one(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this machine allows no 2048 descriptors")
    _, containers, container = played(tmp_path)
    low = os.pidfd_open(os.getpid())
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        container.process = fcntl.fcntl(low, fcntl.F_DUPFD, 1500)
        assert containers.end(1) == {"alone": False, "memory": False}
    finally:
        os.close(low)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- orders ----


class SlowContainers:
    """Containers whose start takes until the test lets it end."""

    def __init__(self) -> None:
        self.started = threading.Event()

    def make(self, fields: Any) -> None:
        self.started.wait(30)
        raise EngineFailed("enough")

    def end(self, number: int) -> dict[str, bool]:
        return {"alone": False, "memory": False}

    def freeze(self, number: int) -> None:
        return

    thaw = freeze

    def close(self) -> None:
        return


@pytest.fixture
def busy() -> Iterator[socket.socket]:
    """The daemon's end of a launcher that starts as many containers as it can, and more."""
    end, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.settimeout(20)
    slow: Any = SlowContainers()
    served = launcher.Launcher(far)
    served._containers = slow
    thread = threading.Thread(target=served.serve)
    thread.start()
    fields = {"image": "i", "network": "", "memory": 0, "cpus": 1, "processes": 9, "disk": 1 << 20}
    for number in range(1, launcher.AT_ONCE + 3):
        order = {"id": number, "verb": "make", "cell": number, "mark": "ab.00.1.", **fields}
        end.send(json.dumps(order).encode())
    try:
        yield end
    finally:
        slow.started.set()
        end.close()
        thread.join(30)
        far.close()


@pytest.mark.parametrize("verb", ["end", "freeze", "thaw"])
def test_urgent_order_is_done_while_all_threads_start_containers(
    busy: socket.socket, verb: str
) -> None:
    busy.send(json.dumps({"id": 99, "verb": verb, "cell": 1}).encode())
    answer = json.loads(busy.recv(verbs.PACKET_MAX))
    assert (answer["id"], "value" in answer) == (99, True)
