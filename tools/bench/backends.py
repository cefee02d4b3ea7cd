"""The same small call through each back end: warm, and the first one of a fresh node."""

import asyncio
from collections.abc import Callable, Mapping
from time import perf_counter

from alpyne_grid.manager import AsyncManager, Manager
from alpyne_grid.tools.bench.calls import TURN, WARM_CALLS, Kind, awaited_calls, connected
from alpyne_grid.tools.bench.figures import Figure, Series, Unit
from alpyne_grid.tools.bench.parts import PartMissing
from alpyne_grid.tools.bench.setting import SLOTS, Setting
from alpyne_grid.tools.cluster import LocalCluster

P50_ABOVE_PROCESS_S = 0.001
PROCESS, BUBBLEWRAP, DOCKER = "process", "process, level 1", "docker"


def nothing() -> Callable[[object], object]:
    """Return a function that travels by value: nothing of ours is installed in an image."""

    def given(value: object = None) -> object:
        return value

    return given


def measure_warm(setting: Setting) -> list[Figure]:
    """Measure calls one after the other, in turns on nodes with each back end."""
    back_ends = _back_ends(setting)
    kinds = {name: Kind(f"call through {name}") for name in back_ends}
    function = nothing()
    with setting.cluster("backends") as cluster, asyncio.Runner() as runner:
        grids = runner.run(_all_connected(cluster, back_ends))

        def in_turn(turn: int) -> None:
            for name, grid in grids.items():
                kinds[name].samples += runner.run(awaited_calls(grid, turn, function))

        in_turn(WARM_CALLS)
        for kind in kinds.values():
            kind.samples.clear()
        for _ in setting.each_run("call through each back end"):
            for begun in range(0, setting.amounts.calls, TURN):
                in_turn(min(TURN, setting.amounts.calls - begun))
            for kind in kinds.values():
                kind.end_run()
        for grid in grids.values():
            runner.run(grid.close())
    process, docker = kinds[PROCESS], kinds[DOCKER]
    figures = [
        Figure(
            "warm call through Docker, p50",
            docker.p50,
            [process.p50, docker.p99, process.p99],
            process.p50.median + P50_ABOVE_PROCESS_S,
            decides=True,
            note="reach: the process back end's p50 + 1 ms",
        )
    ]
    if (sandbox := kinds.get(BUBBLEWRAP)) is not None:
        beside = [process.p50, sandbox.p99, process.p99]
        figures.append(Figure("warm call through bubblewrap, p50", sandbox.p50, beside))
    return figures


def measure_first(setting: Setting) -> list[Figure]:
    """Measure the first call of a node that has just started and is connected, by back end."""
    back_ends = _back_ends(setting)
    series = {name: Series(name, Unit.MILLISECONDS) for name in back_ends}
    for run in setting.each_run("first result of each back end"):
        for number, (name, options) in enumerate(back_ends.items()):
            with setting.cluster(f"first-{run}-{number}") as cluster:
                node = cluster.start("compute", "--slots", str(SLOTS), *options)
                with Manager.connect([node.address], home=cluster.home) as grid:
                    begun = perf_counter()
                    grid.submit(nothing(), run).result()
                    series[name].values.append(perf_counter() - begun)
    docker = series.pop(DOCKER)
    name = "first call of a fresh node through Docker: container created, result back"
    return [Figure(name, docker, list(series.values()))]


def _back_ends(setting: Setting) -> Mapping[str, list[str]]:
    """Return the options of each back end that is here. Raises PartMissing without Docker."""
    found = {PROCESS: [], DOCKER: setting.parts.docker()}
    try:
        return {**found, BUBBLEWRAP: setting.parts.bubblewrap()}
    except PartMissing:
        return found


async def _all_connected(
    cluster: LocalCluster, back_ends: Mapping[str, list[str]]
) -> dict[str, AsyncManager]:
    grids = {}
    for name, options in back_ends.items():
        node = cluster.start("compute", "--slots", str(SLOTS), *options)
        grids[name] = await connected(node.address, cluster.home)
    return grids
