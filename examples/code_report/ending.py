"""The end of the main job: the report, who did what, and whether it is verified."""

from dataclasses import dataclass

import analysis
from alpyne_grid.manager import Statistics
from screen import Screen, megabytes

SHARE_MAX = 0.05  # of the input: what may go from the manager to the compute nodes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. ``names``: daemons by the key of their address."""

    same: bool
    statistics: Statistics
    names: dict[str, str]
    input_bytes: int
    seconds: float

    @property
    def failed_over(self) -> int:
        """Reads that another data node had to finish, of the manager and of the jobs."""
        return self.statistics.failed_over_reads + self.statistics.jobs_failed_over_reads

    @property
    def share(self) -> float:
        """Bytes from the manager to compute nodes, as a part of the input."""
        return self.statistics.to_compute / self.input_bytes


def show(screen: Screen, report: analysis.Report, outcome: Outcome) -> None:
    """Print the report and the tables of the run."""
    _show_report(screen, report)
    screen.table(
        "Times", ("step", "seconds"), [(name, f"{took:.2f}") for name, took in screen.times]
    )
    _show_nodes(screen, outcome)
    statistics = outcome.statistics
    screen.table(
        "Faults and bytes",
        ("what", ""),
        [
            ("jobs moved to another compute node", statistics.moved),
            ("reads failed over, of the manager", statistics.failed_over_reads),
            ("reads failed over, of jobs", statistics.jobs_failed_over_reads),
            ("results of lost executions that were dropped", statistics.fenced),
            ("manager to compute nodes", megabytes(statistics.to_compute)),
            ("  as a part of the input", f"{outcome.share:.2%}"),
            ("manager to data nodes", megabytes(statistics.to_data)),
            ("data nodes to jobs", megabytes(statistics.jobs_read_bytes)),
            ("jobs to data nodes", megabytes(statistics.jobs_written_bytes)),
        ],
    )


def _show_report(screen: Screen, report: analysis.Report) -> None:
    found = analysis.summary(report)
    screen.table(
        "Report",
        ("", ""),
        [
            (name, f"{found[name]:,}")
            for name in ("files", "lines", "tokens", "functions", "classes")
        ],
    )
    screen.table("Most common names", ("name", "times"), found["names"])
    screen.table(
        "Largest modules",
        ("module", "lines", "tokens", "functions", "classes"),
        [(path, *counts) for path, counts in found["largest"]],
    )
    screen.table(
        f"Function bodies that stand in several files: {found['duplicates']}",
        ("copies", "first place", "function"),
        [(len(p), f"{p[0][0]}:{p[0][1]}", p[0][2]) for p in found["most_copied"]],
        left=3,
    )


def _show_nodes(screen: Screen, outcome: Outcome) -> None:
    rows = []
    for node in outcome.statistics.nodes:
        name = outcome.names.get(node.key, node.name)
        state = "up" if node.is_up else "killed"
        jobs = (
            (node.done, node.moved, f"{node.busy_ms / 1000:.1f}")
            if node.kind == "compute"
            else ("", "", "")
        )
        rows.append(
            (name, state, *jobs, megabytes(node.sent_bytes), megabytes(node.received_bytes))
        )
    columns = ("node", "at the end", "jobs done", "moved away", "busy s", "sent to it", "received")
    screen.table("Nodes", columns, sorted(rows), left=2)


def verdict(screen: Screen, outcome: Outcome) -> int:
    """Print whether the run is verified, and why not where it is not; return the exit code."""
    wrong = []
    if not outcome.same:
        wrong.append("the report is not that of the serial run")
    if not outcome.statistics.moved:
        wrong.append("no job was moved, although a compute node was killed")
    if not outcome.failed_over:
        wrong.append("no read failed over, although a data node was killed")
    if outcome.share >= SHARE_MAX:
        wrong.append(
            f"{outcome.share:.1%} of the input went from the manager to the compute nodes, "
            f"expected less than {SHARE_MAX:.0%}"
        )
    screen.say("")
    for text in wrong:
        screen.say(f"wrong: {text}")
    screen.say(f"{'not verified' if wrong else 'verified'} in {outcome.seconds:.1f} s")
    return 1 if wrong else 0
