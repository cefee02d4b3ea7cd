"""GridTable among nodes that fall silent, come back, restart and answer late, in any order."""

import random
from collections import Counter
from dataclasses import dataclass, field

from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.grid_table import LOST_AFTER_S, GridTable
from alpyne_grid.manager.journal import Kind, Record
from alpyne_grid.manager.placement import NodeFacts
from hypothesis import given, settings
from hypothesis import strategies as st

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import Cause, JobEvent, JobState, Verdict

JOBS = 8


@dataclass
class SimNode:
    """A compute node: the highest allocation of each job that it knows, and what it told."""

    key: bytes
    up: bool = True
    inbox: list[tuple[bytes, int]] = field(default_factory=list)  # submissions on their way
    jobs: dict[bytes, tuple[int, JobState]] = field(default_factory=dict)


class Simulation:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.table = GridTable()
        self.now = 0.0
        self.nodes = [SimNode(bytes([65 + n]) * 32) for n in range(3)]
        self.by_key = {node.key: node for node in self.nodes}
        self.to_store: list[g.Store] = []
        self.journal: list[Record] = []
        self.delivered: Counter[bytes] = Counter()
        for node in self.nodes:
            self.come_up(node)
        ids = [b"journal." + n.to_bytes(8, "big") for n in range(1, JOBS + 1)]
        self.ids = ids
        self.feed(g.JobsAdded(tuple(g.Plan(i, kind="f", retries=1) for i in ids)))

    def feed(self, event: g.Event) -> None:
        for effect in self.table.handle(event, self.now):
            self.perform(effect)
        self.check()

    def perform(self, effect: g.Effect) -> None:
        assert not isinstance(effect, g.Misstep)
        if isinstance(effect, g.Send):
            if effect.allocation > 1:
                counter = int.from_bytes(effect.job_id[8:], "big")
                assert (Kind.ALLOCATED, counter, effect.allocation) in {r[:3] for r in self.journal}
            if self.by_key[effect.node].up:
                self.by_key[effect.node].inbox.append((effect.job_id, effect.allocation))
        elif isinstance(effect, g.Store):
            self.to_store.append(effect)
        elif isinstance(effect, g.Deliver):
            self.delivered[effect.job_id] += 1
            counter = int.from_bytes(effect.job_id[8:], "big")
            settled = [r for r in self.journal if r.kind is Kind.SETTLED and r.counter == counter]
            outcome = effect.outcome
            assert [(r.allocation, r.attempt) for r in settled] == [
                (outcome.allocation, outcome.attempt)
            ]
        elif isinstance(effect, g.Suspend | g.Resume):
            node = self.by_key[effect.node]
            before, after = JobState.RUNNING, JobState.SUSPENDED
            if isinstance(effect, g.Resume):
                before, after = after, before
            known = node.jobs.get(effect.job_id)
            if node.up and known is not None and known[1] is before:
                node.jobs[effect.job_id] = (known[0], after)
                self.tell(node, effect.job_id)
        elif isinstance(effect, g.Cancel):
            node = self.by_key[effect.node]
            known = node.jobs.get(effect.job_id)
            if node.up and known is not None and known[1] < JobState.DONE:
                node.jobs[effect.job_id] = (known[0], JobState.KILLED)
                self.tell(node, effect.job_id)

    def check(self) -> None:
        for node in self.table.nodes.values():
            assert node.cpus_out == len(node.jobs)
            assert all(self.table.jobs[i].node == node.key for i in node.jobs)
        assert max(self.delivered.values(), default=0) <= 1

    # --- what may happen ---

    def come_up(self, node: SimNode) -> None:
        node.up = True
        self.feed(g.NodeUp(node.key, NodeFacts(node.key[:1].decode(), 2)))
        for known in list(node.jobs):
            self.tell(node, known)

    def go_down(self, node: SimNode) -> None:
        node.up = False
        node.inbox.clear()
        self.feed(g.NodeDown(node.key))

    def store_one(self) -> None:
        if self.to_store:
            store = self.to_store.pop(0)
            self.journal.append(store.record)
            self.feed(g.Stored(store.job_id))

    def answer_one(self, node: SimNode) -> None:
        if not node.inbox:
            return
        submitted, allocation = node.inbox.pop(0)
        if self.random.random() < 0.1:
            verdict, code = Verdict.REFUSED, ErrorCode.OVERLOADED
        else:
            verdict, code = Verdict.ACCEPTED, ErrorCode.NO_ERROR
            if node.jobs.get(submitted, (0, 0))[0] < allocation:
                node.jobs[submitted] = (allocation, JobState.QUEUED)
        self.feed(g.JobAnswered(node.key, submitted, verdict, code, "", True, 0.1))

    def work(self, node: SimNode) -> None:
        active = [i for i, (_, state) in node.jobs.items() if state < JobState.DONE]
        if not active:
            return
        chosen = self.random.choice(active)
        allocation, state = node.jobs[chosen]
        if state is JobState.SUSPENDED:
            return
        ends = [JobState.DONE, JobState.DONE, JobState.DONE, JobState.FAILED]
        after = JobState.RUNNING if state is JobState.QUEUED else self.random.choice(ends)
        node.jobs[chosen] = (allocation, after)
        self.tell(node, chosen)

    def tell(self, node: SimNode, told: bytes) -> None:
        if not node.up:
            return
        allocation, state = node.jobs[told]
        failure = Cause.NODE if told[-1] % 4 == 0 else Cause.CRASH
        cause = {JobState.FAILED: failure, JobState.KILLED: Cause.CANCELLED}
        row = JobEvent(1, told, allocation, 1, state, cause.get(state, Cause.NONE), inline=True)
        self.feed(g.JobChanged(node.key, row, b"x"))

    def step(self, choice: int) -> None:
        node = self.nodes[choice % len(self.nodes)]
        kind = choice // 4 % 16
        if kind < 4:
            self.answer_one(node)
        elif kind < 9:
            self.work(node)
        elif kind < 12:
            self.store_one()
        elif kind == 12:
            asked = self.random.choice((g.CancelAsked, g.SuspendAsked, g.ResumeAsked))
            self.feed(asked(self.random.choice(self.ids)))
        elif kind == 13:
            self.now += LOST_AFTER_S
            self.feed(g.Tick())
        elif node.up:
            self.go_down(node)
        else:
            self.come_up(node)

    def finish(self) -> None:
        for node in self.nodes:
            if not node.up:
                self.come_up(node)
        for waiting in list(self.table.jobs):
            self.feed(g.ResumeAsked(waiting))
        for _ in range(3000):
            if not self.table.jobs:
                return
            self.now += 0.2
            self.feed(g.Tick())
            self.store_one()
            for node in self.nodes:
                self.answer_one(node)
                self.work(node)
        raise AssertionError(f"not delivered: {self.table.jobs}")


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 2**16), max_size=120))
def test_table_delivers_each_job_exactly_once_whatever_nodes_do(
    seed: int, choices: list[int]
) -> None:
    simulation = Simulation(seed)
    for choice in choices:
        simulation.step(choice)
    simulation.finish()
    assert simulation.delivered == Counter(simulation.ids)
    assert all(not node.jobs and not node.bytes_out for node in simulation.table.nodes.values())
