"""Objects larger than memory: what the program that pushes and pulls them needs, and the daemon."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster

MIB = 1 << 20
SIZE_MIB = 2048

CLIENT = """
import sys
from pathlib import Path
from alpyne_grid.manager import Manager

address, source, target = sys.argv[1:]
with Manager.connect([address]) as grid:
    box = grid.container("box", copies=1)
    item = box.push(source)
    Path(source).unlink()
    box.pull(item, target)
print(item.sha256.hex())
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(int(line.split()[1]) * 1024)
"""


def peak_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@pytest.mark.slow
def test_manager_keeps_its_memory_bounded_when_an_object_has_2_gib(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    block = os.urandom(MIB)
    hashed = hashlib.sha256()
    with source.open("wb") as file:
        for n in range(SIZE_MIB):
            piece = n.to_bytes(8, "big") + block[8:]
            hashed.update(piece)
            file.write(piece)
    with LocalCluster(tmp_path / "cluster", create_account) as cluster:
        node = cluster.start("data")
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, node.address, source, target],
            env={**os.environ, "ALPYNE_HOME": str(cluster.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr
        digest, peak = done.stdout.split()
        assert int(peak) < 150 * MIB
        assert peak_memory(node.pid) < 150 * MIB
        objects = node.state
    assert target.stat().st_size == SIZE_MIB * MIB
    with target.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest == hashed.hexdigest()
    target.unlink()  # pytest keeps folders for a while
    for large in [path for path in objects.rglob("*") if path.is_file()]:
        large.unlink()
