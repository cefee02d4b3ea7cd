"""A job table on a bench: events in, whole lists of effects out, a clock that is set by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import Bounds, Offer
from alpyne_grid.nodes.compute.backends.base import Execution, TaskEnd
from alpyne_grid.nodes.compute.job import Job, Now, Result
from alpyne_grid.nodes.compute.job_table import JobTable

from alpyne_proto.messages.compute import Cause, JobForm, JobSpec, JobState

ALICE, BOB = b"a" * 32, b"b" * 32
WALL_MS = 1_700_000_000_000


@dataclass
class Bench:
    """A table, its clock, and the shortest ways to make things happen to it."""

    table: JobTable
    monotonic_s: float = 1000.0
    wall_ms: int = WALL_MS
    requests: int = 0
    stores: list[ev.Store] = field(default_factory=list)  # not answered yet

    @staticmethod
    def job_id(number: int) -> bytes:
        """A job's id, of one journal."""
        return b"journal1" + number.to_bytes(8, "big")

    @staticmethod
    def spec(number: int, **more: Any) -> JobSpec:
        """A call, first allocation."""
        return JobSpec(Bench.job_id(number), **{"allocation": 1, "form": JobForm.CALL, **more})

    @staticmethod
    def execution(
        number: int, allocation: int = 1, attempt: int = 1, account: bytes = ALICE
    ) -> Execution:
        """An execution's key."""
        return Execution(account, Bench.job_id(number), allocation, attempt)

    @property
    def now(self) -> Now:
        return Now(self.monotonic_s, self.wall_ms)

    def handle(self, event: ev.Event) -> list[ev.Effect]:
        effects = self.table.handle(event, self.now)
        self.stores += [effect for effect in effects if isinstance(effect, ev.Store)]
        return effects

    def submit(self, *specs: JobSpec, account: bytes = ALICE, **more: Any) -> list[ev.Effect]:
        self.requests += 1
        payload = more.pop("payload", b"program")
        missing = more.pop("missing", ())
        jobs = tuple(ev.NewJob(one, payload, missing) for one in specs)
        return self.handle(ev.JobsSubmitted(self.requests, account, jobs, **more))

    def stored(self) -> list[ev.Effect]:
        """The oldest batch is durable."""
        return self.handle(ev.BatchStored(self.stores.pop(0).batch))

    def failed(self, text: str = "disk full") -> list[ev.Effect]:
        """The oldest batch was refused."""
        return self.handle(ev.BatchFailed(self.stores.pop(0).batch, text))

    def all_stored(self) -> list[ev.Effect]:
        effects = []
        while self.stores:
            effects += self.stored()
        return effects

    def accept(self, *specs: JobSpec, account: bytes = ALICE) -> list[ev.Effect]:
        """Submit and make durable; return the effects of both."""
        return self.submit(*specs, account=account) + self.stored()

    def started(self, execution: Execution) -> list[ev.Effect]:
        return self.handle(ev.ExecutionStarted(execution))

    def ended(
        self,
        execution: Execution,
        state: JobState = JobState.DONE,
        cause: Cause = Cause.NONE,
        data: bytes = b"value",
        **more: Any,
    ) -> list[ev.Effect]:
        result = Result(len(data), b"\x01" * 32, True, data)
        return self.handle(ev.ExecutionEnded(execution, TaskEnd(state, cause, **more), result))

    def run(self, execution: Execution, **more: Any) -> list[ev.Effect]:
        """Start and end at once."""
        return self.started(execution) + self.ended(execution, **more)

    def pass_time(self, seconds: float) -> list[ev.Effect]:
        self.monotonic_s += seconds
        self.wall_ms += round(seconds * 1000)
        return self.handle(ev.TimePassed())

    def job(self, number: int, account: bytes = ALICE) -> Job:
        job = self.table.job(account, self.job_id(number))
        assert job is not None
        return job


OFFER = Offer(
    slots=4,
    memory_bytes=1 << 30,
    pythons=("3.11",),
    limits={"memory": "sampled"},
    attributes={"os": "linux", "gpus": "2"},
)


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    """Makes tables: slots, bounds, offer."""

    def make(slots: int = 1, offer: Offer = OFFER, **bounds: int) -> Bench:
        return Bench(JobTable(offer, slots=slots, bounds=Bounds(**bounds)))

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A table with one slot."""
    return make_bench()
