"""Idle daemons with a subscriber: what they hold of memory and use of the processors.

Several of each kind run side by side for the whole time, so that each is a run of its own. Shared
pages make the PSS of many smaller, so one of each kind is also looked at while it runs alone.
Workers are processes of their own and are not counted.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from alpyne_grid.manager import Manager
from alpyne_grid.tools.bench.figures import Figure, Series, Unit
from alpyne_grid.tools.bench.setting import SLOTS, Setting, tell
from alpyne_grid.tools.bench.work import nothing

MEMORY_BYTES = 40e6
CPU_SHARE = 0.005
SETTLE_S = 1.0  # after the first call, before one alone is looked at


@dataclass(slots=True)
class _Kind:
    """The series of one kind of daemon."""

    pss: Series
    cpu: Series
    alone: Series
    private: Series


def measure(setting: Setting) -> list[Figure]:
    """Measure memory and CPU of both kinds."""
    kinds = {kind: _new(kind) for kind in ("compute", "data")}
    amounts = setting.amounts
    with setting.cluster("idle") as cluster:
        first = [cluster.start("compute", "--slots", str(SLOTS)), cluster.start("data")]
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            grid.submit(nothing).result()
            time.sleep(SETTLE_S)
            for daemon in first:
                memory = _memory(daemon.pid)
                kinds[daemon.kind].alone.values.append(memory["Pss"])
        for _ in range(amounts.idle_daemons - 1):
            cluster.start("compute", "--slots", str(SLOTS))
            cluster.start("data")
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            grid.submit(nothing).result()
            before = {daemon.pid: _cpu_s(daemon.pid) for daemon in cluster.daemons}
            begun = time.monotonic()
            tell(f"idle: {len(before)} daemons for {amounts.idle_s:.0f} s")
            time.sleep(amounts.idle_s)
            elapsed_s = time.monotonic() - begun
            for daemon in cluster.daemons:
                kind, memory = kinds[daemon.kind], _memory(daemon.pid)
                kind.cpu.values.append((_cpu_s(daemon.pid) - before[daemon.pid]) / elapsed_s)
                kind.pss.values.append(memory["Pss"])
                kind.private.values.append(memory["Private_Clean"] + memory["Private_Dirty"])
    tell("")
    return [figure for name, kind in kinds.items() for figure in _figures(name, kind)]


def _new(kind: str) -> _Kind:
    return _Kind(
        Series("PSS", Unit.MB),
        Series("CPU", Unit.PERCENT),
        Series("PSS, no other daemons", Unit.MB),
        Series("private (USS)", Unit.MB),
    )


def _figures(name: str, kind: _Kind) -> list[Figure]:
    memory = [kind.private, kind.alone]
    return [
        Figure(f"idle {name} daemon, memory", kind.pss, memory, MEMORY_BYTES, decides=True),
        Figure(f"idle {name} daemon, CPU", kind.cpu, [], CPU_SHARE, decides=True),
    ]


def _memory(pid: int) -> dict[str, float]:
    """Return the sums over a process's mappings, in bytes (proc(5), smaps_rollup)."""
    sums: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        sums[name] = float(value.split()[0]) * 1024
    return sums


def _cpu_s(pid: int) -> float:
    """Return the seconds that all threads of a process have run (proc(5), schedstat)."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9
