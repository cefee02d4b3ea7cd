"""A whole grid in virtual time: the three pure cores, and disks, wires and programs that may fail.

    GridTable  <-- wires that delay, partition, break -->  JobTable x n  <-- wires -->  ObjectTable

What travels is bytes: every message is encoded by its sender and decoded by its receiver. What a
core stores is on its disk when the simulator says so, and its report may be late, refused, or never
come because the node crashed in between. There is no socket, thread, file or clock; all chance
comes from one seed. Rules that must hold at every step are asserted where the step is made.
"""

import hashlib
import heapq
import json
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.grid_table import GridTable
from alpyne_grid.manager.journal import Kind, Record
from alpyne_grid.manager.placement import NodeFacts
from alpyne_grid.nodes.compute import job_events as jev
from alpyne_grid.nodes.compute.admission import ROW_BYTES, Offer
from alpyne_grid.nodes.compute.backends.base import Execution, TaskEnd
from alpyne_grid.nodes.compute.job import Job, Now, Result
from alpyne_grid.nodes.compute.job_table import JobTable
from alpyne_grid.nodes.data import events as oev
from alpyne_grid.nodes.data import records as rec
from alpyne_grid.nodes.data.object_table import ObjectTable

from alpyne_proto.codec import RowReader, decode, decode_as, encode, encode_row, join_row, read_rows
from alpyne_proto.container import container_id
from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages import compute as cm
from alpyne_proto.messages import data as dm
from alpyne_proto.messages.compute import Cause, JobState, Verdict
from alpyne_proto.messages.control import BodyDigest, Done, Error, RowsFollow
from alpyne_proto.registry import Message, Shape

OWNER = b"o" * 32
JOURNAL = b"journal."
BOX = container_id(OWNER, "results")
WALL_MS = 1_700_000_000_000
TICK_S = 0.1
EVENT_ROWS = (cm.JobEvent.SPEC.code, cm.LoadEvent.SPEC.code, cm.EventGap.SPEC.code)
REQUESTS = (Shape.REQUEST, Shape.INTERRUPT)
ORDER_S = 0.01  # until a program stands still, or goes on


@dataclass(frozen=True)
class Script:
    """What a job's program does; it travels in the job's payload."""

    work_s: float = 0.1
    writes: bool = True
    ends: str = "DONE"
    cause: str = "NONE"
    result_bytes: int = 8
    ignores_refusals: bool = False  # a program that goes on after a write was refused

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Script":
        return cls(**json.loads(payload))


def job_id(number: int) -> bytes:
    """Return the id of the manager's job with this counter."""
    return JOURNAL + number.to_bytes(8, "big")


def path_of(job: bytes) -> str:
    """Return where a job writes its object."""
    return f"out/{int.from_bytes(job[8:], 'big')}"


@dataclass
class Delays:
    """How slow the world is, in seconds from and to."""

    delay_s: tuple[float, float] = (0.001, 0.01)
    commit_s: tuple[float, float] = (0.001, 0.01)
    notice_s: tuple[float, float] = (0.01, 0.5)  # until a side sees that its connection is dead
    pace: tuple[float, float] = (1.0, 1.0)  # by which an execution's work takes longer


class Grid:
    """The world: virtual time, wires, parties. ``run(seconds)`` lets it go on."""

    def __init__(
        self, seed: int = 0, *, compute: int = 2, data: int = 1, slots: int = 2,
        delays: Delays | None = None,
    ) -> None:  # fmt: skip
        self.random = Random(seed)
        self.delays = Delays()
        self.now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.cut: set[frozenset[str]] = set()
        self.wires: list[Wire] = []
        self.data = [DataNode(self, f"data{n}") for n in range(data)]
        self.compute = [ComputeNode(self, f"compute{n}", slots) for n in range(compute)]
        self.manager = Manager(self)
        self.run(0.2)  # all is connected, and the container stands, before anything is slow
        self.delays = delays or self.delays

    # --- time -------------------------------------------------------------------------------

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have ``what`` happen later."""
        self._order += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._order, what))

    def chance(self, between: tuple[float, float]) -> float:
        """Return a random number of seconds."""
        return self.random.uniform(*between)

    def run(self, seconds: float = 0.0, *, until: Callable[[], bool] | None = None) -> None:
        """Let ``seconds`` pass, or at most so many until ``until`` holds."""
        end = self.now + seconds
        while not (until is not None and until()):
            if not self._agenda or self._agenda[0][0] > end:
                assert until is None, f"it did not happen within {seconds} s"
                self.now = end
                return
            self.now, _, what = heapq.heappop(self._agenda)
            what()

    # --- faults -----------------------------------------------------------------------------

    def partition(self, one: "Party", other: "Party") -> None:
        """Let nothing through between two parties until ``heal``."""
        pair = frozenset((one.name, other.name))
        self.cut.add(pair)
        for wire in self.wires:
            if wire.pair == pair:
                wire.fail()

    def heal(self) -> None:
        """Let everything through again."""
        self.cut.clear()
        for wire in list(self.wires):
            wire.flow()

    def break_wires(self, one: "Party", other: "Party") -> None:
        """Reset the connections between two parties; they can connect again at once."""
        for wire in self.wires:
            if wire.pair == frozenset((one.name, other.name)):
                wire.fail()

    def is_cut(self, one: "Party", other: "Party") -> bool:
        return frozenset((one.name, other.name)) in self.cut


class Party:
    """Whoever has connections."""

    def __init__(self, grid: Grid, name: str) -> None:
        self.grid = grid
        self.name = name
        self.key = name.encode().ljust(32, b"_")
        self.alive = True
        self.life = 0  # things that a crashed life had begun must not reach the next one

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Have ``what`` happen unless the party has crashed by then."""
        life = self.life
        self.grid.after(seconds, lambda: what() if self.alive and self.life == life else None)

    def taken(self, wire: "Wire", data: bytes) -> None:
        """Take bytes that came over ``wire``."""

    def lost(self, wire: "Wire") -> None:
        """Notice that ``wire`` is dead."""

    def die(self) -> None:
        self.alive = False
        self.life += 1
        for wire in self.grid.wires[:]:
            if self in wire.open:
                wire.open.discard(self)
                wire.fail()


