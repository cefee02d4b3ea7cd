"""The object table under any interleaving: nothing goes back, nothing is lost, all end once."""

from collections import Counter

from alpyne_grid.nodes.data import events as ev
from alpyne_grid.nodes.data.object_table import ObjectTable
from alpyne_grid.nodes.data.records import (
    Found,
    JobEpoch,
    ObjectKey,
    ObjectRecord,
    Publish,
    RaiseFence,
    Staged,
    Usage,
    Version,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

OWNER, BOX, JOB = b"o" * 32, b"c" * 16, b"j" * 16
QUOTA = 60
ENDS = (ev.Answer, ev.Refuse)


class TableMachine(RuleBasedStateMachine):
    """A back end and its clients, played step by step in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ObjectTable({})
        self.rows: dict[ObjectKey, ObjectRecord] = {}
        self.fence = (0, 0)
        self.usage = Usage()
        self.loads: list[ev.Load] = []
        self.bodies: dict[int, ev.PutAsked] = {}
        self.stores: list[ev.Store] = []  # committed in order
        self.asked: dict[int, ev.PutAsked | ev.DeleteAsked] = {}
        self.ends: Counter[int] = Counter()
        self.kept: list[Staged] = []
        self.given: list[Staged] = []

    def handle(self, event: ev.Event) -> None:
        for effect in self.table.handle(event, 0):
            if isinstance(effect, ev.Load):
                self.loads.append(effect)
            elif isinstance(effect, ev.Receive):
                asked = self.asked[effect.op]
                assert isinstance(asked, ev.PutAsked)
                self.bodies[effect.op] = asked
            elif isinstance(effect, ev.Store):
                self.stores.append(effect)
            elif isinstance(effect, ev.Discard):
                self.kept.append(effect.staged)
            elif isinstance(effect, ENDS):
                self.ends[effect.op] += 1

    @rule(
        path=st.sampled_from("ab"),
        counter=st.integers(1, 6),
        writer=st.sampled_from([b"x" * 16, b"y" * 16]),
        size=st.integers(0, 30),
        delete=st.booleans(),
        attempt=st.none() | st.integers(1, 3),
    )
    def ask(
        self, path: str, counter: int, writer: bytes, size: int, delete: bool, attempt: int | None
    ) -> None:
        op = len(self.asked) + 1
        key = ObjectKey(OWNER, BOX, path)
        epoch = JobEpoch(JOB, 1, attempt) if attempt is not None else None
        event: ev.PutAsked | ev.DeleteAsked
        if delete:
            event = ev.DeleteAsked(op, key, Version(counter, writer), epoch=epoch)
        else:
            version = Version(counter, writer)
            event = ev.PutAsked(op, key, version, size, epoch=epoch, quota_bytes=QUOTA)
        self.asked[op] = event
        self.handle(event)

    @precondition(lambda self: self.loads)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        load = self.loads.pop(data.draw(st.integers(0, len(self.loads) - 1)))
        fence = self.fence if load.job_id else (0, 0)
        self.handle(ev.Loaded(load.op, Found(True, self.rows.get(load.key), fence)))

    @precondition(lambda self: self.bodies)
    @rule(data=st.data(), content=st.sampled_from([b"1" * 32, b"2" * 32]))
    def stage(self, data: st.DataObject, content: bytes) -> None:
        op = data.draw(st.sampled_from(sorted(self.bodies)))
        staged = Staged(OWNER, self.bodies.pop(op).size, content, op)
        self.given.append(staged)
        self.handle(ev.BodyStaged(op, staged))

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        op = data.draw(st.sampled_from(sorted(self.bodies)))
        del self.bodies[op]
        self.handle(ev.Abandoned(op))
        self.ends[op] += 1

    @precondition(lambda self: self.stores)
    @rule(fails=st.booleans())
    def store(self, fails: bool) -> None:
        store = self.stores.pop(0)
        if fails:
            self.handle(ev.StoreFailed(store.batch))
            return
        for change in store.changes:
            if isinstance(change, Publish):
                current = self.rows.get(change.key)
                assert change.previous == current
                assert current is None or change.record.version > current.version
                self.rows[change.key] = change.record
                adds = change.adds
                self.usage = Usage(
                    self.usage.size_bytes + adds.size_bytes, self.usage.rows + adds.rows
                )
                if change.staged is not None:
                    self.kept.append(change.staged)
            elif isinstance(change, RaiseFence):
                pair = change.epoch.allocation, change.epoch.attempt
                self.fence = max(self.fence, pair)
            else:
                self.kept.append(change.staged)  # type: ignore[union-attr]
        self.handle(ev.Stored(store.batch))

    @invariant()
    def no_operation_ends_twice_and_the_quota_holds(self) -> None:
        assert all(count == 1 for count in self.ends.values())
        assert self.usage.size_bytes <= QUOTA

    def teardown(self) -> None:
        """Let everything come to its end, and see that nothing is left."""
        while self.loads or self.stores or self.bodies:
            if self.loads:
                load = self.loads.pop(0)
                fence = self.fence if load.job_id else (0, 0)
                self.handle(ev.Loaded(load.op, Found(True, self.rows.get(load.key), fence)))
            elif self.bodies:
                op = next(iter(self.bodies))
                del self.bodies[op]
                self.handle(ev.Abandoned(op))
                self.ends[op] += 1
            else:
                self.store(False)
        assert self.table.in_flight == 0
        assert set(self.ends) == set(self.asked)
        assert self.table.used_bytes(OWNER) == self.usage.size_bytes
        # Each staged body was either published or discarded, once.
        assert Counter(s.handle for s in self.kept) == Counter(s.handle for s in self.given)
        table = self.table
        assert (table._slots, table._batches, table._fence_batches) == ({},) * 3
        assert (len(table._fences), table._accounts.reserved) == (0, 0)


TableMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_table_keeps_its_promises_in_any_order = TableMachine.TestCase
