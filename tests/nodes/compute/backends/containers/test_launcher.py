"""The launcher's process, spoken to as a daemon does: also as one that was taken over."""

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from alpyne_grid.nodes.compute.backends.containers import recipe
from alpyne_grid.nodes.compute.backends.containers.runtime import install_runtime
from alpyne_grid.nodes.compute.backends.containers.verbs import PACKET_MAX
from parts.docker_engine import Engine

MODULE = "alpyne_grid.nodes.compute.backends.containers.launcher"


class Spoken:
    """A launcher and the daemon's end to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.end, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(60)
        with far:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(far.fileno())], pass_fds=(far.fileno(),)
            )
        self.tag = os.urandom(8).hex()
        self._number = 0

    def send(self, packet: bytes) -> tuple[dict[str, Any], list[int]]:
        """Send a packet and return the answer with its descriptors; events are left out."""
        self.end.send(packet)
        while True:
            data, descriptors, _, _ = socket.recv_fds(self.end, PACKET_MAX, 8)
            if not data:
                raise EOFError
            answer = json.loads(data)
            if "event" not in answer:
                return answer, list(descriptors)

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Give an order and return the answer; descriptors are closed."""
        self._number += 1
        order = {"id": self._number, "verb": verb, **fields}
        answer, descriptors = self.send(json.dumps(order).encode())
        for descriptor in descriptors:
            os.close(descriptor)
        return answer

    def open(self, host: str, image: str = "alpyne-nowhere:1", **changes: Any) -> dict[str, Any]:
        """Give the first order."""
        fields = {
            "host": host,
            "tag": self.tag,
            "runtime": str(self.folder / "runtime"),
            "cells": str(self.folder / "cells"),
            "images": [image],
            "networks": [],
            "cells_most": 2,
            "memory_most": 1 << 30,
            "cpus_most": 2,
            "processes_most": 64,
            **changes,
        }
        return self.ask("open", **fields)

    def make(self, **changes: Any) -> dict[str, Any]:
        """Order a cell."""
        fields = {
            "cell": 1,
            "mark": f"{self.tag}.00.1.",
            "image": "alpyne-nowhere:1",
            "network": "",
            "memory": 0,
            "cpus": 1,
            "processes": 64,
            "disk": 1 << 20,
            **changes,
        }
        return self.ask("make", **fields)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Spoken]:
    (tmp_path / "cells").mkdir()
    spoken = Spoken(tmp_path)
    yield spoken
    spoken.end.close()
    assert spoken.process.wait(30) == 0


def test_launcher_refuses_all_verbs_before_open(launcher: Spoken) -> None:
    for verb, fields in (("look", {}), ("reap", {}), ("end", {"cell": 1})):
        assert launcher.ask(verb, **fields) == {
            "id": launcher._number,
            "kind": "refused",
            "error": "expected open first",
        }


@pytest.mark.parametrize("packet", [b"{", b'{"id": 1, "verb": "exec"}', b"x" * (PACKET_MAX + 50)])
def test_launcher_refuses_what_is_no_verb_and_goes_on(launcher: Spoken, packet: bytes) -> None:
    answer, _ = launcher.send(packet)
    assert answer["kind"] == "refused"
    assert launcher.ask("look")["error"] == "expected open first"


def test_launcher_says_what_to_do_when_there_is_no_engine(launcher: Spoken) -> None:
    answer = launcher.open("unix:///nowhere/docker.sock")
    assert answer["kind"] == "engine"
    assert "systemctl start docker" in answer["error"]
    assert "--docker-host" in answer["error"]


