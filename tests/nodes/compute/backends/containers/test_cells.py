"""What containers can be asked beside the contracts: images, networks, walls, what stays warm."""

import array
import asyncio
import contextlib
import errno
import os
import socket
import sys
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.nodes.compute.backends.containers.backend import DockerBackend
from alpyne_grid.tools.contracts.compute import (
    ALICE,
    BackendBench,
    arguments,
    function_row,
    marked,
)
from parts.docker_engine import Engine

from alpyne_proto.messages.compute import Cause, JobState

cloudpickle.register_pickle_by_value(sys.modules[__name__])
MIB = 1 << 20


def which() -> str:
    """Return the word by which the images of the tests differ."""
    with open("/etc/alpyne-image") as file:
        return file.read().strip()


def mark() -> str:
    return os.environ["ALPYNE_JOB_MARK"]


def send_more_descriptors_than_a_user_may() -> None:
    """Have descriptors under way that nobody takes, until the kernel allows no more."""
    ends = []
    null = array.array("i", [os.open(os.devnull, os.O_RDONLY)] * 250)
    with contextlib.suppress(OSError):
        while True:
            ends.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
            for _ in range(5):
                ends[-1][0].sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, null)])
    print("full", flush=True)
    time.sleep(60)


class TestCells(BackendBench):
    @pytest.fixture(autouse=True)
    def _given(self, engine: Engine, opened: Any, containers_of: Any) -> None:
        self._engine, self._opened, self._containers_of = engine, opened, containers_of
        self.options: dict[str, tuple[str, ...]] = {}

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        setup = BackendSetup(setup.folder, setup.boot_id, setup.objects, self.options, 2)
        found: AbstractAsyncContextManager[Backend] = self._opened(self._engine, setup)
        return found

    def containers(self, folder: Path) -> list[Any]:
        return list(self._containers_of(self._engine, folder / "backend"))

    async def test_job_gets_the_image_that_it_asks_for(self, tmp_path: Path) -> None:
        self.options = {"image": (self._engine.image, self._engine.other_image)}
        async with self.bench(tmp_path) as bench:
            assert bench.backend.images == (self._engine.image, self._engine.other_image)
            assert await bench.value(which) == "python"
            assert await bench.value(which, image=self._engine.other_image) == "other"

    async def test_job_is_refused_an_image_that_is_not_listed(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(which, image=self._engine.other_image)
            assert run.how == (JobState.FAILED, Cause.NODE)
            assert "is not on this node's list" in run.end.text
            assert await bench.value(which) == "python"

    async def test_job_gets_the_network_that_it_asks_for(self, tmp_path: Path) -> None:
        """The container engine of the tests has no network but those that a test makes."""

        def interfaces() -> list[str]:
            with open("/proc/net/dev") as file:
                return sorted(line.split(":")[0].strip() for line in file if ":" in line)

        name = f"alpyne-test-{os.getpid()}"
        try:
            self._engine.api.post("/networks/create", {"Name": name, "Internal": True})
        except Exception as error:  # noqa: BLE001 - where the machine has no bridges
            pytest.skip(f"this machine's engine makes no networks: {error}")
        try:
            self.options = {"network": (name,)}
            async with self.bench(tmp_path) as bench:
                assert bench.backend.networks == (name,)
                assert await bench.value(interfaces) == ["lo"]
                assert await bench.value(interfaces, network=name) == ["eth0", "lo"]
        finally:
            self._engine.api.delete(f"/networks/{name}")

    async def test_worker_stays_warm_for_jobs_of_the_same_walls_only(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            small, again = [await bench.value(mark, memory_bytes=64 * MIB) for _ in range(2)]
            large = await bench.value(mark, memory_bytes=96 * MIB)
            assert small == again
            assert small != large

    async def test_job_that_exhausts_what_its_user_may_have_hurts_no_other_container(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            hog = bench.start_call(send_more_descriptors_than_a_user_may, memory_bytes=64 * MIB)
            assert await bench.line(hog) == "full"
            # To start a worker takes descriptors in flight, too.
            assert await bench.value(which, memory_bytes=96 * MIB) == "python"

    async def test_job_reaches_no_hypervisor(self, tmp_path: Path) -> None:
        def work() -> str:
            try:
                socket.socket(40, socket.SOCK_STREAM).close()  # AF_VSOCK
            except OSError as error:
                return errno.errorcode[error.errno or 0]
            return "made"

        async with self.bench(tmp_path) as bench:
            assert await bench.value(work) == "EAFNOSUPPORT"

    async def test_limits_beyond_what_there_is_are_no_error(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            assert await bench.value(which, processes=5_000_000, disk_bytes=1 << 60) == "python"
            assert await bench.value(which, disk_bytes=1, cpus=1_000) == "python"

    async def test_node_says_what_the_kernel_enforces(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            limits = bench.backend.limits
            for name in ("memory", "cpu", "processes", "disk", "network"):
                assert limits[name] == "kernel"
            assert bench.backend.level == 2
            assert bench.backend.suspends == "kernel"

    async def test_defaults_of_the_node_hold_for_a_job_that_asks_for_no_limit(
        self, tmp_path: Path
    ) -> None:
        self.options = {"job-memory": ("64MiB",), "job-processes": ("20",), "job-disk": ("2MiB",)}

        def fill() -> None:
            with open("filler", "wb") as file:
                file.write(bytes(3 << 20))

        async with self.bench(tmp_path) as bench:
            hog = await bench.call(lambda: len(os.urandom(4096) * (80 << 8)))
            assert hog.how == (JobState.LIMIT, Cause.MEMORY)
            filler = await bench.call(fill)
            assert filler.how == (JobState.LIMIT, Cause.DISK)

    async def test_job_that_leaves_shared_memory_costs_the_next_one_nothing(
        self, tmp_path: Path
    ) -> None:
        def leave() -> str:
            with open("/dev/shm/left", "wb") as file:
                file.write(bytes(1 << 20))
            return mark()

        async with self.bench(tmp_path) as bench:
            first = await bench.value(leave)
            assert await bench.value(lambda: os.listdir("/dev/shm")) == []
            assert marked(first) == []

    async def test_job_may_open_its_output_anew(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.command(["sh", "-c", "echo one > /dev/stdout; echo two > /dev/fd/2"])
            assert run.end.state is JobState.DONE
            assert (run.written(1), run.written(2)) == ("one\n", "two\n")

    async def test_job_runs_a_program_that_it_brought_along(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            files = [("tool", b"#!/bin/sh\necho ran\n", True)]
            run = await bench.command(["./tool"], files)
            assert run.written() == "ran\n"

    async def test_program_in_a_file_is_read_anew_when_the_file_is_another(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            file = tmp_path / "program"
            for value in ("one", "two"):
                part = tmp_path / "part"
                part.write_bytes(function_row(str.upper) + arguments(value))
                part.rename(file)
                run = await bench.ended(bench.start(file))
                assert run.value() == value.upper()

    async def test_many_programs_in_files_do_not_pile_up_in_the_cell(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            for number in range(12):
                file = tmp_path / f"program-{number}"
                file.write_bytes(function_row(abs) + arguments(-number))
                assert (await bench.ended(bench.start(file))).value() == number
            (cell,) = (tmp_path / "backend" / "cells").iterdir()
            assert len(list(cell.iterdir())) == 8

    async def test_nothing_is_left_when_the_back_end_has_closed(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            bench.backend.warm(ALICE, 2)
            run = bench.start_call(lambda: time.sleep(3600))
            await bench.until(lambda: run.started == 1, 20)
            first = len(self.containers(tmp_path))
            assert first >= 1
        assert self.containers(tmp_path) == []
        assert not (tmp_path / "backend" / "cells").exists()

    async def test_worker_that_ends_takes_its_container_along(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: os._exit(3))
            assert run.how == (JobState.FAILED, Cause.CRASH)
            for _ in range(200):
                if not self.containers(tmp_path):
                    break
                await asyncio.sleep(0.05)
            assert self.containers(tmp_path) == []

    async def test_many_cells_are_made_at_once(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            runs = [bench.start_call(lambda: time.sleep(1) or mark()) for _ in range(6)]
            marks = [(await bench.ended(run, 60)).value() for run in runs]
            assert len(set(marks)) > 1

    async def test_state_folder_may_lie_deep(self, tmp_path: Path) -> None:
        deep = tmp_path / ("d" * 100) / ("e" * 100)
        deep.mkdir(parents=True)
        async with self.bench(deep) as bench:
            assert await bench.value(which) == "python"


class TestStart:
    @pytest.mark.parametrize("check", [False, True], ids=["start", "check"])
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"image": ("alpyne-nowhere:1",)}, "docker pull alpyne-nowhere:1"),
            ({"image": ("alpyne-bare:1",)}, "has no Python that runs"),
            ({"network": ("alpyne-nowhere",)}, "docker network create alpyne-nowhere"),
            ({"docker-host": ("unix:///nowhere.sock",)}, "systemctl start docker"),
        ],
    )
    async def test_node_does_not_start_and_says_what_to_do(
        self,
        engine: Engine,
        tmp_path: Path,
        containers_of: Any,
        options: dict[str, tuple[str, ...]],
        said: str,
        check: bool,
    ) -> None:
        given = {"docker-host": (engine.host,), "image": (engine.image,), **options}
        backend = DockerBackend(BackendSetup(tmp_path / "backend", bytes(16), options=given))
        with pytest.raises(OSError, match=said):
            if check:
                await backend.check()
            else:
                await backend.reap()
                await backend.start()
        assert containers_of(engine, tmp_path / "backend") == []

    async def test_node_does_not_start_with_an_image_that_declares_volumes(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        made = engine.api.post("/containers/create", {"Image": engine.bare_image, "Cmd": ["true"]})
        name = f"alpyne-volumes-{os.getpid()}"
        try:
            body = {"Volumes": {"/data": {}}}
            engine.api.post("/commit", body, container=made["Id"], repo=name, tag="1")
            given = {"docker-host": (engine.host,), "image": (f"{name}:1",)}
            backend = DockerBackend(BackendSetup(tmp_path, bytes(16), options=given))
            with pytest.raises(OSError, match=r"declares volumes \(/data\)"):
                await backend.check()
        finally:
            engine.api.delete(f"/containers/{made['Id']}", force="true")
            engine.api.delete(f"/images/{name}:1", force="true")