class Wire:
    """One connection. What was sent arrives while the receiving side holds it for open.

    ``stream`` keeps its messages in order, as a stream does; different ones overtake each other.
    """

    def __init__(self, grid: Grid, one: Party, other: Party) -> None:
        self.grid = grid
        self.ends = (one, other)
        self.pair = frozenset((one.name, other.name))
        self.open = {one, other}
        self._stuck: list[tuple[Party, bytes]] = []
        self._last: dict[tuple[Party, str], float] = {}
        grid.wires.append(self)

    def send(self, sender: Party, data: bytes, stream: str = "") -> None:
        """Send one message; lost where the sender's side is closed."""
        if sender not in self.open:
            return
        to = self.ends[0] if sender is self.ends[1] else self.ends[1]
        at = self.grid.now + self.grid.chance(self.grid.delays.delay_s)
        if stream:
            at = max(at, self._last.get((to, stream), 0.0))
            self._last[to, stream] = at
        self.grid.after(at - self.grid.now, lambda: self._arrive(to, data))

    def _arrive(self, to: Party, data: bytes) -> None:
        if self.grid.is_cut(*self.ends):
            self._stuck.append((to, data))
        elif to in self.open and to.alive:
            to.taken(self, data)

    def flow(self) -> None:
        """Deliver what a partition held up, where its receiver still waits for it."""
        stuck, self._stuck = self._stuck, []
        for to, data in stuck:
            self.grid.after(0.0, lambda to=to, data=data: self._arrive(to, data))  # type: ignore[misc]

    def fail(self) -> None:
        """Let both sides notice, each in its time, that the connection is dead."""
        for side in [end for end in self.ends if end in self.open]:
            wait = self.grid.chance(self.grid.delays.notice_s)
            self.grid.after(wait, lambda side=side: self._noticed(side))  # type: ignore[misc]
        if not self.open and self in self.grid.wires:
            self.grid.wires.remove(self)

    def _noticed(self, side: Party) -> None:
        if side in self.open:
            self.open.discard(side)
            if not self.open and self in self.grid.wires:
                self.grid.wires.remove(self)
            if side.alive:
                side.lost(self)


def packed(message: Message, body: bytes = b"", *, tag: int = 0) -> bytes:
    """Return one message on a wire: ``tag`` ties an answer to its request."""
    meta = encode(message)
    return tag.to_bytes(4, "big") + len(meta).to_bytes(2, "big") + meta + body


def unpacked(data: bytes, shapes: Iterable[Shape]) -> tuple[int, Message, bytes]:
    """Return tag, message and body."""
    end = 6 + int.from_bytes(data[4:6], "big")
    return int.from_bytes(data[:4], "big"), decode(data[6:end], shapes, lenient=True), data[end:]


# --- stores ---------------------------------------------------------------------------------------


