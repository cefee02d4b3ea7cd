"""Level 1: both contracts on sandboxes, and what only sandboxes can be asked."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import cloudpickle
import psutil
import pytest
from alpyne_grid.nodes.compute.backends import bubblewrap
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.nodes.compute.backends.cell_groups import PREFIX
from alpyne_grid.nodes.compute.backends.cgroups import hierarchies
from alpyne_grid.nodes.compute.backends.process import ProcessBackend
from alpyne_grid.nodes.compute.backends.sandbox import SandboxCells
from alpyne_grid.nodes.errors import ConfigError
from alpyne_grid.tools.contracts.compute import (
    ALICE,
    BOB,
    LIMIT,
    BackendBench,
    BackendContract,
    Bench,
    ObjectRoom,
    marked,
    named,
    wait_gone,
)
from alpyne_grid.tools.contracts.hostile import HostileContract

from alpyne_proto.messages.compute import Cause

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.bubblewrap

MIB = 1 << 20


@asynccontextmanager
async def opened(setup: BackendSetup, **options: tuple[str, ...]) -> AsyncIterator[ProcessBackend]:
    """Yield a process back end of level 1 that has reaped and started."""
    named_as_given = {name.replace("_", "-"): values for name, values in options.items()}
    every = {**setup.options, "level": ("1",), **named_as_given}
    backend = ProcessBackend(replace(setup, options=every))
    await backend.reap()
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def bench(folder: Path, **options: tuple[str, ...]) -> AsyncIterator[Bench]:
    """Yield a bench whose administrator has given ``options``."""
    room = ObjectRoom()
    async with opened(setup_in(folder, room), **options) as backend:
        yield Bench(backend, folder, room)


def setup_in(folder: Path, room: ObjectRoom | None = None) -> BackendSetup:
    """What a back end in ``folder`` is made from."""
    return BackendSetup(folder / "backend", os.urandom(16), room, slots=4)


def own_groups(folder: Path) -> list[str]:
    """The control groups on this machine that belong to a back end in ``folder``."""
    mark = folder / "backend" / "mark"
    name = f"{PREFIX}{mark.read_text()}" if mark.exists() else f"{PREFIX}check-"
    # By os.walk, which does not mind that others remove their groups meanwhile.
    return [
        os.path.join(folder, found)
        for one in hierarchies()
        for folder, folders, _ in os.walk(one.mount)
        for found in folders
        if found.startswith(name)
    ]


class TestContract(BackendContract):
    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        return opened(setup)


class TestHostile(HostileContract):
    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        return opened(setup)

    def left_behind(self, folder: Path) -> list[str]:
        """Name groups and the cells' folders as well."""
        cells = folder / "backend" / "cells"
        return [
            *super().left_behind(folder),
            *own_groups(folder),
            *(map(str, cells.iterdir()) if cells.exists() else ()),
        ]


