"""What a manager did, for the table at the end of a run."""

from collections import Counter
from dataclasses import dataclass

from alpyne_grid.manager.core import GridCore

from alpyne_proto.address import key_to_text
from alpyne_proto.messages.hello import NodeKind


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """One node. Counts are of jobs (chunks of maps); bytes are encrypted, headers included.

    ``lost``: how often it was gone for too long. ``moved``: jobs that left it for that.
    ``fenced``: results of it that counted no more. ``busy_ms``: run time of its jobs.
    """

    key: str
    name: str
    kind: str
    label: str
    is_up: bool
    done: int = 0
    failed: int = 0
    moved: int = 0
    retried: int = 0
    fenced: int = 0
    lost: int = 0
    busy_ms: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    """A manager's whole run so far.

    ``failed_over_reads``: of this program. ``jobs_failed_over_reads``: of its jobs. ``to_compute``,
    ``to_data``: bytes sent to nodes of each kind.
    """

    nodes: tuple[NodeStatistics, ...]
    submitted: int
    done: int
    failed: int
    moved: int
    retried: int
    fenced: int
    failed_over_reads: int
    jobs_failed_over_reads: int
    to_compute: int
    to_data: int
    jobs_read_bytes: int
    jobs_written_bytes: int


def statistics(core: GridCore) -> Statistics:
    """Return what ``core`` did so far."""
    nothing: Counter[str] = Counter()
    nodes = tuple(
        NodeStatistics(
            key=key_to_text(link.key),
            name=link.name,
            kind=link.kind.name.lower() if link.kind is not None else "unknown",
            label=link.label,
            is_up=link.is_up,
            sent_bytes=link.sent_bytes,
            received_bytes=link.received_bytes,
            **{
                name: core.table.per_node.get(link.key, nothing)[name]
                for name in ("done", "failed", "moved", "retried", "fenced", "lost", "busy_ms")
            },
        )
        for link in core.links.values()
    )
    counts = core.table.counts
    links = core.links.values()
    return Statistics(
        nodes=nodes,
        submitted=counts["submitted"],
        done=counts["done"],
        failed=counts["failed"],
        moved=counts["moved"],
        retried=counts["retried"],
        fenced=counts["fenced"],
        failed_over_reads=core.failovers,
        jobs_failed_over_reads=counts["failovers"],
        to_compute=sum(link.sent_bytes for link in links if link.kind is NodeKind.COMPUTE),
        to_data=sum(link.sent_bytes for link in links if link.kind is NodeKind.DATA),
        jobs_read_bytes=counts["read_bytes"],
        jobs_written_bytes=counts["written_bytes"],
    )
