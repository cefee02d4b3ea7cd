"""Groups of cells: on this machine's kernel where it lets us, and version 2 in a folder."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute.backends.cell_groups import (
    PREFIX,
    CellGroup,
    CellGroups,
    reap_groups,
)
from alpyne_grid.nodes.compute.backends.cells import Walls
from alpyne_grid.nodes.compute.backends.cgroups import hierarchies
from alpyne_grid.nodes.compute.worker import tree

MIB = 1 << 20
WALLS = Walls(memory_bytes=64 * MIB, cpus=2, processes=8)


@pytest.fixture
def groups() -> Iterator[CellGroups]:
    """Groups of this machine; skip where it gives none."""
    made = CellGroups(uuid.uuid4().hex)
    made.open()
    if not made.controllers:
        pytest.skip("this machine lets this user make no control groups")
    yield made
    made.close()
    assert [str(path) for path in made.parents if path.exists()] == []


@pytest.fixture
def waiting() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that does nothing until it is ended."""
    script = "trap 'exit 3' TERM; echo up; read _"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


# ---- this machine ----


def test_cell_has_its_process_inside_and_counts_it(
    groups: CellGroups, waiting: "subprocess.Popen[bytes]"
) -> None:
    group = groups.make("one", WALLS)
    group.add(waiting.pid)
    assert group.processes() == [waiting.pid]
    if "pids" in group.counts:
        assert group.gauges.value("processes") == 1
    waiting.kill()
    waiting.wait()
    assert group.remove()


def test_kernel_ends_a_process_beyond_the_memory_of_its_cell(groups: CellGroups) -> None:
    if "memory" not in groups.controllers:
        pytest.skip("no controller of memory")
    group = groups.make("one", WALLS)
    hog = f"read _; exec python3 -c 'b = bytearray({256 * MIB}); print(len(b))'"
    with subprocess.Popen(["sh", "-c", hog], stdin=subprocess.PIPE) as process:
        group.add(process.pid)
        process.communicate(b"go\n")
    assert process.returncode == -9
    assert group.gauges.value("oom_kills") == 1
    assert 32 * MIB < (group.gauges.value("peak_bytes") or 32 * MIB + 1) <= 64 * MIB
    assert group.remove()


def test_kernel_refuses_processes_beyond_those_of_the_cell(groups: CellGroups) -> None:
    if "pids" not in groups.controllers:
        pytest.skip("no controller of processes")
    group = groups.make("one", Walls(processes=3))
    script = "read _; for i in 1 2 3 4 5 6; do sleep 0.2 & done; wait"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        group.add(process.pid)
        process.communicate(b"go\n")
    assert (group.gauges.value("processes_refused") or 0) >= 1
    group.kill()
    assert group.remove()


def test_frozen_cell_stands_still_and_can_be_killed(
    groups: CellGroups, waiting: "subprocess.Popen[bytes]"
) -> None:
    if "freezer" not in groups.controllers:
        pytest.skip("nothing freezes")
    _freeze_and_kill(groups.make("one", Walls()), waiting)


def test_frozen_cell_of_version_2_stands_still_and_can_be_killed(
    waiting: "subprocess.Popen[bytes]",
) -> None:
    """Version 2 freezes without a controller, so a machine with both can show it."""
    found = [one for one in hierarchies() if one.version == 2]
    if not found or not os.access(found[0].mount / "cgroup.procs", os.W_OK):
        pytest.skip("this machine lets this user make no groups of version 2")
    folder = found[0].mount / f"{PREFIX}{uuid.uuid4().hex}"
    group = CellGroup({"freezer": (2, folder), "cpuacct": (2, folder)})
    group.make(Walls())
    assert group.gauges.value("cpu_ms") == 0
    _freeze_and_kill(group, waiting)


def _freeze_and_kill(group: CellGroup, process: "subprocess.Popen[bytes]") -> None:
    group.add(process.pid)
    group.freeze()
    os.kill(process.pid, 15)  # which it takes, once it runs
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    group.thaw()
    assert process.wait(5) == 3
    with subprocess.Popen(["sleep", "3600"]) as other:
        group.add(other.pid)
        group.freeze()
        group.kill()
        assert other.wait(5) == -9
    assert group.remove()


def test_reap_ends_what_is_in_cells_and_removes_them(
    groups: CellGroups, waiting: "subprocess.Popen[bytes]"
) -> None:
    group = groups.make("one", Walls())
    group.add(waiting.pid)
    if group.can_freeze:
        group.freeze()
    assert reap_groups(groups.parents) == 1
    assert waiting.wait(5) == -9
    assert [path for path in groups.parents if path.exists()] == []
    group.gauges.close()