class Disk:
    """Commits in order, each after a while; the report comes after that, or never."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._free_at = 0.0
        self.held = False  # commits wait for ``release``
        self.fails = 0.0  # which part of the commits is refused
        self._waiting: deque[tuple[Callable[[], None], Callable[[bool], None]]] = deque()
        self.refuse_next = 0

    def commit(self, apply: Callable[[], None], report: Callable[[bool], None]) -> None:
        """Do ``apply`` durably, then ``report(True)``; or only ``report(False)``."""
        if self.held:
            self._waiting.append((apply, report))
            return
        grid, party = self._party.grid, self._party
        self._free_at = max(grid.now, self._free_at) + grid.chance(grid.delays.commit_s)

        def done() -> None:
            fails = self.refuse_next > 0 or grid.random.random() < self.fails
            self.refuse_next = max(0, self.refuse_next - 1)
            if not fails:
                apply()
            party.later(grid.chance((0.0, 0.003)), lambda: report(not fails))

        party.later(self._free_at - grid.now, done)

    def release(self) -> None:
        """Commit what was held up."""
        self.held = False
        while self._waiting:
            self.commit(*self._waiting.popleft())

    def crash(self) -> None:
        """Lose what was not committed."""
        self._waiting.clear()
        self._free_at = 0.0


# --- the manager ----------------------------------------------------------------------------------


class Manager(Party):
    """GridTable with its links and journal."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid, "manager")
        self.table = GridTable()
        self.disk = Disk(self)
        self.journal: list[Record] = []
        self.delivered: dict[bytes, g.Outcome] = {}
        self.abandoned: set[bytes] = set()
        self.accepted: set[bytes] = set()  # jobs that the program was told are safe
        self.scripts: dict[bytes, Script] = {}
        self.links: dict[bytes, ComputeLink] = {}
        self._ticking = False
        for data in grid.data:
            members = tuple(each.key for each in grid.data)
            message = dm.PutContainer(BOX, "results", len(members), members, 1, b"w" * 16)
            Wire(grid, self, data).send(self, packed(message))
        for node in grid.compute:
            self.links[node.key] = ComputeLink(self, node)

    def submit(self, *scripts: Script, **plan: Any) -> list[bytes]:
        """Submit jobs; return their ids."""
        ids = [job_id(len(self.scripts) + n + 1) for n in range(len(scripts))]
        self.scripts.update(zip(ids, scripts, strict=True))
        self.handle(g.JobsAdded(tuple(g.Plan(each, kind="f", **plan) for each in ids)))
        return ids

    def cancel(self, job: bytes) -> None:
        """Have a job ended."""
        self.handle(g.CancelAsked(job))

    def suspend(self, job: bytes) -> None:
        """Have a job pause."""
        self.handle(g.SuspendAsked(job))

    def resume(self, job: bytes) -> None:
        """Let a job go on."""
        self.handle(g.ResumeAsked(job))

    def handle(self, *events: g.Event) -> None:
        for effect in self.table.handle_all(events, self.grid.now):
            getattr(self, f"on_{type(effect).__name__}")(effect)
        for link in self.links.values():
            link.flush()
        self._check()
        if self.table.wants_ticks and not self._ticking:
            self._ticking = True
            self.later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self.handle(g.Tick())

    def _check(self) -> None:
        for node in self.table.nodes.values():
            assert node.cpus_out == len(node.jobs)
            assert all(self.table.jobs[each].node == node.key for each in node.jobs)

    def records(self, kind: Kind, job: bytes) -> list[tuple[int, int]]:
        """Return the executions that the journal names for a job."""
        counter = int.from_bytes(job[8:], "big")
        return [r[2:4] for r in self.journal if (r.kind, r.counter) == (kind, counter)]

    # --- effects ---

    def on_Send(self, effect: g.Send) -> None:  # noqa: N802
        if effect.allocation > 1:  # else two managers of one journal could mint the same one
            minted = [allocation for allocation, _ in self.records(Kind.ALLOCATED, effect.job_id)]
            assert effect.allocation in minted, "sent before its allocation was stored"
        self.links[effect.node].submissions.append((effect.job_id, effect.allocation))

    def on_Store(self, effect: g.Store) -> None:  # noqa: N802
        def report(stored: bool) -> None:
            self.handle(
                g.Stored(effect.job_id) if stored else g.StoreFailed(effect.job_id, "disk full")
            )

        self.disk.commit(lambda: self.journal.append(effect.record), report)

    def on_Deliver(self, effect: g.Deliver) -> None:  # noqa: N802
        job, outcome = effect.job_id, effect.outcome
        assert job not in self.delivered and job not in self.abandoned, "a second result"
        epoch = outcome.allocation, outcome.attempt
        assert self.records(Kind.SETTLED, job) == [epoch], "delivered before it was settled"
        if outcome.from_node and outcome.state is JobState.DONE:
            assert len(outcome.body) == self.scripts[job].result_bytes
        self.delivered[job] = outcome

    def on_Abandon(self, effect: g.Abandon) -> None:  # noqa: N802
        assert effect.job_id not in self.delivered
        self.abandoned.add(effect.job_id)

    def on_Settle(self, effect: g.Settle) -> None:  # noqa: N802
        row = cm.SettleRow(effect.job_id, effect.allocation, effect.attempt)
        self.links[effect.node].settling[effect.job_id] = row

    def on_Fetch(self, effect: g.Fetch) -> None:  # noqa: N802
        self.links[effect.node].fetch(effect)

    def on_Cancel(self, effect: g.Cancel) -> None:  # noqa: N802
        self.links[effect.node].orders.append(cm.CancelJobs((effect.job_id,)))

    def on_Suspend(self, effect: g.Suspend) -> None:  # noqa: N802
        self.links[effect.node].orders.append(cm.SuspendJobs((effect.job_id,)))

    def on_Resume(self, effect: g.Resume) -> None:  # noqa: N802
        self.links[effect.node].orders.append(cm.ResumeJobs((effect.job_id,)))

    def on_Changed(self, effect: g.Changed) -> None:  # noqa: N802
        if effect.accepted:
            self.accepted.add(effect.job_id)

    def taken(self, wire: Wire, data: bytes) -> None:
        for link in self.links.values():
            if link.wire is wire:
                link.taken(data)

    def lost(self, wire: Wire) -> None:
        for link in self.links.values():
            if link.wire is wire:
                link.down()


