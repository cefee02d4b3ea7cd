"""A container engine that stops and starts while a program's jobs run."""

import time
from pathlib import Path

import pytest
from alpyne_grid.manager import Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster
from parts.docker_engine import Engine

pytestmark = [
    pytest.mark.integration,
    pytest.mark.crash,
    pytest.mark.slow,
    pytest.mark.docker,
]
ITEMS = 30


def slow_square(number: int) -> int:
    time.sleep(0.2)
    return number * number


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_map_gets_every_result_though_the_engine_goes_and_comes_back(
    tmp_path: Path, own_engine: Engine, how: str
) -> None:
    options = ["--backend", "docker", "--docker-host", own_engine.host]
    with LocalCluster(tmp_path / "cluster", create_account) as cluster:
        daemon = cluster.start("compute", "--slots", "2", *options, "--image", own_engine.image)
        pid = daemon.pid
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            results = grid.map(slow_square, range(ITEMS), chunk=1)
            got = [next(results), next(results)]
            getattr(own_engine, how)()
            own_engine.start()
            got += results
            assert got == [number * number for number in range(ITEMS)]
            assert grid.statistics().moved > 0  # some ran when the engine went
        assert daemon.pid == pid
