"""What a container is made of: each promise of isolation, in the engine's own words."""

from typing import Any

import pytest
from alpyne_grid.nodes.compute.backends.containers import recipe

OPENED = {"tag": "0123456789abcdef", "runtime": "/state/runtime", "cells": "/state/cells"}
USER = 1_900_000_007
MAKE = {
    "cell": 3,
    "mark": "0123456789abcdef.00ff.3.",
    "image": "python:3.12-slim",
    "network": "",
    "memory": 1 << 28,
    "cpus": 2,
    "processes": 64,
    "disk": 1 << 24,
}


def made(**changes: Any) -> dict[str, Any]:
    return recipe.container(OPENED, {**MAKE, **changes}, "python3", USER)


def probe() -> dict[str, Any]:
    return recipe.probe(OPENED, "python:3.12-slim", "python3", USER)


@pytest.mark.parametrize("body", [made(), probe()], ids=["worker", "probe"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ReadonlyRootfs", True),
        ("CapDrop", ["ALL"]),
        ("Privileged", False),
        ("SecurityOpt", ["no-new-privileges"]),
        ("NetworkMode", "none"),
        ("IpcMode", "none"),
        ("Init", False),
        ("RestartPolicy", {"Name": "no"}),
    ],
)
def test_container_is_isolated(body: dict[str, Any], name: str, value: Any) -> None:
    assert body["HostConfig"][name] == value


@pytest.mark.parametrize("body", [made(), probe()], ids=["worker", "probe"])
def test_container_runs_as_a_user_of_its_own_without_an_images_health_check(
    body: dict[str, Any],
) -> None:
    assert body["User"] == "1900000007:65534"
    assert body["Healthcheck"] == {"Test": ["NONE"]}
    assert body["Labels"] == {recipe.LABEL: OPENED["tag"]}


def test_container_gets_no_name_of_the_daemons_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert made()["Env"] == [
        "LANG=C.UTF-8",
        "PYTHONUNBUFFERED=1",
        "ALPYNE_JOB_MARK=0123456789abcdef.00ff.3.",
    ]


def test_container_mounts_the_runtime_and_its_own_folder_and_nothing_else() -> None:
    mounts = made()["HostConfig"]["Mounts"]
    assert [(one["Source"], one["Target"]) for one in mounts] == [
        ("/state/runtime", "/alpyne"),
        ("/state/cells/3", "/run/alpyne"),
    ]
    assert all(one["ReadOnly"] is True and one["Type"] == "bind" for one in mounts)
    assert "Binds" not in made()["HostConfig"]


def test_memory_is_limited_together_with_swap() -> None:
    host = made(memory=1 << 28)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (1 << 28, 1 << 28)


def test_memory_is_not_limited_when_nobody_asked() -> None:
    host = made(memory=0)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (0, 0)


def test_memory_is_enough_for_an_interpreter_when_less_was_asked() -> None:
    assert made(memory=1)["HostConfig"]["Memory"] == recipe.MEMORY_LEAST


def test_processor_time_is_a_quota_of_a_period() -> None:
    host = made(cpus=2)["HostConfig"]
    assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, 200_000)
    assert "NanoCpus" not in host


def test_processes_are_limited_and_the_supervisor_is_not_counted() -> None:
    assert made(processes=64)["HostConfig"]["PidsLimit"] == 65


def test_scratch_is_limited_by_bytes_and_by_files() -> None:
    tmpfs = made(disk=1 << 24)["HostConfig"]["Tmpfs"]
    assert set(tmpfs) == {"/tmp", "/dev/shm"}
    for options in tmpfs.values():
        assert "size=16777216" in options.split(",")
        assert "nr_inodes=4096" in options.split(",")
        assert {"nosuid", "nodev"} <= set(options.split(","))


def test_network_is_the_one_that_was_asked_for() -> None:
    assert made(network="lab")["HostConfig"]["NetworkMode"] == "lab"
