"""Random sequences of events: what must hold of the job table after each of them."""

from typing import Any

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import Offer
from alpyne_grid.nodes.compute.backends.base import Execution, TaskEnd
from alpyne_grid.nodes.compute.job import Now, Result
from alpyne_grid.nodes.compute.job_table import JobTable
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from alpyne_proto.messages.compute import Cause, JobForm, JobSpec, JobState, SettleRow, Verdict

ACCOUNTS = (b"a" * 32, b"b" * 32)
NUMBERS = st.integers(0, 1)  # few, so that events meet
ACCOUNT = st.sampled_from(ACCOUNTS)


class Node(RuleBasedStateMachine):
    """A table, a back end that ends what it is told to, and a store that may refuse."""

    @initialize(slots=st.integers(1, 3))
    def begin(self, slots: int) -> None:
        self.table = JobTable(Offer(slots=3, attributes={"suspend": "signals"}), slots=slots)
        self.slots = slots
        self.now = Now(0.0, 1_000_000)
        self.running: dict[Execution, bool] = {}  # by execution: whether it has started
        self.cpus: dict[Execution, int] = {}
        self.cancelled: set[Execution] = set()
        self.orders: list[tuple[Execution, bool]] = []  # to pause (True) or go on, not done yet
        self.stores: list[ev.Store] = []
        self.waiting: dict[int, set[int]] = {}  # batches before the answer of each request
        self.stored: set[int] = set()
        self.requests = 0
        self.sequence: dict[bytes, int] = {}
        self.answered: set[int] = set()

    def handle(self, event: Any) -> None:
        for effect in self.table.handle(event, self.now):
            getattr(self, f"on_{type(effect).__name__}")(effect)

    # ---- effects ----

    def on_Store(self, effect: ev.Store) -> None:  # noqa: N802
        self.stores.append(effect)

    def on_Answer(self, effect: ev.Answer) -> None:  # noqa: N802
        assert effect.request not in self.answered
        self.answered.add(effect.request)
        for answer in effect.answers:
            if answer.verdict is Verdict.ACCEPTED:
                assert self.waiting[effect.request] <= self.stored

    def on_Confirm(self, effect: ev.Confirm) -> None:  # noqa: N802
        assert self.waiting[effect.request] <= self.stored

    def on_Refuse(self, effect: ev.Refuse) -> None:  # noqa: N802
        assert effect.text

    def on_StartTask(self, effect: ev.StartTask) -> None:  # noqa: N802
        execution = effect.job.execution
        assert execution not in self.running
        same = [e for e in self.running if (e.account, e.job_id) == execution[:2]]
        assert not same, "one id, two executions"
        self.running[execution] = False
        self.cpus[execution] = effect.job.spec.cpus
        assert effect.payload is not None or effect.job.stored

    def on_CancelTask(self, effect: ev.CancelTask) -> None:  # noqa: N802
        assert effect.execution in self.running
        self.cancelled.add(effect.execution)

    def on_SuspendTask(self, effect: ev.SuspendTask) -> None:  # noqa: N802
        assert self.running[effect.execution], "nothing that has not started is suspended"
        self.orders.append((effect.execution, True))

    def on_ResumeTask(self, effect: ev.ResumeTask) -> None:  # noqa: N802
        assert self.running[effect.execution]
        self.orders.append((effect.execution, False))

    def on_Publish(self, effect: ev.Publish) -> None:  # noqa: N802
        job = effect.job
        assert job.sequence > self.sequence.get(job.account, 0) or job.announced is job.state
        self.sequence[job.account] = max(self.sequence.get(job.account, 0), job.sequence)

    def on_DropFiles(self, effect: ev.DropFiles) -> None:  # noqa: N802
        assert effect.numbers

    # ---- events ----

    @rule(
        account=ACCOUNT,
        jobs=st.lists(
            st.tuples(NUMBERS, st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=4
        ),
        timeout_ms=st.sampled_from((0, 1000)),
    )
    def submit(self, account: bytes, jobs: list[tuple[int, int, int]], timeout_ms: int) -> None:
        self.requests += 1
        before = len(self.stores)
        self.waiting[self.requests] = set()
        new = tuple(
            ev.NewJob(
                JobSpec(
                    number.to_bytes(16, "big"),
                    allocation,
                    JobForm.CALL,
                    cpus=cpus,
                    timeout_ms=timeout_ms,
                ),
                b"p",
            )
            for number, allocation, cpus in jobs
        )
        self.handle(ev.JobsSubmitted(self.requests, account, new))
        if len(self.stores) > before:
            self.waiting[self.requests] = {self.stores[before].batch}

    @rule(refused=st.lists(st.booleans(), min_size=1, max_size=4))
    def answer_the_oldest_batches(self, refused: list[bool]) -> None:
        for is_refused in refused[: len(self.stores)]:
            batch = self.stores.pop(0).batch
            if is_refused:
                self.handle(ev.BatchFailed(batch, "no"))
            else:
                self.stored.add(batch)
                self.handle(ev.BatchStored(batch))

    @rule(pick=st.integers(0, 5))
    def start_one(self, pick: int) -> None:
        waiting = [execution for execution, started in self.running.items() if not started]
        if waiting:
            execution = waiting[pick % len(waiting)]
            self.running[execution] = True
            self.handle(ev.ExecutionStarted(execution))

    @rule(pick=st.integers(0, 5), ends_well=st.booleans())
    def end_one(self, pick: int, ends_well: bool) -> None:
        if not self.running:
            return
        execution = list(self.running)[pick % len(self.running)]
        started = self.running.pop(execution)
        del self.cpus[execution]
        killed = execution in self.cancelled
        self.cancelled.discard(execution)
        state = JobState.DONE if ends_well and started else JobState.FAILED
        end = TaskEnd(JobState.KILLED if killed else state, Cause.NONE)
        self.handle(ev.ExecutionEnded(execution, end, Result(1, b"\0" * 32, True, b"v")))

    @rule(account=ACCOUNT, numbers=st.lists(NUMBERS, min_size=1, max_size=3))
    def cancel(self, account: bytes, numbers: list[int]) -> None:
        ids = tuple(number.to_bytes(16, "big") for number in numbers)
        self.handle(ev.JobsCancelled(account, ids))

    @rule(account=ACCOUNT, numbers=st.lists(NUMBERS, min_size=1, max_size=3), on=st.booleans())
    def suspend_or_resume(self, account: bytes, numbers: list[int], on: bool) -> None:
        ids = tuple(number.to_bytes(16, "big") for number in numbers)
        self.handle(ev.JobsSuspended(account, ids) if on else ev.JobsResumed(account, ids))

    @rule(count=st.integers(1, 3))
    def carry_out_orders(self, count: int) -> None:
        for _ in range(min(count, len(self.orders))):
            execution, is_pause = self.orders.pop(0)
            if execution in self.running:
                done = ev.ExecutionSuspended if is_pause else ev.ExecutionResumed
                self.handle(done(execution))

    @rule(
        what=st.sampled_from(("settle", "settle", "revoke", "change_slots", "pass_time")),
        account=ACCOUNT,
        number=NUMBERS,
        amount=st.integers(0, 3),
    )
    def do_something_rarer(self, what: str, account: bytes, number: int, amount: int) -> None:
        getattr(self, what)(account, number, amount)

    def settle(self, account: bytes, number: int, amount: int) -> None:
        self.requests += 1
        before = len(self.stores)
        row = SettleRow(number.to_bytes(16, "big"), 1 + amount // 2, 1)
        self.waiting[self.requests] = set()
        self.handle(ev.JobsSettled(self.requests, account, (row,)))
        self.waiting[self.requests] = {store.batch for store in self.stores[before:]}

    def revoke(self, account: bytes, number: int, amount: int) -> None:
        self.handle(ev.AccountRevoked(account))
        for job in self.table.jobs(account):
            assert job.finished or job.execution in self.cancelled

    def change_slots(self, account: bytes, number: int, amount: int) -> None:
        self.slots = amount
        self.handle(ev.SlotsChanged(amount))

    def pass_time(self, account: bytes, number: int, amount: int) -> None:
        seconds = (0.1, 2.0, 4000.0, 700_000.0)[amount]
        self.now = Now(self.now.monotonic_s + seconds, self.now.wall_ms + int(seconds * 1000))
        self.handle(ev.TimePassed())

    # ---- what always holds ----

    @invariant()
    def slots_are_never_given_away_twice(self) -> None:
        busy = sum(self.cpus.values())
        assert self.table.counts().busy_slots == busy
        assert busy <= 3

    @invariant()
    def counts_fit_the_jobs(self) -> None:
        jobs = list(self.table.all_jobs())
        queued = sum(job.state is JobState.QUEUED for job in jobs)
        assert self.table.counts().queued == queued
        for account in ACCOUNTS:
            kept = sum(job.bytes_kept for job in jobs if job.account == account)
            assert self.table.bytes_kept(account) == kept

    @invariant()
    def jobs_are_as_was_wanted_last_when_all_orders_are_done(self) -> None:
        ordered = {execution for execution, _ in self.orders}
        for execution, started in self.running.items():
            job = self.table.live(execution)
            if job is not None and started and job.ending is None and execution not in ordered:
                assert (job.state is JobState.SUSPENDED) == bool(job.reasons)

    @invariant()
    def nothing_waits_beside_free_slots(self) -> None:
        if self.slots == 0 or self.cpus:
            return
        for job in self.table.all_jobs():
            is_held = job.predecessor is not None or job.spec.cpus > self.slots
            assert job.state is not JobState.QUEUED or is_held or self.small_waits_for_large()

    def small_waits_for_large(self) -> bool:
        """A job that needs more slots than there are now holds its turn."""
        jobs = self.table.all_jobs()
        return any(job.state is JobState.QUEUED and job.spec.cpus > self.slots for job in jobs)


Node.TestCase.settings = settings(max_examples=200, stateful_step_count=50)
TestNode = Node.TestCase
