"""Job tables on a bench, and real nodes in this process with a manager that speaks to them.

A bench: events in, whole lists of effects out, a clock that is set by hand.
"""

import asyncio
import os
import pickle
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import Bounds, Offer
from alpyne_grid.nodes.compute.backends.base import Execution, TaskEnd
from alpyne_grid.nodes.compute.job import Job, Now, Result
from alpyne_grid.nodes.compute.job_table import JobTable
from alpyne_grid.nodes.compute.node import ComputeNode
from alpyne_grid.nodes.config import NodeConfig, Registration
from alpyne_grid.wire import Connection, Request, Service, dial

from alpyne_proto.certificate import Certificate
from alpyne_proto.codec import encode_row, read_rows
from alpyne_proto.keys import DeviceIdentity, SigningKey
from alpyne_proto.messages.compute import (
    SUBSCRIBE_JOBS,
    Cause,
    JobAnswer,
    JobEvent,
    JobForm,
    JobSpec,
    JobState,
    OutputRow,
    PushEvents,
    ReadOutput,
    SubmitJobs,
    Subscribe,
    Verdict,
)
from alpyne_proto.messages.hello import DiallerHello, NodeKind
from alpyne_proto.messages.program import Arguments, SourceFile, Value
from alpyne_proto.registry import Message, Role

Row = TypeVar("Row", bound=Message)
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
    attributes={
        "os": "linux",
        "gpus": "2",
        "memory_bytes": str(1 << 30),
        "limit.memory": "sampled",
        "limit.processes": "kernel",
        "limit.disk": "none",
        "images": "plain,science",
        "networks": "lan",
        "suspend": "signals",
    },
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


# ---- a real node in this process, and a manager that speaks the bare protocol to it ----


class Manager:
    """A connection to a node, the jobs it submits there and what it is told of them."""

    def __init__(self, account: SigningKey | None = None) -> None:
        self.account = account or SigningKey.create(os.urandom)
        self.device = DeviceIdentity.create(os.urandom)
        self.journal = os.urandom(8)
        self.counter = 0
        self.events: dict[bytes, list[JobEvent]] = {}
        self.payloads: dict[bytes, bytes] = {}
        self.changed = asyncio.Event()
        self.connection: Connection

    async def dial(self, node: ComputeNode, *, subscribe: bool = True) -> "Manager":
        certificate = Certificate.issue(
            self.account,
            serial=1,
            noise_key=self.device.noise_public,
            signing_key=self.device.signing.public,
            not_after=int(time.time()) + 3600,
        )
        self.connection = await dial(
            node.address,
            identity=self.device,
            hello=DiallerHello(int(Role.MANAGER), os.urandom(16), certificate.encode()),
            service=Service({PushEvents: self._take_events}),
        )
        if subscribe:
            await self.connection.call(Subscribe(SUBSCRIBE_JOBS))
        return self

    async def _take_events(self, request: Request) -> None:
        async for row, payload in request.body.rows():
            if isinstance(row, JobEvent):
                self.events.setdefault(row.job_id, []).append(row)
                self.payloads[row.job_id] = payload
                self.changed.set()

    def spec(self, form: JobForm = JobForm.SOURCE, **more: Any) -> JobSpec:
        self.counter += 1
        job_id = self.journal + self.counter.to_bytes(8, "big")
        return JobSpec(job_id, **{"allocation": 1, "form": form, **more})

    async def send(self, *jobs: tuple[JobSpec, bytes]) -> list[JobAnswer]:
        body = b"".join(encode_row(one, payload) for one, payload in jobs)
        return await self.rows(SubmitJobs(len(jobs)), body, kind=JobAnswer)

    async def submit(self, text: str, **more: Any) -> JobSpec:
        """Submit the text of a .py file with ``main()``; it must be accepted."""
        spec = self.spec(**more)
        (answer,) = await self.send((spec, source(text)))
        assert answer.verdict is Verdict.ACCEPTED, answer
        return spec

    async def rows(self, message: Message, body: bytes = b"", *, kind: type[Row]) -> list[Row]:
        answer = await self.connection.call(message, body)
        return [row async for row, _ in answer.body.rows(kind) if isinstance(row, kind)]

    async def until(
        self, spec: JobSpec, *states: JobState, attempt: int = 1, within_s: float = 20
    ) -> JobEvent:
        """Wait until the job's newest event says one of ``states`` (or that it has ended)."""
        async with asyncio.timeout(within_s):
            while True:
                events = self.events.get(spec.job_id)
                if events and events[-1].attempt >= attempt:
                    state = events[-1].state
                    if state in states or (not states and state >= JobState.DONE):
                        return events[-1]
                self.changed.clear()
                await self.changed.wait()

    async def value(self, spec: JobSpec) -> Any:
        """Wait for the job's end and return its value; an assertion where it has none."""
        event = await self.until(spec)
        assert event.state is JobState.DONE, event
        ((_, pickled),) = read_rows(self.payloads[spec.job_id], (Value.SPEC.code,))
        return pickle.loads(pickled)

    async def output(self, spec: JobSpec, **more: Any) -> AsyncIterator[tuple[OutputRow, bytes]]:
        answer = await self.connection.call(ReadOutput(spec.job_id, **more))
        async for row, data in answer.body.rows(OutputRow):
            assert isinstance(row, OutputRow)
            yield row, data


def source(text: str) -> bytes:
    """The program of a .py file whose main takes no arguments."""
    program = encode_row(SourceFile("job.py"), textwrap.dedent(text).encode())
    return program + encode_row(Arguments(), pickle.dumps(((), {})))


@asynccontextmanager
async def run_node(state: Path, *owners: SigningKey, slots: int = 2) -> AsyncIterator[ComputeNode]:
    """A node in this process."""
    config = NodeConfig(
        NodeKind.COMPUTE,
        state,
        tuple(owner.public for owner in owners),
        registration=Registration.OWNERS,
        slots=slots,
        backend="process",
    )
    node = ComputeNode(config)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


@pytest.fixture
def manager() -> Manager:
    """A manager with an account of its own, which is not connected yet."""
    return Manager()


@pytest.fixture
def another() -> Callable[..., Manager]:
    """Makes more managers."""
    return Manager


@pytest.fixture
def node_of(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[ComputeNode]]:
    """Runs a node of the given managers' accounts, always on the same state folder."""

    def run(*managers: Manager, slots: int = 2) -> AbstractAsyncContextManager[ComputeNode]:
        return run_node(tmp_path / "node", *(one.account for one in managers), slots=slots)

    return run


@pytest.fixture
def program() -> Callable[[str], bytes]:
    """Makes the program of a .py file."""
    return source