def test_launcher_says_what_to_do_when_nobody_answers_at_the_socket(
    launcher: Spoken, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
    answer = launcher.open(f"unix://{path}")
    assert answer["kind"] == "engine"
    assert "nobody answers" in answer["error"]


def test_launcher_ends_when_the_daemons_end_closes(launcher: Spoken) -> None:
    launcher.end.close()
    assert launcher.process.wait(10) == 0


def test_launcher_does_not_end_by_signals_that_are_for_the_daemon(launcher: Spoken) -> None:
    launcher.ask("look")  # it is there
    launcher.process.terminate()
    launcher.process.send_signal(2)
    assert launcher.ask("look")["error"] == "expected open first"


class TestOnEngine:
    @pytest.fixture(autouse=True)
    def _opened(self, engine: Engine, launcher: Spoken, tmp_path: Path) -> None:
        install_runtime(tmp_path / "runtime")
        self.engine, self.launcher = engine, launcher
        assert "value" in launcher.open(engine.host, engine.image)

    def containers(self) -> list[Any]:
        filters = json.dumps({"label": [f"{recipe.LABEL}={self.launcher.tag}"]})
        return list(self.engine.api.get("/containers/json", all="true", filters=filters))

    def test_launcher_takes_open_once(self) -> None:
        answer = self.launcher.open(self.engine.host, self.engine.other_image)
        assert (answer["kind"], answer["error"]) == ("refused", "open comes once")

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"image": "alpyne-other:1"}, "image alpyne-other:1 is not on this node's list"),
            ({"network": "bridge"}, "network bridge is not on this node's list"),
            ({"memory": 1 << 31}, "memory: at most"),
            ({"disk": 1 << 31}, "disk: at most"),
            ({"cpus": 3}, "cpus: at most"),
            ({"processes": 65}, "processes: at most"),
        ],
    )
    def test_launcher_refuses_what_open_has_not_allowed(
        self, changes: dict[str, Any], text: str
    ) -> None:
        answer = self.launcher.make(**{"image": self.engine.image, **changes})
        assert answer["kind"] == "refused"
        assert text in answer["error"]
        assert self.containers() == []

    def test_launcher_makes_no_more_containers_than_open_has_allowed(self) -> None:
        for cell in (1, 2):
            assert "value" in self.launcher.make(cell=cell, image=self.engine.image)
        assert self.launcher.make(cell=2, image=self.engine.image)["kind"] == "refused"
        assert self.launcher.make(cell=3, image=self.engine.image)["kind"] == "refused"

    def test_launcher_hands_out_what_leads_to_the_worker(self) -> None:
        fields = {
            "id": 7,
            "verb": "make",
            "cell": 1,
            "mark": f"{self.launcher.tag}.00.1.",
            "image": self.engine.image,
            "network": "",
            "memory": 0,
            "cpus": 1,
            "processes": 64,
            "disk": 1 << 20,
        }
        answer, descriptors = self.launcher.send(json.dumps(fields).encode())
        assert len(descriptors) == 6
        assert "python" in psutil.Process(answer["value"]["pid"]).name() or "alpyne" in (
            psutil.Process(answer["value"]["pid"]).name()
        )
        assert select.select([descriptors[1]], [], [], 20)[0]  # the worker says that it is ready
        assert list((self.launcher.folder / "cells" / "1").iterdir()) == []
        for descriptor in descriptors:
            os.close(descriptor)

    def test_launcher_removes_all_containers_when_the_daemons_end_closes(self) -> None:
        assert "value" in self.launcher.make(image=self.engine.image)
        assert len(self.containers()) == 1
        self.launcher.end.close()
        assert self.launcher.process.wait(30) == 0
        assert self.containers() == []

    def test_launcher_ends_a_frozen_cell(self) -> None:
        assert "value" in self.launcher.make(image=self.engine.image)
        assert "value" in self.launcher.ask("freeze", cell=1)
        assert "value" in self.launcher.ask("end", cell=1)
        assert self.containers() == []

    def test_launcher_says_so_when_a_cell_is_not_there(self) -> None:
        assert self.launcher.ask("freeze", cell=9)["kind"] == "failed"
        assert self.launcher.ask("thaw", cell=9)["kind"] == "failed"
        assert "value" in self.launcher.ask("end", cell=9)