class ComputeLink:
    """What the manager says to one compute node, as its shell does."""

    def __init__(self, manager: Manager, node: "ComputeNode") -> None:
        self.manager, self.node, self.grid = manager, node, manager.grid
        self.wire: Wire | None = None
        self.submissions: list[tuple[bytes, int]] = []
        self.settling: dict[bytes, cm.SettleRow] = {}
        self.orders: list[Message] = []
        self._sequence = 0
        self._reader = RowReader(EVENT_ROWS)
        self._seen: tuple[bytes, int] | None = None
        self._tags = 0
        self._asked: dict[int, Callable[[Message, bytes], None]] = {}
        self._dial()

    def _dial(self) -> None:
        if self.wire is None and self.node.alive and not self.grid.is_cut(self.manager, self.node):
            self._up(Wire(self.grid, self.manager, self.node))
        elif self.wire is None:
            self.manager.later(0.1, self._dial)

    def _up(self, wire: Wire) -> None:
        self.wire, node = wire, self.node
        fresh = self._seen is not None and self._seen[0] != node.store_id
        self._seen = node.store_id, node.generation
        if fresh:
            self._sequence = 0
        self._reader = RowReader(EVENT_ROWS)
        facts = NodeFacts(node.name, node.table.counts().slots)
        self.manager.handle(g.NodeUp(node.key, facts, fresh))
        message = cm.Subscribe(cm.SUBSCRIBE_JOBS | cm.SUBSCRIBE_LOAD, JOURNAL, self._sequence)
        self._ask(message, b"", lambda answer, body: None)

    def down(self) -> None:
        """Take note that the connection is lost, and dial again."""
        self.wire = None
        self._asked.clear()
        self.manager.handle(g.NodeDown(self.node.key))
        self.manager.later(0.1, self._dial)

    def _ask(self, message: Message, body: bytes, then: Callable[[Message, bytes], None]) -> None:
        if self.wire is not None:
            self._tags += 1
            self._asked[self._tags] = then
            self.wire.send(self.manager, packed(message, body, tag=self._tags))

    def flush(self) -> None:
        """Send what the table wants to have sent."""
        sends, self.submissions = self.submissions, []
        orders, self.orders = self.orders, []
        if self.wire is None:
            return
        if sends:
            rows = [
                encode_row(
                    cm.JobSpec(each, allocation, cm.JobForm.CALL, name=f"f {each.hex()}"),
                    self.manager.scripts[each].encode(),
                )
                for each, allocation in sends
            ]
            self._ask(cm.SubmitJobs(len(rows)), b"".join(rows), self._answered)
        for order in orders:
            self.wire.send(self.manager, packed(order))
        if self.settling:
            some, self.settling = self.settling, {}
            body = b"".join(map(encode_row, some.values()))
            wire = self.wire

            def unsettled() -> None:  # no answer came: they go over the next connection
                if self.wire is not wire:
                    for each, row in some.items():
                        self.settling.setdefault(each, row)
                elif some:
                    self.manager.later(0.5, unsettled)

            self._ask(cm.SettleJobs(len(some)), body, lambda answer, _: self._settled(some, answer))
            self.manager.later(0.5, unsettled)

    def _settled(self, some: dict[bytes, cm.SettleRow], answer: Message) -> None:
        if isinstance(answer, Error):  # the node's disk refused them
            again = dict(some)
            self.manager.later(0.5, lambda: self.settling.update({**again, **self.settling}))
        some.clear()

    def _answered(self, answer: Message, body: bytes) -> None:
        for row, _ in read_rows(body, (cm.JobAnswer.SPEC.code,)):
            assert isinstance(row, cm.JobAnswer)
            self.manager.handle(
                g.JobAnswered(
                    self.node.key, row.job_id, row.verdict, row.code, row.text, row.retryable,
                    row.retry_after_ms / 1000,
                )
            )  # fmt: skip

    def fetch(self, effect: g.Fetch) -> None:
        """Get a large result."""
        key, job, epoch = effect.node, effect.job_id, (effect.allocation, effect.attempt)

        def then(answer: Message, body: bytes) -> None:
            got = isinstance(answer, cm.ResultFollows) and (answer.allocation, answer.attempt)
            if isinstance(answer, cm.ResultFollows) and got == epoch:
                self.manager.handle(g.ResultFetched(key, job, *epoch, body, answer.sha256))
            else:
                self.manager.handle(g.FetchFailed(key, job, *epoch, "not there"))

        self._ask(cm.GetResult(job), b"", then)

    def taken(self, data: bytes) -> None:
        """Take an answer, or rows of the subscription (tag 0)."""
        if data[:4] == bytes(4):
            events: list[g.Event] = []
            for row, body in self._reader.feed(data[4:]):
                if isinstance(row, cm.JobEvent):
                    self._sequence = row.sequence
                    events.append(g.JobChanged(self.node.key, row, body))
                elif isinstance(row, cm.LoadEvent):
                    key = self.node.key
                    events.append(g.LoadChanged(key, row.slots, row.queued, row.load, row.score))
            self.manager.handle(*events)
            return
        tag, answer, body = unpacked(data, (Shape.RESPONSE,))
        then = self._asked.pop(tag, None)
        if then is not None:
            then(answer, body)


# --- compute nodes --------------------------------------------------------------------------------


@dataclass
class JobRows:
    """The tables of a compute node's store."""

    jobs: dict[int, tuple[bytes, bytes, bytes, int]] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    ends: dict[int, jev.JobFinished] = field(default_factory=dict)
    marks: dict[int, jev.JobMarked] = field(default_factory=dict)

    def apply(self, writes: Sequence[jev.Write]) -> None:
        for write in writes:
            if isinstance(write, jev.JobAdded):
                spec = encode(write.spec)
                self.jobs[write.number] = (
                    write.account,
                    spec,
                    write.payload,
                    write.submitted_at_ms,
                )
            elif isinstance(write, jev.JobFinished):
                self.ends[write.number] = write
            elif isinstance(write, jev.JobMarked):
                self.marks[write.number] = write
            elif isinstance(write, jev.AttemptsRaised):
                for number in self.jobs.keys() - self.ends.keys():
                    self.attempts[number] = self.attempts.get(number, 1) + 1
            else:
                for number in write.numbers:
                    for table in (self.jobs, self.attempts, self.ends, self.marks):
                        table.pop(number, None)

    def load(self) -> tuple[Job, ...]:
        """Return the jobs of a daemon that starts: of each id the highest allocation."""
        newest: dict[bytes, Job] = {}
        for table in (self.ends, self.marks, self.attempts):
            for number in table.keys() - self.jobs.keys():
                del table[number]
        for number in sorted(self.jobs):
            job = self._job(number)
            known = newest.get(job.spec.job_id)
            if known is not None and known.spec.allocation > job.spec.allocation:
                job, known = known, job
            newest[job.spec.job_id] = job
            if known is not None:
                self.apply([jev.JobsDropped((known.number,))])
        return tuple(sorted(newest.values(), key=lambda job: job.number))

    def _job(self, number: int) -> Job:
        account, meta, payload, at_ms = self.jobs[number]
        spec = decode_as(meta, cm.JobSpec, lenient=True)
        kept = len(payload) + ROW_BYTES
        job = Job(number, account, spec, at_ms, kept, attempt=self.attempts.get(number, 1))
        end, mark = self.ends.get(number), self.marks.get(number)
        if end is not None:
            job.attempt, job.state, job.cause = end.attempt, end.state, end.cause
            job.sequence, job.finished_at_ms, job.end = end.sequence, end.finished_at_ms, end.end
            job.result = end.result._replace(data=b"")
            job.bytes_kept += end.result.size
        if end is not None and mark is not None:
            job.settled, job.settled_at_ms = mark.settled, mark.settled_at_ms
        return job

    def holds(self, job: bytes, allocation: int) -> bool:
        """Return whether the job is durable under this allocation, or under a higher one."""
        specs = (decode_as(row[1], cm.JobSpec, lenient=True) for row in self.jobs.values())
        return any(s.job_id == job and s.allocation >= allocation for s in specs)