class TestSandboxes(BackendBench):
    """What the contracts cannot ask of every back end."""

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        return opened(setup)

    async def test_job_is_nobody_inside_and_not_root_outside(self, tmp_path: Path) -> None:
        def user_of(pid: int) -> int:
            return psutil.Process(pid).uids().real

        async with self.bench(tmp_path) as made:
            run = made.start_command(["sh", "-c", f"id -u; sleep {(token := new_token())}"])
            assert await made.line(run) == "65534"
            pid = named(token)[0]
            assert user_of(pid) != 0
            assert user_of(pid) == os.getuid() or os.getuid() == 0

    async def test_cells_of_a_daemon_that_is_root_have_users_of_their_own(
        self, tmp_path: Path
    ) -> None:
        if os.geteuid() != 0:
            pytest.skip("this daemon is not root")

        async with self.bench(tmp_path) as made:
            tokens = [new_token(), new_token()]
            runs = [
                made.start_command(["sh", "-c", f"echo up; sleep {token}"], account=account)
                for token, account in zip(tokens, (ALICE, BOB), strict=True)
            ]
            for run in runs:
                await made.line(run)
            users = {psutil.Process(named(token)[0]).uids().real for token in tokens}
            assert len(users) == 2
            assert 0 not in users

    async def test_job_can_use_the_manager_library(self, tmp_path: Path) -> None:
        def work() -> str:
            import alpyne_grid.manager

            return alpyne_grid.manager.__name__

        async with self.bench(tmp_path) as made:
            assert await made.value(work) == "alpyne_grid.manager"

    async def test_job_sees_of_the_machine_only_what_it_needs(self, tmp_path: Path) -> None:
        def work() -> list[list[str]]:
            return [sorted(os.listdir(folder)) for folder in ("/", "/etc", "/run", "/var")]

        async with self.bench(tmp_path) as made:
            top, etc, run, var = await made.value(work)
            given = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "var", "run"}
            places = {Path(path).parts[1] for path in (sys.prefix, sys.base_prefix)}
            assert set(top) <= given | places | {"tmp", "dev", "proc", "alpyne", "opt"}
            assert {"passwd", "group"} <= set(etc)
            assert not {"shadow", "machine-id", "hostname", "ssh", "resolv.conf"} & set(etc)
            assert (run, var) == (["alpyne"], ["tmp"])

    async def test_job_that_leaves_shared_memory_gets_its_worker_replaced(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as made:
            await made.value(lambda: Path("/dev/shm/left").write_bytes(bytes(MIB)))
            assert await made.value(lambda: os.listdir("/dev/shm")) == []

    async def test_scratch_is_empty_for_the_next_job(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as made:
            await made.value(lambda: Path("/tmp/left").write_bytes(bytes(MIB)))
            assert await made.value(lambda: (os.getcwd(), os.listdir("/var/tmp"))) == ("/tmp", [])

    async def test_cell_keeps_few_of_the_files_that_its_jobs_were_given(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as made:
            for number in range(8):
                bundle = made.bundle(**{f"part{number}": f"NUMBER = {number}"})
                name = f"part{number}"
                assert await made.value(_number_of, name, bundle=bundle) == number
            (cell,) = (tmp_path / "backend" / "cells").iterdir()
            assert 0 < len(list(cell.iterdir())) <= 4

    async def test_text_of_the_memory_limit_tells_of_files_in_scratch(self, tmp_path: Path) -> None:
        def work() -> None:
            with open("filler", "wb") as file:
                for _ in range(200):
                    file.write(bytes(MIB))

        async with self.bench(tmp_path) as made:
            if made.backend.limits["memory"] != "kernel":
                pytest.skip("this machine gives no control group of memory")
            run = await made.call(work, memory_bytes=64 * MIB, disk_bytes=256 * MIB)
            assert run.how == (LIMIT, Cause.MEMORY)
            assert "files in its scratch" in run.end.text

    async def test_walls_of_a_job_that_asks_for_none_are_the_administrators(
        self, tmp_path: Path
    ) -> None:
        def work() -> int:
            return len(bytearray(os.urandom(4096) * (400 << 8)))

        def fill() -> None:
            Path("filler").write_bytes(bytes(12 * MIB))

        async with bench(tmp_path, job_memory=("96MiB",), job_disk=("8MiB",)) as made:
            assert (await made.call(work)).how == (LIMIT, Cause.MEMORY)
            assert (await made.call(fill)).how == (LIMIT, Cause.DISK)
            assert await made.value(work, memory_bytes=1 << 30) == 400 * MIB

    async def test_job_reaches_loopback_when_it_is_given_the_hosts_network(
        self, tmp_path: Path
    ) -> None:
        def work(port: int) -> str:
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return "connected"

        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            async with bench(tmp_path, network=("host",)) as made:
                assert made.backend.networks == ("host",)
                assert await made.value(work, port, network="host") == "connected"
                refused = await made.call(work, port)
                assert "refused" in refused.end.text

    async def test_close_leaves_no_group_and_no_folder(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as made:
            await made.call(lambda: os._exit(1))
            await made.value(abs, -1)
        assert own_groups(tmp_path) == []
        assert list((tmp_path / "backend" / "cells").iterdir()) == []

    async def test_check_says_what_it_found_and_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "backend").mkdir()
        said = await SandboxCells(setup_in(tmp_path)).check()
        assert "level 1" in said
        assert "memory kernel" in said or "memory sampled" in said
        assert list((tmp_path / "backend").iterdir()) == []
        assert [path for path in own_groups(tmp_path) if "check" in path] == []


def _number_of(name: str) -> int:
    import importlib

    number: int = importlib.import_module(name).NUMBER
    return number


def new_token() -> str:
    """A number of seconds that nobody else sleeps."""
    return f"3600.{uuid.uuid4().int}"


# ---- machines that do not give what is needed ----


async def test_start_says_what_to_install_when_there_is_no_bubblewrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="apt install bubblewrap"):
        await SandboxCells(setup_in(tmp_path)).start()


@pytest.mark.parametrize("when", ["start", "check"])
async def test_start_says_what_to_set_when_namespaces_are_forbidden(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: Callable[[str], str],
    when: str,
) -> None:
    said = "bwrap: setting up uid map: Permission denied"
    monkeypatch.setattr(bubblewrap, "find_program", lambda: failing(said))
    cells = SandboxCells(setup_in(tmp_path))
    with pytest.raises(OSError, match="apparmor_restrict_unprivileged_userns") as caught:
        await (cells.start() if when == "start" else cells.check())
    assert said in str(caught.value)
    assert own_groups(tmp_path) == []


async def test_start_says_what_bubblewrap_said_when_it_fails_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Callable[[str], str]
) -> None:
    monkeypatch.setattr(bubblewrap, "find_program", lambda: failing("bwrap: no luck"))
    with pytest.raises(OSError, match="bubblewrap failed: bwrap: no luck"):
        await SandboxCells(setup_in(tmp_path)).start()


async def test_start_refuses_a_machine_for_which_there_is_no_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "sparc64")
    with pytest.raises(OSError, match=r"filter of system calls.*sparc64.*docker"):
        await SandboxCells(setup_in(tmp_path)).start()


