"""What all rows share: the folder on a disk, the amounts of work, and daemons to measure."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.bench.parts import Parts
from alpyne_grid.tools.cluster import LocalCluster

SLOTS = 2


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much work a run of each row does."""

    calls: int = 500  # sequential ones
    burst: int = 10_000
    items: int = 100_000
    object_bytes: int = 256 << 20
    interrupts: int = 100  # per phase
    idle_s: float = 60.0
    idle_daemons: int = 5  # of each kind


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how much is measured, and with which parts beyond Python."""

    folder: Path
    runs: int
    amounts: Amounts
    parts: Parts = field(default_factory=Parts)

    @contextmanager
    def cluster(self, name: str) -> Iterator[LocalCluster]:
        """Make a folder for the daemons of one row, and remove it afterwards."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with LocalCluster(folder, create_account) as cluster:
                yield cluster
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def each_run(self, row: str) -> Iterator[int]:
        """Count the runs, and say on standard error which one it is."""
        for run in range(self.runs):
            tell(f"{row}: run {run + 1} of {self.runs}")
            yield run
        tell("")


def tell(text: str) -> None:
    """Show what is being done, in one line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)
