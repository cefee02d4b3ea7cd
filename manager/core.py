"""GridCore: the shell around GridTable. It feeds events, carries out effects, and decides nothing.

Everything here runs on one event loop, except ``submit`` and ``cancel_job``, which may be called
from any thread.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from time import monotonic
from typing import Any

from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.compute_link import ComputeLink, EventRow, event_of
from alpyne_grid.manager.effects import Effects
from alpyne_grid.manager.errors import ManagerClosed
from alpyne_grid.manager.grid_table import GridTable
from alpyne_grid.manager.jobs import AsyncJob
from alpyne_grid.manager.journal import Journal, Record
from alpyne_grid.manager.links import Link, LinkSettings
from alpyne_grid.manager.output import OutputReader
from alpyne_grid.manager.pausing import check_node, check_some
from alpyne_grid.manager.placement import facts_of
from alpyne_grid.manager.pool import Pool, PoolNode
from alpyne_grid.manager.results import Place
from alpyne_grid.manager.specs import Work, check_tickets, plan_of
from alpyne_grid.wire import Answer, Connection, Request, Service
from alpyne_grid.wire.log import Log

from alpyne_proto.address import key_to_text
from alpyne_proto.errors import AlpyneError
from alpyne_proto.jobobject import JobObject, ObjectReader
from alpyne_proto.messages import compute as messages
from alpyne_proto.messages.access import NodeStatus
from alpyne_proto.messages.hello import NodeKind

TICK_S = 0.1
Watcher = Callable[[ComputeLink, Sequence[EventRow]], None]


class GridCore:
    """One manager's jobs and links. ``start`` and ``close`` it on the loop that it runs on."""

    def __init__(
        self,
        *,
        settings: LinkSettings,
        journal: Journal,
        nodes: Iterable[PoolNode],
        table: GridTable | None = None,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.table = table or GridTable()
        self.links: dict[bytes, Link] = {}
        self.compute: dict[bytes, ComputeLink] = {}
        self.jobs: dict[bytes, AsyncJob] = {}  # submitted here, not yet delivered
        self.watchers: dict[bytes, Watcher] = {}  # by journal: who else wants events
        self.reader: ObjectReader | None = None  # what reads objects in this program's threads
        self.settles = True  # False: nodes keep results as if nobody had fetched them yet
        self.failovers = 0  # reads by the manager that went on at another node
        self._log = Log("manager")
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._inbox: deque[Callable[[], None]] = deque()
        self._inbox_scheduled = False
        self._handling = False  # effects are being carried out: callbacks may submit more
        self._added: list[g.Plan] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._closing = False
        self._effects = Effects(self)
        for node in nodes:
            self._add_link(node)

    def _add_link(self, node: PoolNode) -> None:
        service = Service({messages.PushEvents: self._take_events})
        self.links[node.key] = Link(node, self.settings, self, service)

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to dial all nodes."""
        for link in self.links.values():
            link.start()
        self._tell_expected()

    async def heard(self, timeout_s: float) -> None:
        """Return once every node is up or has failed once, or after ``timeout_s``."""
        waits = [asyncio.ensure_future(link.heard.wait()) for link in self.links.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=timeout_s)
            for wait in late:
                wait.cancel()

    async def cancelled_ended(self, timeout_s: float) -> None:
        """Return once no cancelled job is under way at a node that is up, or after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(0)  # what was asked for is in the table now
                cancelled = [self.jobs[i] for i, job in self.table.jobs.items() if job.cancelled]
                for job in cancelled:
                    if job.node_key is not None and self.links[job.node_key].is_up:
                        await job.wait()

    async def close(self) -> None:
        """Send what is to be settled, close all connections; jobs that were accepted go on."""
        self._closing = True
        if self._ticker is not None:
            self._ticker.cancel()
        for job in list(self.jobs.values()):
            job.fail(
                ManagerClosed(
                    f"job {job.id}: the manager was closed; the job goes on where a node has "
                    "accepted it, and can be found again by its id"
                )
            )
        await asyncio.gather(*(compute.close() for compute in self.compute.values()))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(link.close() for link in self.links.values()))
        unsettled = [job for job in self.table.jobs.values() if job.allocation]
        await self._loop.run_in_executor(None, lambda: self.journal.close(remove=not unsettled))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that ends with the manager."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have ``function`` called on the loop; from any thread, many with one wake-up.

        On the loop the first of a turn is called at once, so that a lone job does not wait.
        """
        self._inbox.append(function)
        if not self._inbox_scheduled:
            self._inbox_scheduled = True
            if threading.get_ident() == self._thread:
                try:
                    if not self._handling:
                        self._read_inbox()
                finally:
                    self._loop.call_soon(self._drain_inbox)
            else:
                self._loop.call_soon_threadsafe(self._drain_inbox)

    def _drain_inbox(self) -> None:
        self._inbox_scheduled = False  # before the queue is read: a later entry schedules anew
        self._read_inbox()

    def _read_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()
        if self._added:
            plans, self._added = tuple(self._added), []
            self.handle(g.JobsAdded(plans))

    # --- what programs ask ------------------------------------------------------------------

    def new_job_id(self) -> bytes:
        """Return the id of a new job; from any thread."""
        return self.journal.id + self.journal.take_counter().to_bytes(8, "big")

    def submit(self, work: Work, name: str) -> AsyncJob:
        """Submit a job; from any thread. It is sent when a node has room for it."""
        check_tickets(work)
        if self._closing:
            raise ManagerClosed("the manager is closed; connect again")
        job = AsyncJob(self, work.job_id, work.program.form, name)
        job.work = work
        self.call_soon(lambda: self._take_job(job, work))
        return job

    def _take_job(self, job: AsyncJob, work: Work) -> None:
        if self._closing:
            job.fail(ManagerClosed("the manager was closed before the job was sent"))
            return
        self.jobs[job.job_id] = job
        self._added.append(plan_of(work, self.label_of))

    def cancel_job(self, job: AsyncJob) -> None:
        """Have the job ended; from any thread."""
        self.call_soon(lambda: self._cancel_job(job.job_id))

    def _cancel_job(self, job_id: bytes) -> None:
        if job_id in self.table.jobs:
            self.handle_added(g.CancelAsked(job_id))
            return
        for compute in self.compute.values():  # another manager's job: whoever has it
            compute.cancel([job_id])

    def pause_job(self, job: AsyncJob, *, pause: bool) -> None:
        """Have the job suspended, or resumed; on the loop. See AsyncJob.suspend."""
        known = self.table.jobs.get(job.job_id)
        if known is not None and known.node is not None:
            node = self.table.nodes.get(known.node)
            if pause or (node is not None and node.up):  # to go on is kept for when it is back
                self.check_pausable(job.job_id, known.node)
        elif known is not None:
            check_some(job.id, self.table.nodes.values())
        event = g.SuspendAsked(job.job_id) if pause else g.ResumeAsked(job.job_id)
        self.call_soon(lambda: self.handle_added(event))

    def check_pausable(self, job_id: bytes, key: bytes) -> None:
        """Raise where the node that has a job cannot be told to pause it, or cannot do it."""
        check_node(job_id.hex(), self.node_name(key), self.table.nodes.get(key))

    def read_output(self, job: AsyncJob, *, follow: bool, raw: bool = False) -> OutputReader:
        """Return a reader of a job's output."""

        async def ask(offset: int) -> Answer | None:
            compute = self.compute.get(job.node_key) if job.node_key is not None else None
            if compute is None:
                return None
            request = messages.ReadOutput(job.job_id, offset, follow)
            return await compute.link.call(request)

        return OutputReader(ask, lambda: job.done, follow=follow)

    def node_name(self, key: bytes | None) -> str:
        """Return what people call the node with this key."""
        if key is None:
            return ""
        link = self.links.get(key)
        return link.name if link is not None else key_to_text(key)[:8]

    def node_key(self, node: str | bytes) -> bytes:
        """Return the key of the node that ``node`` names; PoolError for none of this pool."""
        if isinstance(node, bytes):
            return node
        return Pool({link.key: link.node for link in self.links.values()}).find(node).key

    def label_of(self, key: bytes) -> str:
        """Return the host label of the node with this key, or ""."""
        link = self.links.get(key)
        return link.label if link is not None else ""

    @property
    def own_label(self) -> str:
        """This machine's host label."""
        return self.settings.host_label

    def read_failed_over(self, item: JobObject, node: bytes) -> None:
        """Count that a read went on at another node than ``node``."""
        self.failovers += 1
        self._log.info("read_failed_over", path=item.path, node=self.node_name(node))

    def data_links(self) -> list[Link]:
        """Return the links to data nodes, and to nodes of a kind that is not known yet."""
        return [link for link in self.links.values() if link.kind is not NodeKind.COMPUTE]

    # --- the table --------------------------------------------------------------------------

    def handle_added(self, event: g.Event) -> None:
        """Give the table the jobs that are waiting to be added, then ``event``."""
        plans, self._added = tuple(self._added), []
        self.handle(*([g.JobsAdded(plans)] if plans else []), event)

    def handle(self, *events: g.Event) -> None:
        """Give the table events and carry out what it wants."""
        before, self._handling = self._handling, True
        try:
            self._effects.perform(self.table.handle_all(events, monotonic()))
        finally:
            self._handling = before
        if self._ticker is None and self.table.wants_ticks and not self._closing:
            self._ticker = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticker = None
        self.handle(g.Tick())

    def place(self, job_id: bytes, node: bytes | None) -> Place:
        """Return where a result comes from, for decoding it and for its errors."""
        link = self.links.get(node) if node is not None else None
        is_trusted = link is not None and link.trusted
        codec = messages.ResultCodec.PICKLE if is_trusted else messages.ResultCodec.PLAIN
        return Place(job_id, self.node_name(node), codec)

    def committed(self, batch: list[tuple[bytes, Record]], error: BaseException | None) -> None:
        """The journal has taken, or refused, the records of these jobs."""
        if self._closing and error is not None:
            return
        if error is None:
            self.handle(*(g.Stored(job_id) for job_id, _ in batch))
        else:
            self.handle(*(g.StoreFailed(job_id, str(error)) for job_id, _ in batch))

    # --- nodes ------------------------------------------------------------------------------

    async def watch(self, journal: bytes, watcher: Watcher) -> None:
        """Have ``watcher`` called with the job events of another journal, from the first one on."""
        self.watchers[journal] = watcher
        for compute in list(self.compute.values()):
            if compute.link.is_up:
                with contextlib.suppress(AlpyneError):  # the next connection subscribes again
                    await compute.subscribe(journal, load=False)

    def link_up(self, link: Link, status: NodeStatus, *, fresh: bool) -> None:
        """Take a node that is connected, registered and has said what it has."""
        self._tell_expected()
        if link.kind is not NodeKind.COMPUTE:
            return
        compute = self.compute.get(link.key)
        if compute is None:
            compute = ComputeLink(link, answered=self.answered, pushed=self._pushed)
            self.compute[link.key] = compute
        self.spawn(self._subscribe(compute, fresh=fresh))
        # Before any event of its jobs can come; what happens until the subscription is replayed.
        self.handle(
            g.NodeUp(compute.key, facts_of(link.name, link.label, link.trusted, status), fresh)
        )

    async def _subscribe(self, compute: ComputeLink, *, fresh: bool) -> None:
        try:
            await compute.subscribe(self.journal.id, load=True, fresh=fresh)
            for journal in list(self.watchers):
                await compute.subscribe(journal, load=False, fresh=fresh)
        except AlpyneError as error:
            self._log.warning("subscribe_failed", node=compute.link.name, error=error)
            if compute.link.connection is not None:
                compute.link.connection.abort()  # dialled again

    def link_down(self, link: Link) -> None:
        """Take note that a node's connection is lost."""
        if link.key in self.table.nodes:
            self.handle(g.NodeDown(link.key))

    def link_failed(self, link: Link, error: AlpyneError) -> None:
        """Take note that a node cannot be reached for now."""
        self._log.debug("link_failed", node=link.name, error=error)

    def _tell_expected(self) -> None:
        expected = (link.key for link in self.links.values() if link.kind is not NodeKind.DATA)
        self.handle(g.NodesExpected(frozenset(expected)))

    async def _take_events(self, request: Request) -> None:
        compute = self._compute_of(request.connection)
        if compute is None:
            return
        try:
            await compute.take_events(request)
        finally:
            if request.connection.is_open and not self._closing:
                request.connection.abort()  # without events it is of no use: dialled again

    def _compute_of(self, connection: Connection) -> ComputeLink | None:
        return self.compute.get(connection.peer_key)

    def answered(self, compute: ComputeLink, answer: messages.JobAnswer) -> None:
        """Take a node's answer to the submission of one job."""
        self.handle(
            g.JobAnswered(
                compute.key,
                answer.job_id,
                answer.verdict,
                answer.code,
                answer.text,
                answer.retryable,
                answer.retry_after_ms / 1000,
            )
        )

    def _pushed(self, compute: ComputeLink, rows: Sequence[EventRow]) -> None:
        own = self.journal.id
        events: list[g.Event] = []
        others: dict[bytes, list[EventRow]] = {}
        for row, body in rows:
            if isinstance(row, messages.JobEvent):
                if row.job_id.startswith(own):
                    events.append(g.JobChanged(compute.key, row, body))
                else:
                    others.setdefault(row.job_id[:8], []).append((row, body))
            elif isinstance(row, messages.LoadEvent):
                events.append(
                    g.LoadChanged(compute.key, row.slots, row.queued, row.load, row.score)
                )
            else:
                self.spawn(self._catch_up(compute))
        self.handle(*events)
        for journal, some in others.items():
            if journal in self.watchers:
                self.watchers[journal](compute, some)

    async def _catch_up(self, compute: ComputeLink) -> None:
        """Ask for what was left out because we were slow."""
        try:
            rows = await compute.jobs(messages.ListJobs(journal=self.journal.id))
        except AlpyneError:
            return  # the connection is lost, or will be: the next subscription tells all
        self.handle(*(g.JobChanged(compute.key, event_of(row), b"") for row in rows))
