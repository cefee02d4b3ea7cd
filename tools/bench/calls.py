"""Small calls: one after the other, ten thousand at once, and a map over many items."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Protocol

from alpyne_grid.manager import AsyncManager, Manager
from alpyne_grid.tools.bench.figures import Figure, Series, Unit, percentile
from alpyne_grid.tools.bench.setting import SLOTS, Setting
from alpyne_grid.tools.bench.work import nothing, same
from alpyne_grid.tools.bench.yardsticks import DurableCommit, process_pool

TURN = 50  # calls, or commits, until another kind has its turn
WARM_CALLS = 200  # connections, workers and both interpreters' caches
P50_ABOVE_COMMIT_S = 0.0007
P99_ABOVE_COMMIT_S = 0.004
BURST_PER_S = 4_000
ITEMS_PER_S = 100_000
POOL_CHUNK = 1_000  # items of the pool's map that travel together


def measure_sequential(setting: Setting) -> list[Figure]:
    """Measure calls one after the other, in turns with commits and calls of a process pool."""
    kinds = [
        Kind("call"),
        Kind("durable commit"),
        Kind("ProcessPoolExecutor"),
        Kind("call by the blocking Manager"),
    ]
    with setting.cluster("calls") as cluster, process_pool() as pool:
        node = cluster.start("compute", "--slots", str(SLOTS))
        commit = DurableCommit(cluster.folder / "yardstick.db")
        with (
            Manager.connect([node.address], home=cluster.home) as blocking,
            asyncio.Runner() as runner,
        ):
            grid = runner.run(connected(node.address, cluster.home))

            def in_turn(turn: int) -> list[list[float]]:
                return [
                    runner.run(awaited_calls(grid, turn)),
                    [commit.measure() for _ in range(turn)],
                    [_timed(pool.submit, number) for number in range(turn)],
                    [_timed(blocking.submit, number) for number in range(turn)],
                ]

            in_turn(WARM_CALLS)
            for _ in setting.each_run("sequential call"):
                for begun in range(0, setting.amounts.calls, TURN):
                    turn = min(TURN, setting.amounts.calls - begun)
                    for kind, samples in zip(kinds, in_turn(turn), strict=True):
                        kind.samples += samples
                for kind in kinds:
                    kind.end_run()
            runner.run(grid.close())
        commit.close()
    calls, commits, pools, blockings = kinds
    return [
        Figure(
            "sequential no-op call, p50",
            calls.p50,
            [commits.p50, pools.p50, blockings.p50],
            commits.p50.median + P50_ABOVE_COMMIT_S,
            decides=True,
            note="reach: one durable commit's p50 + 0.7 ms",
        ),
        Figure(
            "sequential no-op call, p99",
            calls.p99,
            [commits.p99, pools.p99, blockings.p99],
            commits.p99.median + P99_ABOVE_COMMIT_S,
            decides=True,
            note="reach: one durable commit's p99 + 4 ms",
        ),
    ]


async def connected(address: str, home: Path) -> AsyncManager:
    """Connect to one node."""
    return await AsyncManager.connect([address], home=home)


async def awaited_calls(
    grid: AsyncManager, count: int, function: Callable[[object], object] = nothing
) -> list[float]:
    """Return the seconds of calls, one after the other."""
    samples = []
    for number in range(count):
        begun = perf_counter()
        await grid.submit(function, number)
        samples.append(perf_counter() - begun)
    return samples


def measure_burst(setting: Setting) -> list[Figure]:
    """Measure many calls submitted at once."""
    rate = Series("calls", Unit.PER_SECOND)
    pool_rate = Series("ProcessPoolExecutor", Unit.PER_SECOND)
    count = setting.amounts.burst
    with setting.cluster("burst") as cluster, process_pool() as pool:
        node = cluster.start("compute", "--slots", str(SLOTS))
        with Manager.connect([node.address], home=cluster.home) as grid:
            for number in range(WARM_CALLS):
                grid.submit(nothing, number).result()
            for _ in setting.each_run("calls at once"):
                begun = perf_counter()
                jobs = [grid.submit(nothing, number) for number in range(count)]
                got = [job.result() for job in jobs]
                rate.values.append(count / (perf_counter() - begun))
                assert got == list(range(count)), "a result is missing or out of order"
                del jobs
                pool_rate.values.append(_pool_burst(pool, count))
    name = f"{count:,} no-op calls submitted at once"
    return [Figure(name, rate, [pool_rate], BURST_PER_S, at_least=True)]


def measure_map(setting: Setting) -> list[Figure]:
    """Measure a map over many small items, in chunks that the manager chooses."""
    rate = Series("items", Unit.PER_SECOND)
    pool_rate = Series("ProcessPoolExecutor", Unit.PER_SECOND)
    count = setting.amounts.items
    with setting.cluster("map") as cluster, process_pool() as pool:
        node = cluster.start("compute", "--slots", str(SLOTS))
        with Manager.connect([node.address], home=cluster.home, progress=False) as grid:
            for number in range(WARM_CALLS):
                grid.submit(nothing, number).result()
            for _ in setting.each_run("map"):
                begun = perf_counter()
                total = sum(grid.map(same, range(count)))
                rate.values.append(count / (perf_counter() - begun))
                assert total == sum(range(count)), "an item is missing or was done twice"
                begun = perf_counter()
                sum(pool.map(same, range(count), chunksize=POOL_CHUNK))
                pool_rate.values.append(count / (perf_counter() - begun))
    name = f"map over {count:,} items"
    return [Figure(name, rate, [pool_rate], ITEMS_PER_S, at_least=True)]


class Kind:
    """The samples of one run, and the percentiles of all."""

    def __init__(self, name: str) -> None:
        """Name what the samples are of."""
        self.samples: list[float] = []
        self.p50 = Series(f"{name}, p50", Unit.MILLISECONDS)
        self.p99 = Series(f"{name}, p99", Unit.MILLISECONDS)

    def end_run(self) -> None:
        """Take the percentiles of the samples, and begin anew."""
        self.p50.values.append(median(self.samples))
        self.p99.values.append(percentile(self.samples, 0.99))
        self.samples = []


class _Promise(Protocol):
    def result(self) -> object: ...


def _timed(submit: Callable[..., _Promise], number: int) -> float:
    """Return the seconds of one call, from its submission to its result."""
    begun = perf_counter()
    submit(nothing, number).result()
    return perf_counter() - begun


def _pool_burst(pool: ProcessPoolExecutor, count: int) -> float:
    begun = perf_counter()
    futures = [pool.submit(nothing, number) for number in range(count)]
    for future in futures:
        future.result()
    return count / (perf_counter() - begun)
