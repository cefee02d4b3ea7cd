"""The table for people and the raw values as JSON."""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alpyne_grid.tools.bench.disk import FileSystem
from alpyne_grid.tools.bench.figures import Figure, Series
from rich.console import Console
from rich.table import Table

_VERDICTS = {True: "met", False: "NOT MET", None: ""}


def machine(disk: FileSystem) -> dict[str, Any]:
    """Return what the figures depend on."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    return {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": model,
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        "system": platform.platform(),
        "python": platform.python_version(),
        "file_system": str(disk),
    }


def print_head(about: dict[str, Any]) -> None:
    """Print what is measured on."""
    load = f", load {about['load'][0]}" if about["load"] else ""
    print(
        f"{about['processor']}, {about['cores']} cores{load}; {about['system']}; "
        f"Python {about['python']}\ndisk: {about['file_system']}\n"
        "real daemons on loopback, encrypted, every acknowledgement durable; medians of all runs"
    )


def print_table(figures: Sequence[Figure], runs: int) -> None:
    """Print the figures; rows that decide are marked with an asterisk."""
    table = Table(box=None, pad_edge=False)
    for head, justify in (
        ("figure", "left"),
        ("median", "right"),
        ("reach", "right"),
        ("", "left"),
        ("yardsticks and what belongs to it", "left"),
    ):
        table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for figure in figures:
        beside = ", ".join(f"{series.name} {series}" for series in figure.yardsticks)
        notes = "; ".join(part for part in (beside, figure.note) if part)
        mark = " *" if figure.decides else ""
        verdict = _VERDICTS[figure.is_met]
        table.add_row(figure.name + mark, str(figure.measured), figure.wanted, verdict, notes)
    console = Console(highlight=False, width=None if os.isatty(1) else 150)
    console.print(table, markup=False)
    print(f"* decides; the others are recorded. {runs} runs; raw values: --json FILE")


def as_json(about: dict[str, Any], figures: Sequence[Figure], runs: int) -> str:
    """Return everything, every run's value included."""
    return json.dumps(
        {
            "machine": about,
            "runs": runs,
            "figures": [
                {
                    "name": figure.name,
                    "decides": figure.decides,
                    "reach": figure.reach,
                    "at_least": figure.at_least,
                    "met": figure.is_met,
                    "note": figure.note,
                    **_series(figure.measured),
                    "yardsticks": [_series(one) for one in figure.yardsticks],
                }
                for figure in figures
            ],
        },
        indent=1,
    )


def _series(series: Series) -> dict[str, Any]:
    """Return a series; values are seconds, counts per second, bytes, bytes per second or shares."""
    return {
        "series": series.name,
        "shown_in": series.unit.value,
        "median": series.median,
        "values": series.values,
    }
