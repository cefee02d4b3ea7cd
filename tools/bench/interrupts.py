"""Interrupts on a connection that is full of bulk: put, then get, beside the quiet connection.

The interrupt travels with the bulk while it is put; while it is got its acknowledgement does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter

from alpyne_grid.manager import AsyncManager
from alpyne_grid.tools.bench.figures import Figure, Series, Unit, percentile
from alpyne_grid.tools.bench.setting import Amounts, Setting
from alpyne_grid.tools.bench.yardsticks import make_file
from alpyne_grid.tools.cluster import LocalCluster
from alpyne_grid.wire import Connection

from alpyne_proto.messages.compute import CancelJobs

PAUSE_S = 0.025  # 40 a second: below the 50 that the protocol lets through without a wait
REACH_S = 0.010
RATE_SHARE = 0.8

_Transfer = Callable[[], Awaitable[None]]


def measure(setting: Setting) -> list[Figure]:
    """Measure both directions."""
    return asyncio.run(_measure(setting))


async def _measure(setting: Setting) -> list[Figure]:
    quiet = Series("quiet connection, p99", Unit.MILLISECONDS)
    lines = {
        name: (Series("p99", Unit.MILLISECONDS), Series("rate kept", Unit.PERCENT))
        for name in ("put", "get")
    }
    for run in setting.each_run("interrupt"):
        with setting.cluster(f"interrupt-{run}") as cluster:
            found = await _one_run(cluster, setting.amounts)
        quiet.values.append(found.quiet_s)
        for (p99, kept), (p99_s, share) in zip(lines.values(), found.under_bulk, strict=True):
            p99.values.append(p99_s)
            kept.values.append(share)
    return [
        Figure(
            f"interrupt round trip during {name}, p99",
            p99,
            [quiet, kept],
            REACH_S,
            note=""
            if kept.median >= RATE_SHARE
            else f"the bulk ran at {kept} of its undisturbed rate: less than {RATE_SHARE:.0%}",
        )
        for name, (p99, kept) in lines.items()
    ]


@dataclass(frozen=True, slots=True)
class _Run:
    """One run. ``under_bulk``: for put and get the p99 and the share of the rate that was kept."""

    quiet_s: float
    under_bulk: tuple[tuple[float, float], tuple[float, float]]


async def _one_run(cluster: LocalCluster, amounts: Amounts) -> _Run:
    node = cluster.start("data", "--quota-bytes", "0")
    source, target = cluster.folder / "source", cluster.folder / "target"
    make_file(source, amounts.object_bytes)
    async with AsyncManager.connect([node.address], home=cluster.home) as grid:
        (link,) = grid.core.links.values()
        connection = link.connection
        assert connection is not None, "it was connected a moment ago"
        container = grid.container("figures", copies=1)

        async def put() -> None:
            await container.put("large", source)

        async def get() -> None:
            await container.pull("large", target)

        await put()
        quiet = percentile(await _interrupts(connection, amounts.interrupts), 0.99)
        during_put = await _under_bulk(connection, put, amounts.interrupts)
        during_get = await _under_bulk(connection, get, amounts.interrupts)
        return _Run(quiet, (during_put, during_get))


async def _interrupts(connection: Connection, count: int) -> list[float]:
    """Send interrupts that ask for nothing; return their round trips in seconds."""
    waits = []
    for _ in range(count):
        begun = perf_counter()
        await connection.interrupt(CancelJobs(()))
        waits.append(perf_counter() - begun)
        await asyncio.sleep(PAUSE_S)
    return waits


async def _under_bulk(
    connection: Connection, transfer: _Transfer, count: int
) -> tuple[float, float]:
    """Return the p99 under bulk, and the share of its undisturbed rate at which the bulk ran."""
    alone = await _timed(transfer)
    sending = asyncio.ensure_future(_interrupts(connection, count))
    disturbed = []
    while not sending.done():
        disturbed.append(await _timed(transfer))
    alone = min(alone, await _timed(transfer))
    # The last transfer may have run undisturbed for most of its time: only whole ones count.
    whole = disturbed[:-1] or disturbed
    return percentile(await sending, 0.99), alone / (sum(whole) / len(whole))


async def _timed(transfer: _Transfer) -> float:
    begun = perf_counter()
    await transfer()
    return perf_counter() - begun