async def test_job_fails_with_the_reason_when_the_runtime_is_broken(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        assert isinstance(made.backend, ProcessBackend)
        cells = made.backend._maker
        assert isinstance(cells, SandboxCells)
        assert cells._recipe is not None
        whole = cells._recipe
        places = tuple(place for place in whole.view.places if "msgpack" not in place)
        cells._recipe = whole._replace(view=whole.view._replace(places=places))
        run = await made.call(abs, 1)
        assert run.end.cause is Cause.NODE
        assert "No module named 'msgpack'" in run.end.text
        cells._recipe = whole
        assert await made.value(abs, -1) == 1


@pytest.fixture
def failing() -> Iterator[Callable[[str], str]]:
    """Make a bubblewrap that says why it does nothing, where every user finds it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)

        def make(said: str) -> str:
            program = Path(folder, "bwrap")
            program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
            program.chmod(0o755)
            return str(program)

        yield make


def test_network_that_level_1_does_not_have_is_a_configuration_error(tmp_path: Path) -> None:
    setup = replace(setup_in(tmp_path), options={"network": ("bridge",)})
    with pytest.raises(ConfigError, match=r"network.*`host` only.*'bridge'"):
        SandboxCells(setup)


# ---- a daemon in a process of its own, which is killed ----

DAEMON = """
import asyncio, os, sys
from pathlib import Path
from alpyne_grid.nodes.compute.backends.base import BackendSetup
from alpyne_grid.nodes.compute.backends.process import ProcessBackend
from alpyne_grid.tools.contracts.compute import ALICE, Bench, ObjectRoom, escape

async def main():
    folder = Path(sys.argv[1])
    options = {"level": ("1",)}
    backend = ProcessBackend(BackendSetup(folder / "backend", os.urandom(16), options=options))
    await backend.reap()
    await backend.start()
    backend.warm(ALICE, 2)
    bench = Bench(backend, folder, ObjectRoom())
    run = bench.start_call(escape, os.environ["TOKEN"])
    line = await bench.line(run, 20)
    if sys.argv[2] == "suspended":
        backend.suspend(run.task.execution)
        await bench.until(lambda: run.moves == ["suspended"], 20)
    print(line, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


Started = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def start_daemon() -> Iterator[Callable[[Path, str, str], Started]]:
    """Start daemons whose job has escaped; return each with the mark of its folder."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, token: str, how: str) -> Started:
        folder.mkdir(exist_ok=True)
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(folder), how],
            env={**os.environ, "TOKEN": token},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(daemon)
        assert daemon.stdout is not None
        mark = daemon.stdout.readline().strip()
        daemon.stdout.close()
        assert mark
        return daemon, mark.split(".")[0]

    yield start
    for daemon in started:
        daemon.kill()
        daemon.wait()


def reap(folder: Path) -> int:
    """Reap as a daemon that starts again does; nothing of the folder may be left."""
    backend = ProcessBackend(replace(setup_in(folder), options={"level": ("1",)}))
    ended = asyncio.run(backend.reap())
    assert own_groups(folder) == []
    return ended


def test_daemon_takes_everything_along_when_it_is_killed(
    tmp_path: Path, start_daemon: Callable[[Path, str, str], Started]
) -> None:
    token = new_token()
    daemon, mark = start_daemon(tmp_path, token, "running")
    assert len(named(token)) == 2
    daemon.kill()
    daemon.wait()
    assert wait_gone(lambda: marked(mark) + named(token), within_s=2.0) == []
    assert reap(tmp_path) == 0


def test_reap_ends_what_was_suspended_when_its_daemon_was_killed(
    tmp_path: Path, start_daemon: Callable[[Path, str, str], Started]
) -> None:
    token = new_token()
    daemon, mark = start_daemon(tmp_path, token, "suspended")
    daemon.kill()
    daemon.wait()
    time.sleep(0.1)
    assert own_groups(tmp_path) != [] or not has_groups()
    reap(tmp_path)
    assert marked(mark) + named(token) == []
    assert own_groups(tmp_path) == []


def test_reap_ends_what_a_killed_daemon_left_when_its_bubblewrap_was_stopped(
    tmp_path: Path, start_daemon: Callable[[Path, str, str], Started]
) -> None:
    token = new_token()
    daemon, mark = start_daemon(tmp_path, token, "running")
    for bwrap in psutil.Process(daemon.pid).children():
        bwrap.send_signal(signal.SIGSTOP)
    daemon.kill()
    daemon.wait()
    reap(tmp_path)
    assert marked(mark) + named(token) == []


def test_reap_spares_the_sandboxes_of_other_folders(
    tmp_path: Path, start_daemon: Callable[[Path, str, str], Started]
) -> None:
    token = new_token()
    daemon, mark = start_daemon(tmp_path / "one", token, "running")
    assert reap(tmp_path / "two") == 0
    assert len(named(token)) == 2
    daemon.kill()
    daemon.wait()
    assert wait_gone(lambda: marked(mark) + named(token), within_s=2.0) == []
    assert reap(tmp_path / "one") == 0


def has_groups() -> bool:
    """Whether this machine lets this user make control groups."""
    return bool(asyncio.run(_controllers()))


async def _controllers() -> frozenset[str]:
    from alpyne_grid.nodes.compute.backends.cell_groups import CellGroups

    groups = CellGroups(f"look-{uuid.uuid4().hex}")
    groups.open()
    groups.close()
    return groups.controllers