@dataclass
class Running:
    """An execution at work. ``program`` yields seconds, gates and puts."""

    execution: Execution
    program: Generator[Any, Any, TaskEnd]
    script: Script
    cancelled: bool = False
    paused: bool = False
    held: tuple[Any] | None = None


@dataclass
class Subscriber:
    """One subscription's stream: the last state of each job that it has not been told."""

    wire: Wire
    waiting: OrderedDict[int, Job] = field(default_factory=OrderedDict)
    flushing: bool = False


class ComputeNode(Party):
    """JobTable with its store, back end and subscribers."""

    def __init__(self, grid: Grid, name: str, slots: int) -> None:
        super().__init__(grid, name)
        self.slots = slots
        self.disk = Disk(self)
        self.rows = JobRows()
        self.results: dict[tuple[int, int], bytes] = {}  # files, durable before the table knows
        self.store_id = f"{name} 0".encode()
        self.generation = 0
        self.gates: set[str] = set()  # steps at which programs wait for ``open_gate``
        self.parked: list[tuple[str, Running]] = []
        self.begun: list[Execution] = []
        self.ended: list[tuple[Execution, TaskEnd]] = []
        self.refusals: list[Error] = []  # of writes, as the jobs were told
        self.pauses = 0
        self._start()

    # --- life ---

    def _start(self) -> None:
        self.alive = True
        self.generation += 1
        offer = Offer(slots=self.slots, attributes={"suspend": "signals"})
        self.table = JobTable(offer, slots=self.slots, sequence_base=self.generation << 40)
        self.running: dict[Execution, Running] = {}
        self.subscribers: list[Subscriber] = []
        self._requests: dict[int, tuple[Wire, int]] = {}
        self._last_request = 0
        self._puts: dict[Wire, tuple[Running, Any]] = {}
        self._timer_at: float | None = None
        self.handle(jev.JobsRestored(self.rows.load()))

    def crash(self, *, restart_after_s: float | None = 0.5, lose_store: bool = False) -> None:
        """Die with all programs; come back with what was committed."""
        self.die()
        self.disk.crash()
        self.running.clear()
        self.parked.clear()
        if lose_store:
            self.rows, self.results, self.generation = JobRows(), {}, 0
            self.store_id = f"{self.name} at {self.grid.now}".encode()
        if restart_after_s is not None:
            life = self.life
            self.grid.after(restart_after_s, lambda: self._start() if self.life == life else None)

    def handle(self, event: jev.Event) -> None:
        for effect in self.table.handle(event, self._now()):
            getattr(self, f"on_{type(effect).__name__}")(effect)
        self._check()
        due = self.table.next_due_s(self._now())
        if due is not None and (self._timer_at is None or due < self._timer_at):
            self._timer_at = due
            self.later(max(0.0, due - self.grid.now), self._on_timer)

    def _on_timer(self) -> None:
        if self._timer_at is not None and self._timer_at <= self.grid.now + 1e-9:
            self._timer_at = None
            self.handle(jev.TimePassed())

    def _now(self) -> Now:
        return Now(self.grid.now, WALL_MS + int(self.grid.now * 1000))

    def _check(self) -> None:
        assert len(self.running) <= self.slots, "more programs than slots"
        ids = Counter(execution.job_id for execution in self.running)
        assert max(ids.values(), default=0) <= 1, "one job runs twice on one node"
        assert self.table.counts().busy_slots == len(self.running)

    # --- what comes in ---

    def taken(self, wire: Wire, data: bytes) -> None:
        if wire in self._puts:
            run, _ = self._puts.pop(wire)
            wire.open.clear()
            wire.fail()
            self._step(run, unpacked(data, (Shape.RESPONSE,))[1])
            return
        tag, message, body = unpacked(data, REQUESTS)
        if isinstance(message, cm.CancelJobs):
            self.handle(jev.JobsCancelled(OWNER, message.job_ids))
        elif isinstance(message, cm.SuspendJobs):
            self.handle(jev.JobsSuspended(OWNER, message.job_ids))
        elif isinstance(message, cm.ResumeJobs):
            self.handle(jev.JobsResumed(OWNER, message.job_ids))
        elif isinstance(message, cm.SubmitJobs):
            new = tuple(
                jev.NewJob(row, payload)
                for row, payload in read_rows(body, (cm.JobSpec.SPEC.code,))
                if isinstance(row, cm.JobSpec)
            )
            assert len(new) == message.count
            self.handle(jev.JobsSubmitted(self._request(wire, tag), OWNER, new))
        elif isinstance(message, cm.SettleJobs):
            rows = [row for row, _ in read_rows(body, (cm.SettleRow.SPEC.code,))]
            marks = tuple(row for row in rows if isinstance(row, cm.SettleRow))
            self.handle(jev.JobsSettled(self._request(wire, tag), OWNER, marks))
        elif isinstance(message, cm.Subscribe):
            self._subscribe(wire, tag, message)
        elif isinstance(message, cm.GetResult):
            self._send_result(wire, tag, message)

    def lost(self, wire: Wire) -> None:
        self.subscribers = [each for each in self.subscribers if each.wire is not wire]
        waiting = self._puts.pop(wire, None)
        if waiting is not None:
            self._step(waiting[0], None)

    def _request(self, wire: Wire, tag: int) -> int:
        self._last_request += 1
        self._requests[self._last_request] = wire, tag
        return self._last_request

    def _reply(self, request: int, message: Message, body: bytes = b"") -> None:
        wire, tag = self._requests.pop(request)
        wire.send(self, packed(message, body, tag=tag))

    def _subscribe(self, wire: Wire, tag: int, message: cm.Subscribe) -> None:
        wire.send(self, packed(cm.Subscribed(1, self.table.sequence(OWNER)), tag=tag))
        load = cm.LoadEvent(self.slots, len(self.running), self.table.counts().queued)
        wire.send(self, bytes(4) + encode_row(load), "events")
        subscriber = Subscriber(wire)
        self.subscribers.append(subscriber)
        newer = [job for job in self.table.jobs(OWNER) if job.sequence > message.after]
        for job in sorted(newer, key=lambda job: job.sequence):
            self._tell(subscriber, job)

    def _tell(self, subscriber: Subscriber, job: Job) -> None:
        subscriber.waiting[job.number] = job
        subscriber.waiting.move_to_end(job.number)
        if not subscriber.flushing:
            subscriber.flushing = True
            self.later(0.002, lambda: self._flush(subscriber))

    def _flush(self, subscriber: Subscriber) -> None:
        subscriber.flushing = False
        rows = b""
        while subscriber.waiting:
            _, job = subscriber.waiting.popitem(last=False)
            if job.finished and not job.end:
                pass  # as Subscription: replaced, or refused by the store, in the meantime
            elif job.finished:
                rows += join_row(job.end, self._inline(job))
            else:
                spec = job.spec
                event = cm.JobEvent(
                    job.sequence, spec.job_id, spec.allocation, job.attempt, job.announced
                )
                rows += encode_row(event)
        subscriber.wire.send(self, bytes(4) + rows, "events")

    def _inline(self, job: Job) -> bytes:
        result = job.result
        if result is None or not result.in_row:
            return b""
        if len(result.data) == result.size:
            return result.data
        return self.rows.ends[job.number].result.data

    def _send_result(self, wire: Wire, tag: int, message: cm.GetResult) -> None:
        job = self.table.job(OWNER, message.job_id)
        if job is None or job.result is None or not job.finished:
            wire.send(self, packed(Error(ErrorCode.NOT_FOUND), tag=tag))
            return
        body = self.results.get((job.number, job.attempt)) or self._inline(job)
        sha256 = job.result.sha256
        epoch = job.spec.allocation, job.attempt
        head = cm.ResultFollows(job.state, *epoch, job.result.size, sha256)
        wire.send(self, packed(head, body, tag=tag))

    # --- effects ---

    def on_Store(self, effect: jev.Store) -> None:  # noqa: N802
        restores = any(isinstance(write, jev.AttemptsRaised) for write in effect.writes)

        def report(stored: bool) -> None:
            batch = effect.batch
            self.handle(jev.BatchStored(batch) if stored else jev.BatchFailed(batch, "disk full"))
            if restores and not stored:
                self.crash(restart_after_s=1.0)  # a daemon that cannot take over does not serve

        self.disk.commit(lambda: self.rows.apply(effect.writes), report)

    def on_Answer(self, effect: jev.Answer) -> None:  # noqa: N802
        for answer in effect.answers:
            if answer.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE):
                assert self.rows.holds(answer.job_id, 1), "accepted before it was stored"
        rows = [encode_row(answer) for answer in effect.answers]
        self._reply(effect.request, RowsFollow(len(rows)), b"".join(rows))

    def on_Confirm(self, effect: jev.Confirm) -> None:  # noqa: N802
        self._reply(effect.request, Done())

    def on_Refuse(self, effect: jev.Refuse) -> None:  # noqa: N802
        self._reply(effect.request, Error(effect.code, text=effect.text))

    def on_Publish(self, effect: jev.Publish) -> None:  # noqa: N802
        for subscriber in self.subscribers:
            self._tell(subscriber, effect.job)

    def on_DropFiles(self, effect: jev.DropFiles) -> None:  # noqa: N802
        for key in [key for key in self.results if key[0] in effect.numbers]:
            del self.results[key]

    def on_StartTask(self, effect: jev.StartTask) -> None:  # noqa: N802
        job = effect.job
        if job.attempt > 1:
            assert self.rows.attempts.get(job.number) == job.attempt, "began before it was stored"
        payload = effect.payload
        if payload is None:
            payload = self.rows.jobs[job.number][2]
        script = Script.decode(payload)
        run = Running(job.execution, self._program(job.execution, script), script)
        self.running[job.execution] = run
        self.begun.append(job.execution)
        self.later(self.grid.chance((0.0, 0.01)), lambda: self._step(run))

    def on_CancelTask(self, effect: jev.CancelTask) -> None:  # noqa: N802
        run = self.running[effect.execution]
        run.cancelled = True
        self.parked = [each for each in self.parked if each[1] is not run]
        end = TaskEnd(JobState.KILLED, Cause.CANCELLED, ended=1)
        self.later(self.grid.chance((0.0, 0.02)), lambda: self._end(run, end))

    def on_SuspendTask(self, effect: jev.SuspendTask) -> None:  # noqa: N802
        self.later(ORDER_S, lambda: self._pause(effect.execution, pause=True))

    def on_ResumeTask(self, effect: jev.ResumeTask) -> None:  # noqa: N802
        self.later(ORDER_S, lambda: self._pause(effect.execution, pause=False))

    def _pause(self, execution: Execution, *, pause: bool) -> None:
        run = self.running.get(execution)
        if run is None or run.cancelled or run.paused is pause:
            return
        run.paused = pause
        self.pauses += pause
        self.handle((jev.ExecutionSuspended if pause else jev.ExecutionResumed)(execution))
        if not pause and run.held is not None:
            held, run.held = run.held, None
            self._step(run, *held)

    # --- programs ---

    def _program(self, execution: Execution, script: Script) -> Generator[Any, Any, TaskEnd]:
        yield "start"
        self.handle(jev.ExecutionStarted(execution))
        yield script.work_s * self.grid.chance(self.grid.delays.pace)
        if script.writes:
            for data in self.grid.data:
                yield "write"
                answer = yield data
                if not isinstance(answer, dm.ObjectInfo):
                    if isinstance(answer, Error):
                        self.refusals.append(answer)
                    if not script.ignores_refusals:
                        return TaskEnd(JobState.FAILED, Cause.EXCEPTION, "the write failed")
        yield "end"
        return TaskEnd(JobState[script.ends], Cause[script.cause])

    def _step(self, run: Running, value: Any = None) -> None:
        if run.cancelled or self.running.get(run.execution) is not run:
            return
        if run.paused:
            run.held = (value,)  # what it waited for has come: it goes on with that
            return
        try:
            wish = run.program.send(value)
        except StopIteration as stop:
            self._end(run, stop.value)
            return
        if isinstance(wish, DataNode):
            self._put(run, wish)
        elif isinstance(wish, float):
            self.later(wish, lambda: self._step(run))
        elif wish in self.gates:
            self.parked.append((wish, run))
        else:
            self.later(0.0, lambda: self._step(run))

    def open_gate(self, name: str) -> None:
        """Let programs pass a step at which they wait."""
        self.gates.discard(name)
        going = [run for gate, run in self.parked if gate == name]
        self.parked = [each for each in self.parked if each[0] != name]
        for run in going:
            self._step(run)

    def waits_at(self, name: str) -> bool:
        """Return whether a program waits at a step."""
        return any(gate == name for gate, _ in self.parked)

    def _put(self, run: Running, data: "DataNode") -> None:
        if not data.alive:
            self.later(0.01, lambda: self._step(run))
            return
        _, job, allocation, attempt = run.execution
        body = b"bytes of " + job
        message = dm.PutObject(
            BOX, path_of(job), allocation << 32 | attempt, hashlib.sha256(job).digest()[:16],
            len(body), job_id=job, allocation=allocation, attempt=attempt,
        )  # fmt: skip
        wire = Wire(self.grid, self, data)
        self._puts[wire] = run, data
        trailer = encode(BodyDigest(hashlib.sha256(body).digest()))
        wire.send(self, packed(message, len(body).to_bytes(4, "big") + body + trailer))
        if self.grid.is_cut(self, data):
            wire.fail()

    def _end(self, run: Running, end: TaskEnd) -> None:
        execution = run.execution
        if self.running.pop(execution, None) is None:
            return
        self.ended.append((execution, end))
        size = run.script.result_bytes if end.state is JobState.DONE else 0
        data = bytes(size)
        in_row = size <= 64
        job = self.table.live(execution)
        if not in_row and job is not None:
            self.results[job.number, execution.attempt] = data
        sha256 = hashlib.sha256(data).digest()
        result = Result(size, sha256, in_row, data if in_row else b"")
        self.handle(jev.ExecutionEnded(execution, end, result))


