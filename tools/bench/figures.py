"""What is measured: figures of several runs, their medians, and the reach that is aimed at."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Unit(Enum):
    """How a figure is shown; values are kept in seconds, counts per second, bytes or shares."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    PER_SECOND = "/s"
    MB_PER_SECOND = "MB/s"
    MB = "MB"
    PERCENT = "%"


_SHOWN = {
    Unit.SECONDS: (1.0, "{:.2f} s"),
    Unit.MILLISECONDS: (1e3, "{:.2f} ms"),
    Unit.PER_SECOND: (1.0, "{:,.0f}/s"),
    Unit.MB_PER_SECOND: (1e-6, "{:,.0f} MB/s"),
    Unit.MB: (1e-6, "{:.1f} MB"),
    Unit.PERCENT: (1e2, "{:.2f} %"),
}


def shown(value: float, unit: Unit) -> str:
    """Return ``value`` for people."""
    factor, form = _SHOWN[unit]
    return form.format(value * factor)


@dataclass(slots=True)
class Series:
    """One quantity. ``values``: one per run, in the unit's base (s, 1/s, bytes, share)."""

    name: str
    unit: Unit
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return shown(self.median, self.unit)


@dataclass(slots=True)
class Figure:
    """One line of the table: a series, the value to reach, and yardsticks of the same runs.

    ``reach``: in the base unit; None where the line only informs. ``at_least``: whether more is
    better. ``decides``: whether missing it counts; other lines are recorded.
    """

    name: str
    measured: Series
    yardsticks: list[Series] = field(default_factory=list)
    reach: float | None = None
    at_least: bool = False
    decides: bool = False
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches what it should; None where there is nothing to reach."""
        if self.reach is None:
            return None
        median = self.measured.median
        return median >= self.reach if self.at_least else median <= self.reach

    @property
    def wanted(self) -> str:
        """The reach, for people."""
        if self.reach is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {shown(self.reach, self.measured.unit)}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that ``share`` of ``values`` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
