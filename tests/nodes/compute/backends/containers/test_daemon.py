"""Real daemons on containers: what a killed one leaves, and what a confined one can still do."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
from alpyne_grid.manager import Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import Daemon, DaemonFailed, LocalCluster
from parts.docker_engine import Engine

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.integration
WITHIN_S = 30.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path / "cluster", create_account) as made:
        yield made


@pytest.fixture
def options(engine: Engine) -> list[str]:
    """What a node's command line says of the engine."""
    return [
        *("--backend", "docker", "--slots", "2"),
        *("--docker-host", engine.host, "--image", engine.image),
    ]


def until(is_true: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while not (found := is_true()):
        assert time.monotonic() < deadline, f"waited {WITHIN_S} s for {what}"
        time.sleep(0.05)
    return found


def launcher_of(daemon: Daemon) -> psutil.Process:
    (found,) = (
        child
        for child in psutil.Process(daemon.pid).children()
        if "alpyne_grid.nodes.compute.backends.containers.launcher" in child.cmdline()
    )
    return found


def wait() -> None:
    time.sleep(3600)


def where() -> tuple[int, str]:
    with open("/proc/1/cgroup"):
        return os.getgid(), os.getcwd()


class TestKilledDaemon:
    @pytest.fixture(autouse=True)
    def _given(self, engine: Engine, containers_of: Any) -> None:
        self._engine, self._containers_of = engine, containers_of

    def containers(self, daemon: Daemon) -> list[Any]:
        return list(self._containers_of(self._engine, daemon.state / "backend" / "docker"))

    def test_containers_go_when_the_daemon_is_killed(
        self, cluster: LocalCluster, options: list[str]
    ) -> None:
        daemon = cluster.start("compute", *options)
        until(lambda: len(self.containers(daemon)) == 2, "warm workers")
        launcher = launcher_of(daemon)
        daemon.kill()
        until(lambda: self.containers(daemon) == [], "the launcher to remove them")
        until(lambda: not launcher.is_running(), "the launcher to end")

    def test_containers_are_reaped_at_the_next_start_when_the_launcher_was_killed_too(
        self, cluster: LocalCluster, options: list[str]
    ) -> None:
        daemon = cluster.start("compute", *options)
        until(lambda: len(self.containers(daemon)) == 2, "warm workers")
        before = {row["Id"] for row in self.containers(daemon)}
        launcher = launcher_of(daemon)
        os.kill(daemon.pid, signal.SIGSTOP)  # else it could see the launcher's end
        launcher.kill()
        daemon.kill()
        assert before & {row["Id"] for row in self.containers(daemon)}
        daemon.start()
        assert before & {row["Id"] for row in self.containers(daemon)} == set()
        assert "reaped" in daemon.log

    def test_job_runs_again_when_its_daemon_was_killed(
        self, cluster: LocalCluster, options: list[str], tmp_path: Path
    ) -> None:
        daemon = cluster.start("compute", *options)
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            job = grid.submit(lambda: time.sleep(3) or "again")
            until(lambda: job.state.name == "RUNNING", "the job to run")
            daemon.kill()
            daemon.start()
            assert job.result(timeout=60) == "again"

    def test_node_ends_with_exit_code_1_and_runs_jobs_again_when_the_launcher_was_killed(
        self, cluster: LocalCluster, options: list[str]
    ) -> None:
        daemon = cluster.start("compute", *options)
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            job = grid.submit(lambda: time.sleep(3) or "again")
            until(lambda: job.state.name == "RUNNING", "the job to run")
            launcher_of(daemon).kill()
            assert daemon.process is not None
            assert daemon.process.wait(WITHIN_S) == 1
            assert "start the node again" in daemon.log
            daemon.start()
            assert job.result(timeout=60) == "again"


class TestStart:
    def test_node_says_what_to_do_when_the_image_is_missing(
        self, cluster: LocalCluster, options: list[str]
    ) -> None:
        with pytest.raises(DaemonFailed, match=r"docker pull alpyne-nowhere:1"):
            cluster.start("compute", *options, "--image", "alpyne-nowhere:1")

    def test_check_of_the_configuration_leaves_nothing(
        self, own_engine: Engine, cluster: LocalCluster
    ) -> None:
        options = ["--docker-host", own_engine.host, "--image", own_engine.image]
        daemon = cluster.add("compute", "--backend", "docker", *options, "--check-config")
        said = subprocess.run(
            [sys.executable, "-m", "alpyne_grid.nodes.daemon", "compute", *daemon.arguments],
            env=dict(daemon.environment),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "level 2: Docker Engine" in said
        assert own_engine.image in said
        assert own_engine.api.get("/containers/json", all="true") == []


# What a daemon that was taken over would try, in the very process that runs the jobs: a thread that
# was there before the confinement waits for a file, tries, and writes down what it got.
INTRUDER = """
import ctypes, errno, json, os, socket, subprocess, sys, threading, time
from alpyne_grid.nodes.daemon import main

path, launcher, engine = sys.argv[1:4]
libc = ctypes.CDLL(None, use_errno=True)

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"

def call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def connect():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.connect(engine)

def child():
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, engine], capture_output=True)
    if done.returncode:
        raise OSError(errno.EACCES if b"PermissionError" in done.stderr else 0, "refused")

def tries():
    number = int(open(launcher).read())
    pidfd = os.pidfd_open(number)
    return {
        "connect": outcome(connect),
        "pair": outcome(socket.socketpair),
        "child": outcome(child),
        "ptrace": outcome(lambda: call(101, 16, number, 0, 0)),
        "read memory": outcome(lambda: call(310, number, 0, 0, 0, 0, 0)),
        "write memory": outcome(lambda: call(311, number, 0, 0, 0, 0, 0)),
        "take a descriptor": outcome(lambda: call(438, pidfd, 3, 0)),
        "io_uring": outcome(lambda: call(425, 8, 0)),
    }

def intrude():
    while not os.path.exists(launcher):
        time.sleep(0.02)
    found = tries()
    with open(path + ".part", "w") as file:
        json.dump(found, file)
    os.rename(path + ".part", path)

threading.Thread(target=intrude, daemon=True).start()
sys.exit(main(sys.argv[4:]))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls differ")
class TestConfinement:
    def test_nothing_in_the_daemon_reaches_the_engine_while_it_runs_jobs(
        self, engine: Engine, cluster: LocalCluster, options: list[str], tmp_path: Path
    ) -> None:
        script, found, told = tmp_path / "intruder.py", tmp_path / "found", tmp_path / "launcher"
        script.write_text(INTRUDER)
        daemon = cluster.add("compute", *options)
        daemon.process = subprocess.Popen(
            [
                *(sys.executable, str(script), str(found), str(told), str(engine.socket)),
                *("compute", *daemon.arguments),
            ],
            stdout=subprocess.PIPE,
            env=dict(daemon.environment),
        )
        daemon.wait_ready(60)
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            assert grid.submit(where).result(timeout=60) == (65534, "/tmp")
            part = tmp_path / "launcher.part"
            part.write_text(str(launcher_of(daemon).pid))
            part.rename(told)
            until(found.exists, "what was tried")
            assert grid.submit(where).result(timeout=60) == (65534, "/tmp")
        assert json.loads(found.read_text()) == {
            "connect": "EACCES",
            "pair": "EACCES",
            "child": "EACCES",
            "ptrace": "EPERM",
            "read memory": "EPERM",
            "write memory": "EPERM",
            "take a descriptor": "EPERM",
            "io_uring": "EPERM",
        }

    def test_launcher_gets_nothing_of_the_daemons_environment(
        self, cluster: LocalCluster, options: list[str]
    ) -> None:
        cluster.environment["SECRET_OF_THE_DAEMON"] = "1"
        daemon = cluster.start("compute", *options)
        seen = launcher_of(daemon).environ()
        assert sorted(set(seen) - {"PATH", "LANG", "TZ"}) == ["DOCKER_CONFIG", "PYTHONPATH"]
