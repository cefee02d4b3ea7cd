"""A node that was put back from an older backup: its manager notices and says so."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alpyne_grid.manager import Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path / "cluster", create_account) as made:
        yield made


def warnings_on_connecting(cluster: LocalCluster, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING), Manager.connect(cluster.addresses, home=cluster.home):
        pass
    return [record.getMessage() for record in caplog.records]


def test_manager_warns_when_a_node_knows_less_than_it_did(
    cluster: LocalCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = cluster.start("data")
    node.stop()
    backup = tmp_path / "backup"
    shutil.copytree(node.state, backup)
    for _ in range(3):
        node.start()
        assert warnings_on_connecting(cluster, caplog) == []
        node.stop()
    shutil.rmtree(node.state)
    shutil.copytree(backup, node.state)
    node.start()
    [warning] = warnings_on_connecting(cluster, caplog)
    assert "restored_backup" in warning
