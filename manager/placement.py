"""Where a job may run, and where it should: requirements, locality, score, queue, pipeline.

Pure: GridTable owns the nodes and asks. A node's *pipeline* holds the jobs that were sent to it and
have not finished; it is kept just deep enough that the node never waits for the manager.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from alpyne_proto.messages.access import NodeStatus
from alpyne_proto.messages.compute import Requirement
from alpyne_proto.offer import NOTHING, Asked, unkept, unmet

PER_SLOT_MIN = 2  # one runs, one waits: a slot never idles for a round trip
PER_SLOT_MAX = 128
HORIZON_MS = 50.0  # short jobs are sent ahead for about this long
SHORTEST_MS = 0.2  # below the resolution of what nodes report
SMOOTHING = 0.3  # weight of the newest run time
PIPELINE_BYTES = 32 << 20  # of payloads; beyond it only PER_SLOT_MIN are sent ahead
LOCALITY_WAIT_S = 3.0  # how long a job waits for a node beside its data (delay scheduling)


@dataclass(frozen=True, slots=True)
class Wants:
    """What a job asks of its node.

    ``labels``: host labels that hold its data; a node with one of them is preferred. ``only``: keys
    of the nodes that may run it (empty: all). ``without``: nodes that may not. ``trusted``: only
    nodes whose results may be unpickled. ``asked``: what the node must enforce and list.
    """

    requirements: tuple[Requirement, ...] = ()
    python: str = ""
    cpus: int = 1
    labels: frozenset[str] = frozenset()
    only: frozenset[bytes] = frozenset()
    without: frozenset[bytes] = frozenset()
    trusted: bool = False
    asked: Asked = NOTHING


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node said of itself, and what the pool file says of it."""

    name: str
    slots: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    trusted: bool = True
    score: float = 0.0  # one core; 0: unknown
    queued: int = 0  # jobs waiting there, of all accounts
    load: float = 0.0


@dataclass(slots=True)
class Node:
    """A compute node as the table sees it."""

    key: bytes
    facts: NodeFacts
    up: bool = True
    down_since: float = 0.0
    lost: bool = False  # down for longer than the grace
    paused_until: float = 0.0  # it refused work for now
    slots: int = 0
    score: float = 0.0
    queued: int = 0
    load: float = 0.0
    jobs: set[bytes] = field(default_factory=set)  # its pipeline
    cpus_out: int = 0  # slots that the pipeline's jobs take
    bytes_out: int = 0
    zombies: set[bytes] = field(default_factory=set)  # to be cancelled when it is back
    run_ms: dict[str, float] = field(default_factory=dict)  # by kind

    def came_up(self, facts: NodeFacts) -> None:
        """Take what the node says of itself at the start of a connection."""
        self.facts, self.up, self.lost, self.paused_until = facts, True, False, 0.0
        self.slots, self.queued, self.load = facts.slots, facts.queued, facts.load
        self.score = facts.score

    def take(self, job_id: bytes, cpus: int, size: int) -> None:
        """Put a job into the pipeline."""
        self.jobs.add(job_id)
        self.cpus_out += cpus
        self.bytes_out += size

    def give(self, job_id: bytes, cpus: int, size: int) -> bool:
        """Take a job out of the pipeline; False where it was not in it."""
        if job_id not in self.jobs:
            return False
        self.jobs.discard(job_id)
        self.cpus_out -= cpus
        self.bytes_out -= size
        return True

    def learn(self, kind: str, wall_ms: float) -> None:
        """Take the run time of one job of ``kind``."""
        seen = max(wall_ms, SHORTEST_MS)
        before = self.run_ms.get(kind)
        self.run_ms[kind] = seen if before is None else before + SMOOTHING * (seen - before)

    def depth(self, kind: str) -> int:
        """Return how many jobs of ``kind`` may be in the pipeline per slot."""
        run_ms = self.run_ms.get(kind)
        if run_ms is None:
            return PER_SLOT_MIN
        return min(PER_SLOT_MAX, max(PER_SLOT_MIN, int(HORIZON_MS / run_ms)))

    def has_room(self, kind: str, cpus: int, size: int, now: float) -> bool:
        """Return whether one more job may be sent now."""
        if not self.up or now < self.paused_until or self.slots < cpus:
            return False
        if self.cpus_out + cpus <= PER_SLOT_MIN * self.slots:
            return True
        if self.bytes_out + size > PIPELINE_BYTES:
            return False
        return self.cpus_out + cpus <= self.depth(kind) * self.slots


def facts_of(name: str, label: str, trusted: bool, status: NodeStatus) -> NodeFacts:
    """Return what placement knows of a node: what it says of itself, and what the pool says."""
    return NodeFacts(
        name=name,
        slots=status.slots,
        attributes={attribute.name: attribute.value for attribute in status.attributes},
        label=label,
        trusted=trusted,
        score=status.score,
        queued=status.queued,
        load=status.load,
    )


def misfit(facts: NodeFacts, key: bytes, wants: Wants) -> str:
    """Return why the node may not run a job with ``wants``, or "" where it may."""
    if wants.only and key not in wants.only:
        return "not among the nodes asked for"
    if key in wants.without:
        return "refused it"
    if wants.trusted and not facts.trusted:
        return "not a trusted node"
    if facts.slots and wants.cpus > facts.slots:
        return f"has {facts.slots} slots, asked cpus={wants.cpus}"
    pythons = facts.attributes.get("pythons", "")
    if wants.python and wants.python not in pythons.split(","):
        return f"has Python {pythons or 'unknown'}, the code needs {wants.python}"
    lacking = unkept(facts.attributes, wants.asked)
    if lacking:
        return lacking
    return unmet(facts.attributes, wants.requirements)


def beside(nodes: Iterable[Node], labels: Collection[str]) -> list[Node]:
    """Return the nodes whose host label is among ``labels``."""
    return [node for node in nodes if node.facts.label and node.facts.label in labels]


def choose(nodes: Iterable[Node], kind: str, cpus: int, size: int, now: float) -> Node | None:
    """Return the node with room that would finish one more job first, or None.

    The expected wait is its pipeline and the queue of others, over slots times score, stretched by
    its load. Nodes without a score count as the average of those that have one.
    """
    open_nodes = [node for node in nodes if node.has_room(kind, cpus, size, now)]
    if len(open_nodes) < 2:
        return open_nodes[0] if open_nodes else None
    scores = [node.score for node in open_nodes if node.score > 0]
    usual = sum(scores) / len(scores) if scores else 1.0
    return min(open_nodes, key=lambda node: _wait(node, cpus, usual))


def _wait(node: Node, cpus: int, usual_score: float) -> float:
    others = max(0, node.queued - len(node.jobs))
    work = node.cpus_out + cpus + others
    # A pipeline that does not fill the slots yet waits for nothing: what counts then is speed.
    busy = max(0.0, node.load - 1.0) if node.cpus_out == 0 else 0.0
    return work / (max(1, node.slots) * (node.score or usual_score)) * (1.0 + busy)


def heaviest_labels(weights: Mapping[str, int]) -> frozenset[str]:
    """Return the host labels that hold most bytes of a job's objects (more than one on a tie)."""
    most = max(weights.values(), default=0)
    return frozenset(label for label, size in weights.items() if size == most and label)
