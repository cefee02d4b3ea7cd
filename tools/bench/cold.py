"""Cold start: from starting a program to its first result, daemons included.

Each run is a fresh interpreter that launches a compute node and a data node, imports the manager
while they start, connects, and runs one call. Run as a module this file is that interpreter, or the
one with a process pool.
"""

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from alpyne_grid.tools.bench.figures import Figure, Series, Unit
from alpyne_grid.tools.bench.setting import SLOTS, Setting
from alpyne_grid.tools.cluster import LocalCluster

TIMEOUT_S = 60.0
REACH_S = 1.5


def measure(setting: Setting) -> list[Figure]:
    """Measure the row."""
    grid = Series("daemons launched to first result", Unit.SECONDS)
    pool = Series("ProcessPoolExecutor", Unit.SECONDS)
    for run in setting.each_run("cold start"):
        with setting.cluster(f"cold-{run}") as cluster:
            grid.values.append(_timed("grid", cluster.folder))
            pool.values.append(_timed("pool", cluster.folder))
    name = "cold start: a program starts, launches daemons, has its first result"
    return [Figure(name, grid, [pool], REACH_S, decides=True)]


def _timed(what: str, folder: Path) -> float:
    """Run this module as a program; return the seconds until it had its result."""
    begun = perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", __name__, what, str(folder)],
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
        check=True,
    )
    return float(done.stdout) - begun


def _first_of_grid(folder: Path) -> float:
    with LocalCluster(folder, lambda home: home) as cluster:  # the account is there already
        daemons = [cluster.add("compute", "--slots", str(SLOTS)), cluster.add("data")]
        for daemon in daemons:
            daemon.launch()

        from alpyne_grid.manager import Manager
        from alpyne_grid.tools.bench.work import nothing

        for daemon in daemons:
            daemon.wait_ready()
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            assert grid.submit(nothing, 1).result() == 1
            return perf_counter()


def _first_of_pool(folder: Path) -> float:
    from concurrent.futures import ProcessPoolExecutor

    from alpyne_grid.tools.bench.work import nothing

    with ProcessPoolExecutor(SLOTS) as pool:
        assert pool.submit(nothing, 1).result() == 1
        return perf_counter()


if __name__ == "__main__":
    first = _first_of_grid if sys.argv[1] == "grid" else _first_of_pool
    print(first(Path(sys.argv[2])))