# --- data nodes -----------------------------------------------------------------------------------


class DataNode(Party):
    """ObjectTable with its back end."""

    def __init__(self, grid: Grid, name: str) -> None:
        super().__init__(grid, name)
        self.disk = Disk(self)
        self.boxes: dict[bytes, rec.Descriptor] = {}
        self.objects: dict[rec.ObjectKey, rec.ObjectRecord] = {}
        self.old: list[rec.ObjectRecord] = []
        self.fences: dict[bytes, tuple[int, int]] = {}
        self.accepted: list[rec.JobEpoch] = []  # executions whose writes were acknowledged
        self._start()

    def _start(self) -> None:
        self.alive = True
        self.table = ObjectTable({OWNER: self.usage()})
        self._asked: dict[int, tuple[Wire, int, Message, bytes]] = {}
        self._ops = 0

    def usage(self) -> rec.Usage:
        """Return what the disk holds."""
        sizes = [record.size for record in (*self.objects.values(), *self.old)]
        return rec.Usage(sum(sizes), len(sizes) + len(self.boxes))

    def crash(self, *, restart_after_s: float | None = 0.5) -> None:
        """Die; come back with what was committed."""
        self.die()
        self.disk.crash()
        if restart_after_s is not None:
            life = self.life
            self.grid.after(restart_after_s, lambda: self._start() if self.life == life else None)

    def version(self, job: bytes) -> tuple[int, int]:
        """Return the execution whose object stands under the job's path; (0, 0) for none."""
        record = self.objects.get(rec.ObjectKey(OWNER, BOX, path_of(job)))
        counter = record.version.counter if record is not None else 0
        return counter >> 32, counter & 0xFFFFFFFF

    # --- what comes in ---

    def taken(self, wire: Wire, data: bytes) -> None:
        tag, message, body = unpacked(data, REQUESTS)
        self._ops += 1
        op = self._ops
        self._asked[op] = wire, tag, message, body
        if isinstance(message, dm.PutContainer):
            version = rec.Version(message.counter, message.writer)
            descriptor = rec.Descriptor(
                message.container_id, message.name, message.copies, message.members, version
            )
            self.handle(oev.ContainerAsked(op, OWNER, descriptor))
            return
        assert isinstance(message, dm.PutObject)
        key = rec.ObjectKey(OWNER, message.container_id, message.path)
        version = rec.Version(message.counter, message.writer)
        epoch = rec.JobEpoch(message.job_id, message.allocation, message.attempt)
        self.handle(
            oev.PutAsked(op, key, version, message.size, oev.Condition(message.expect), epoch)
        )

    def lost(self, wire: Wire) -> None:
        for op, (of, *_) in list(self._asked.items()):
            if of is wire:
                self.handle(oev.Abandoned(op))

    def handle(self, event: oev.Event) -> None:
        now_ms = WALL_MS + int(self.grid.now * 1000)
        for effect in self.table.handle(event, now_ms):
            getattr(self, f"on_{type(effect).__name__}")(effect)

    def _soon(self, op: int, make: Callable[[], oev.Event]) -> None:
        """Bring an event about ``op`` a little later, unless its requester has gone."""

        def bring() -> None:
            wire = self._asked[op][0]
            if self in wire.open:
                self.handle(make())

        self.later(self.grid.chance((0.0, 0.01)), bring)

    # --- effects ---

    def on_Load(self, effect: oev.Load) -> None:  # noqa: N802
        found = rec.Found(
            effect.key.container_id in self.boxes,
            self.objects.get(effect.key),
            self.fences.get(effect.job_id, (0, 0)),
        )  # as of now; told later
        self._soon(effect.op, lambda: oev.Loaded(effect.op, found))

    def on_LoadContainer(self, effect: oev.LoadContainer) -> None:  # noqa: N802
        current = self.boxes.get(effect.container_id)
        self._soon(effect.op, lambda: oev.ContainerLoaded(effect.op, current))

    def on_Receive(self, effect: oev.Receive) -> None:  # noqa: N802
        _, _, message, data = self._asked[effect.op]
        size = int.from_bytes(data[:4], "big")
        body = data[4 : 4 + size]
        digest = decode_as(data[4 + size :], BodyDigest, lenient=True)
        assert isinstance(message, dm.PutObject)
        assert (size, hashlib.sha256(body).digest()) == (message.size, digest.sha256)
        staged = rec.Staged(OWNER, size, digest.sha256, body)
        self._soon(effect.op, lambda: oev.BodyStaged(effect.op, staged))

    def on_Discard(self, effect: oev.Discard) -> None:  # noqa: N802
        assert effect.staged.handle is not None

    def on_Store(self, effect: oev.Store) -> None:  # noqa: N802
        def report(stored: bool) -> None:
            batch = effect.batch
            self.handle(oev.Stored(batch) if stored else oev.StoreFailed(batch))

        self.disk.commit(lambda: self._apply(effect.changes), report)

    def _apply(self, changes: Sequence[rec.Change]) -> None:
        for change in changes:
            if isinstance(change, rec.KeepContainer):
                self.boxes[change.descriptor.container_id] = change.descriptor
            elif isinstance(change, rec.Publish):
                current = self.objects.get(change.key)
                assert change.previous == current, "published over something else than was judged"
                if current is not None:
                    assert change.record.version > current.version, "an object went back"
                    self.old.append(current)
                self.objects[change.key] = change.record
            elif isinstance(change, rec.RaiseFence):
                pair = change.epoch.allocation, change.epoch.attempt
                highest = self.fences.get(change.epoch.job_id, (0, 0))
                assert pair >= highest, "a write was accepted below the highest execution"
                self.fences[change.epoch.job_id] = pair

    def on_Answer(self, effect: oev.Answer) -> None:  # noqa: N802
        wire, tag, message, _ = self._asked[effect.op]
        assert isinstance(message, dm.PutObject)
        key = rec.ObjectKey(OWNER, message.container_id, message.path)
        record = effect.record
        assert self.objects[key].version >= record.version, "acknowledged before it was stored"
        pair = message.allocation, message.attempt
        assert self.fences.get(message.job_id, (0, 0)) >= pair
        self.accepted.append(rec.JobEpoch(message.job_id, *pair))
        info = dm.ObjectInfo(*record.version, record.size, record.sha256)
        wire.send(self, packed(info, tag=tag))

    def on_AnswerContainer(self, effect: oev.AnswerContainer) -> None:  # noqa: N802
        assert effect.descriptor.container_id in self.boxes, "acknowledged before it was stored"

    def on_Refuse(self, effect: oev.Refuse) -> None:  # noqa: N802
        wire, tag, *_ = self._asked[effect.op]
        wire.send(self, packed(Error(effect.code, text=effect.text), tag=tag))
