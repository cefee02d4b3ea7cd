"""Control groups: found in both versions, read without rights, kept when they are gone."""

import os
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute.backends.cgroups import (
    ControlGroups,
    GroupReading,
    groups_of,
    hierarchies,
)

V1_FILES = {
    "memory": {
        "memory.usage_in_bytes": "4096\n",
        "memory.max_usage_in_bytes": "8192\n",
        "memory.stat": "cache 1\nshmem 7\ntotal_shmem 512\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    },
    "pids": {"pids.current": "5\n", "pids.events": "max 2\n"},
    "cpuacct": {"cpuacct.usage": "1234567890\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": (
            "8:0 Read 100\n8:0 Write 20\n8:16 Read 1\n8:16 Write 2\nTotal 123\n"
        )
    },
    "freezer": {"freezer.state": "THAWED\n"},
    "cpu": {"cpu.cfs_quota_us": "-1\n"},
}
V2_FILES = {
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.stat": "anon 1\nfile 2\nshmem 512\n",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n",
    "pids.current": "5\n",
    "pids.events": "max 2\n",
    "cpu.stat": "usage_usec 1234567\nuser_usec 1\nsystem_usec 2\n",
    "io.stat": "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n",
}
READING = GroupReading(4096, 8192, 512, 3, 5, 2, 1234, 101, 22)


def machine_v1(folder: Path, group: str = "/jobs/one", root: str = "/") -> Path:
    """A /proc in which process 7 is in ``group`` of six hierarchies of version 1."""
    mounts, groups = [], []
    for number, (name, files) in enumerate(V1_FILES.items(), 30):
        mount = folder / "cgroup" / name
        place = mount / group.removeprefix(root).lstrip("/")
        place.mkdir(parents=True)
        for file, text in files.items():
            (place / file).write_text(text)
        mounts.append(f"{number} 1 0:{number} {root} {mount} rw shared:1 - cgroup cgroup rw,{name}")
        groups.append(f"{number}:{name}:{group}")
    return proc(folder, mounts, [*groups, "0::/"])


def machine_v2(folder: Path, controllers: str = "cpuset cpu io memory pids") -> Path:
    """A /proc in which process 7 is in the group /user.slice/one of version 2."""
    mount = folder / "cgroup"
    place = mount / "user.slice/one"
    place.mkdir(parents=True)
    (mount / "cgroup.controllers").write_text(f"{controllers}\n")
    for file, text in V2_FILES.items():
        (place / file).write_text(text)
    line = f"31 1 0:30 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
    return proc(folder, [line], ["0::/user.slice/one"])


def proc(folder: Path, mounts: list[str], groups: list[str]) -> Path:
    made = folder / "proc"
    (made / "self").mkdir(parents=True)
    (made / "7").mkdir()
    other = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw"
    (made / "self/mountinfo").write_text("\n".join([other, *mounts]) + "\n")
    (made / "7/cgroup").write_text("\n".join(groups) + "\n")
    return made


def test_groups_read_all_values_in_version_1(tmp_path: Path) -> None:
    groups = ControlGroups.of(7, machine_v1(tmp_path))
    assert groups.read() == READING
    groups.close()


def test_groups_read_all_values_in_version_2(tmp_path: Path) -> None:
    groups = ControlGroups.of(7, machine_v2(tmp_path))
    assert groups.read() == READING
    groups.close()


def test_groups_are_found_below_a_containers_root(tmp_path: Path) -> None:
    made = machine_v1(tmp_path, "/docker/abc/inner", root="/docker/abc")
    version, folder = groups_of(7, made)["memory"]
    assert (version, folder) == (1, tmp_path / "cgroup/memory/inner")


def test_groups_outside_of_what_is_mounted_are_left_out(tmp_path: Path) -> None:
    made = machine_v1(tmp_path, "/docker/abc/inner", root="/docker/abc")
    (made / "7/cgroup").write_text("30:memory:/docker/abcd\n0::/\n")
    assert groups_of(7, made) == {}


def test_groups_say_none_for_what_the_machine_does_not_have(tmp_path: Path) -> None:
    made = machine_v2(tmp_path, controllers="cpu")
    groups = ControlGroups.of(7, made)
    assert groups.read() == GroupReading(cpu_ms=1234)
    assert groups.value("memory_bytes") is None
    assert not groups.reset_peak()
    groups.close()


def test_a_hybrid_machine_gives_each_controller_where_it_is(tmp_path: Path) -> None:
    made = machine_v2(tmp_path, controllers="memory")
    mount = tmp_path / "freezer"
    mount.mkdir()
    with (made / "self/mountinfo").open("a") as file:
        file.write(f"40 1 0:40 / {mount} rw - cgroup cgroup rw,freezer\n")
    with (made / "7/cgroup").open("a") as file:
        file.write("3:freezer:/\n")
    found = groups_of(7, made)
    assert found["freezer"] == (1, mount)
    assert found["memory"] == (2, tmp_path / "cgroup/user.slice/one")


def test_values_stay_when_the_files_are_closed(tmp_path: Path) -> None:
    groups = ControlGroups.of(7, machine_v2(tmp_path))
    groups.read()
    groups.close()
    assert groups.read() == READING


def test_a_value_is_read_anew_each_time(tmp_path: Path) -> None:
    groups = ControlGroups.of(7, machine_v2(tmp_path))
    (tmp_path / "cgroup/user.slice/one/memory.current").write_text("77\n")
    assert groups.value("memory_bytes") == 77
    groups.close()


def test_groups_of_a_process_that_is_gone_raise(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cgroup"):
        ControlGroups.of(8, machine_v2(tmp_path))


def test_this_machine_tells_of_this_process() -> None:
    if not hierarchies():
        pytest.skip("no control groups are mounted here")
    groups = ControlGroups.of(os.getpid())
    reading = groups.read()
    assert reading.cpu_ms is None or reading.cpu_ms > 0
    assert reading != GroupReading()
    groups.close()
