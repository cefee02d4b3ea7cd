"""Containers with a member that is dead: nothing waits for it that can go on without it."""

import time
from pathlib import Path

from alpyne_grid.manager import Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.manager.links import CALL_WAIT_S
from alpyne_grid.tools.cluster import LocalCluster

COUNT = 10


def test_objects_are_put_read_and_deleted_without_waiting_for_a_dead_member(
    tmp_path: Path,
) -> None:
    with LocalCluster(tmp_path, create_account) as cluster:
        nodes = [cluster.add("data") for _ in range(3)]
        cluster.start_all(nodes)
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            box = grid.container("box", copies=2)
            for n in range(COUNT):
                box.put(f"before/{n}", b"x" * n)
            nodes[0].kill()
            while all(node.is_up for node in grid.statistics().nodes):
                time.sleep(0.01)
            began = time.monotonic()
            for n in range(COUNT):
                box.put(f"after/{n}", b"y" * n)
                assert box.get(f"after/{n}") == b"y" * n
                assert box.get(f"before/{n}") == b"x" * n
                box.delete(f"after/{n}")
            took = time.monotonic() - began
            assert [item.path for item in box.ls("after")] == []
    assert took < COUNT * CALL_WAIT_S / 4