def test_reap_touches_no_group_of_others(tmp_path: Path) -> None:
    cell = tmp_path / "system.slice" / "cell"
    cell.mkdir(parents=True)
    (cell / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert reap_groups([cell.parent, tmp_path / f"{PREFIX}gone"]) == 0
    assert cell.exists()


def test_processes_of_a_group_that_is_gone_are_none(tmp_path: Path) -> None:
    assert CellGroup({"pids": (2, tmp_path / "gone")}).processes() == []


# ---- version 2, in a folder that makes its files as the kernel does ----

FILES = (
    "cgroup.procs", "cgroup.freeze", "cgroup.kill", "cgroup.subtree_control", "memory.max",
    "memory.swap.max", "memory.current", "pids.max", "cpu.max",
)  # fmt: skip


class Machine:
    """A /proc and a hierarchy of version 2; files keep the last thing that was written."""

    def __init__(self, folder: Path, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proc, self.mount = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        line = f"31 1 0:30 / {self.mount} rw - cgroup2 cgroup2 rw"
        (self.proc / "self/mountinfo").write_text(f"{line}\n")
        (self.proc / "self/cgroup").write_text(f"0::{own}\n")
        self.mount.mkdir()
        self.fill(self.mount, "cpu io memory pids")
        mkdir, rmdir = Path.mkdir, Path.rmdir

        def make(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False):  # type: ignore[no-untyped-def]
            there = path.exists()
            mkdir(path, mode, parents, exist_ok)
            if not there:
                self.fill(path, (path.parent / "cgroup.subtree_control").read_text())

        def remove(path: Path) -> None:
            if any(entry.is_dir() for entry in path.iterdir()):
                rmdir(path)
            shutil.rmtree(path)

        monkeypatch.setattr(Path, "mkdir", make)
        monkeypatch.setattr(Path, "rmdir", remove)

    def fill(self, folder: Path, controllers: str) -> None:
        for name in FILES:
            (folder / name).touch()
        (folder / "cgroup.events").write_text("populated 0\nfrozen 1\n")
        (folder / "cgroup.controllers").write_text(controllers)

    def group(self, path: str, *, gives: str = "", forbidden: bool = False) -> Path:
        """Make a group that gives controllers to its children."""
        folder = self.mount / path
        folder.mkdir(parents=True)
        (folder / "cgroup.controllers").write_text("cpu io memory pids")
        (folder / "cgroup.subtree_control").write_text(gives)
        return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, "/user/app/own", monkeypatch)
    made.group("user")
    made.group("user/app", gives="cpu io memory pids")
    made.group("user/app/own")
    forbid(made.mount, made.mount / "user")
    monkeypatch.setattr(CellGroups, "_try", lambda groups, parent: None)
    return made


def forbid(*folders: Path) -> None:
    """Take away the right to write to groups, also from root."""
    for folder in folders:
        (folder / "cgroup.procs").unlink()


def test_groups_lie_below_the_nearest_group_that_gives_controllers(machine: Machine) -> None:
    (machine.mount / "user/app/own/cgroup.procs").write_text("1\n2\n")
    (machine.mount / "user/app/own/cgroup.subtree_control").unlink()  # the kernel: EBUSY
    machine.group("user/app/alpyne-tag", gives="cpu io memory pids")
    groups = CellGroups("tag", machine.proc)
    groups.open()
    assert groups.parents == [machine.mount / "user/app/alpyne-tag"]
    assert groups.controllers >= {"memory", "pids", "freezer", "cpuacct"}
    assert "version 2" in groups.describe()


def test_limits_are_written_as_version_2_takes_them(machine: Machine) -> None:
    parent = machine.group("user/app/alpyne-tag", gives="cpu io memory pids")
    groups = CellGroups("tag", machine.proc)
    groups.open()
    groups._controllers = dict.fromkeys(("memory", "pids", "cpu", "freezer"), (2, parent))
    groups.make("one", WALLS)
    written = {name: (parent / "one" / name).read_text() for name in FILES}
    assert written["memory.max"] == str(64 * MIB)
    assert written["memory.swap.max"] == "0"
    assert written["pids.max"] == "9"  # and the supervisor
    assert written["cpu.max"] == "200000 100000"


def test_daemon_moves_into_a_leaf_where_its_own_group_was_delegated_to_it(
    machine: Machine,
) -> None:
    forbid(machine.mount / "user/app")
    own = machine.mount / "user/app/own"
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    groups = CellGroups("tag", machine.proc)
    groups.open()
    assert (own / "daemon/cgroup.procs").read_text() == str(os.getpid())
    assert (own / "cgroup.subtree_control").read_text().startswith("+")
    assert groups.parents == [own / "alpyne-tag"]


def test_daemon_moves_nobody_elses_processes(machine: Machine) -> None:
    forbid(machine.mount / "user/app")
    own = machine.mount / "user/app/own"
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n{tree.parent(os.getpid())}\n")
    CellGroups("tag", machine.proc).open()
    assert not (own / "daemon").exists()


def test_no_groups_are_promised_where_none_may_be_made(machine: Machine) -> None:
    forbid(machine.mount / "user/app", machine.mount / "user/app/own")
    groups = CellGroups("tag", machine.proc)
    groups.open()
    assert (groups.controllers, groups.parents) == (frozenset(), [])
    assert groups.describe() == "no control groups"


def test_no_groups_are_promised_where_no_process_can_be_moved(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the try is made; files in a folder move no process
    groups = CellGroups("tag", machine.proc)
    groups.open()
    assert groups.controllers == frozenset()
