"""`./dev`: what it asks of the parts, and what it hands on to the main job."""

import importlib.machinery
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOUND = {
    "docker": {"host": "unix:///engine.sock", "image": "python:x"},
    "mongodb": {"uri_file": "/uri"},
}


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module that prepares nothing."""
    path = str(Path(__file__).resolve().parents[1] / "dev")
    loader = importlib.machinery.SourceFileLoader("dev", path)
    spec = importlib.util.spec_from_loader("dev", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "prepare", lambda extras: None)
    return module


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], []),
        (["folder"], ["folder"]),
        (["--docker"], ["--docker-host", "unix:///engine.sock", "--image", "python:x"]),
        (["--mongodb", "folder"], ["folder", "--uri-file", "/uri"]),
    ],
)
def test_dev_hands_on_what_the_nodes_are_to_run_on(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str], options: list[str]
) -> None:
    became: list[list[str]] = []
    asked: list[list[str]] = []

    def parts(wanted: list[str]) -> dict[str, dict[str, str]]:
        asked.append(wanted)
        return {name: FOUND[name] for name in wanted}

    monkeypatch.setattr(dev, "parts", parts)
    monkeypatch.setattr(dev, "become_script", lambda script, given: became.append(given))
    dev.run(dev.parse(["run", *arguments])[0])
    assert became == [options]
    wanted = [name for name in FOUND if f"--{name}" in arguments]
    assert asked == ([wanted] if wanted else [])


def test_dev_says_what_to_do_when_a_part_is_missing(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {"parts": [{"part": "docker", "works": False, "todo": "type: this"}], "found": {}}

    def run(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(command, 1, json.dumps(report))

    monkeypatch.setattr(dev.subprocess, "run", run)
    with pytest.raises(SystemExit, match="needs the parts that are missing"):
        dev.parts(["docker"])
    assert "docker is missing: type: this" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["test", "bench", "parts"])
def test_dev_hands_on_arguments_that_are_not_its_own(dev: ModuleType, command: str) -> None:
    assert dev.parse([command, "--stop", "-x"])[1] == ["--stop", "-x"]
