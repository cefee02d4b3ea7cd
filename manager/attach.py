"""Jobs found again: by id or tag, from another process, or another machine of the account.

What a job's one result is, its journal says. Where that is not at hand, a node's settled mark is
believed, else the highest finished execution. A journal of this home whose process has ended is
adopted: what it settled stays settled, and what is delivered here is settled in it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alpyne_grid.manager.compute_link import ComputeLink, EventRow, event_of
from alpyne_grid.manager.core import GridCore
from alpyne_grid.manager.errors import JobFailed, Receipt, UnknownJob, UnsafeResult
from alpyne_grid.manager.grid_events import Outcome
from alpyne_grid.manager.jobs import AsyncCancel, AsyncJob, AsyncPause, Ended
from alpyne_grid.manager.journal import SUFFIX, Journal, Kind, Record
from alpyne_grid.manager.results import Place

from alpyne_proto.errors import AlpyneError, LocalProtocolError
from alpyne_proto.messages.compute import (
    JobEvent,
    JobRow,
    JobState,
    ListJobs,
    ResultCodec,
    ResumeJobs,
    SuspendJobs,
)

Epoch = tuple[int, int]
RETRY_S = 0.5


@dataclass(slots=True)
class _Seen:
    """One node's execution of a job, as last heard."""

    row: JobRow
    event: JobEvent
    body: bytes | None = None  # its result, where it came with the event

    @property
    def epoch(self) -> Epoch:
        return self.event.allocation, self.event.attempt


class AttachedJob(AsyncJob):
    """A job that another manager submitted. It begins to follow the job when it is waited for."""

    def __init__(self, finder: "Finder", seen: Mapping[bytes, JobRow]) -> None:
        first = next(iter(seen.values()))
        super().__init__(finder.core, first.job_id, first.form, first.name)
        self.is_accepted = True
        self.index = first.index
        self.items = first.items
        self.tags = first.tags
        self.group = first.group
        self.submitted_at_ms = min(row.submitted_at_ms for row in seen.values())
        self._finder = finder
        self._seen = {key: _Seen(row, event_of(row)) for key, row in seen.items()}
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._show()

    async def wait(self, timeout: float | None = None) -> Ended:
        """Return its outcome; as AsyncJob.wait."""
        self.follow()
        return await super().wait(timeout)

    @property
    def needs_following(self) -> bool:
        """Whether nobody waits for its outcome yet."""
        return self._following is None and not self.future.done()

    def follow(self) -> None:
        """Begin to wait for its outcome; on the manager's loop."""
        if self._following is None and not self.future.done():
            self._following = asyncio.ensure_future(self._follow())

    def cancel(self) -> AsyncCancel:
        """End the job on every node that has it; ``.wait()`` gives the receipt."""
        core = self._finder.core
        core.call_soon(self._cancel_everywhere)
        return AsyncCancel(self)

    def suspend(self) -> AsyncPause:
        """Have the job pause on every node that has it; as AsyncJob.suspend."""
        return self._pause_everywhere(SuspendJobs, pause=True)

    def resume(self) -> AsyncPause:
        """Let a suspended job go on; as AsyncJob.resume."""
        return self._pause_everywhere(ResumeJobs, pause=False)

    def _pause_everywhere(
        self, order: type[SuspendJobs | ResumeJobs], *, pause: bool
    ) -> AsyncPause:
        core = self._finder.core
        keys = [key for key, seen in self._seen.items() if seen.event.state < JobState.DONE]
        for key in keys:
            core.check_pausable(self.job_id, key)
        for key in keys:
            core.compute[key].order(order, [self.job_id])
        return AsyncPause(self, pause=pause)

    async def reached(self, is_there: Callable[[JobState], bool], timeout: float | None) -> None:
        """Return once its state is one of those wanted; as AsyncJob.reached."""
        await self._finder.watch(self)
        await super().reached(is_there, timeout)

    def _cancel_everywhere(self) -> None:
        self.follow()
        for key, seen in self._seen.items():
            compute = self._finder.core.compute.get(key)
            if compute is not None and seen.event.state < JobState.DONE:
                compute.cancel([self.job_id])

    def hear(self, compute: ComputeLink, event: JobEvent, body: bytes) -> None:
        """Take news from a node."""
        seen = self._seen.get(compute.key)
        if seen is None:
            row = next(iter(self._seen.values())).row
            self._seen[compute.key] = _Seen(row, event, body if event.inline else None)
        else:
            seen.event, seen.body = event, body if event.inline else None
        self._show()
        self._changed.set()

    def _show(self) -> None:
        key = max(self._seen, key=lambda one: self._seen[one].epoch)
        self.took_place(self._seen[key].event.state, key, accepted=True)

    async def _follow(self) -> None:
        try:
            await self._finder.watch(self)
            while not self.future.done():
                self._changed.clear()
                key = self._decided()
                if key is not None and await self._fetched(key):
                    return
                with_timeout = asyncio.wait_for(self._changed.wait(), RETRY_S if key else None)
                try:
                    await with_timeout
                except TimeoutError:
                    continue
        except AlpyneError as error:
            self.fail(error)

    def _decided(self) -> bytes | None:
        """Return the node whose execution is the job's result, or None while that is open."""
        journal = self._finder.settled(self.job_id)
        finished = {k: s for k, s in self._seen.items() if s.event.state >= JobState.DONE}
        if journal is not None:
            return next((k for k, s in finished.items() if s.epoch == journal), None)
        settled = {k: s for k, s in finished.items() if s.row.settled}
        best = settled or finished
        return max(best, key=lambda key: best[key].epoch) if best else None

    async def _fetched(self, key: bytes) -> bool:
        seen = self._seen[key]
        compute = self._owner_core.compute.get(key)
        body = seen.body
        if body is None:
            if compute is None:
                return False
            try:
                head, body = await compute.result(self.job_id)
            except AlpyneError:
                return False  # asked again: the node may be back, or another one has it
            if (head.allocation, head.attempt) != seen.epoch:
                return False
        await self._finder.settle(self, seen.epoch, compute)
        self.deliver(Ended(_outcome(seen.event, body, key), self._place(key, seen), self.form))
        return True

    @property
    def _owner_core(self) -> GridCore:
        return self._finder.core

    def _place(self, key: bytes, seen: _Seen) -> Place:
        link = self._owner_core.links[key]
        if seen.row.codec is ResultCodec.PICKLE and not link.trusted:
            raise UnsafeResult(
                "the job's result is a pickle, and its node is not trusted here",
                job_id=self.id,
                node=link.name,
                remedy="pair with the node as trusted (`alpyne pair`), if you trust it",
            )
        return Place(self.job_id, link.name, seen.row.codec)


@dataclass(slots=True)
class _Adopted:
    """What is known of another manager's journal."""

    journal: Journal | None  # open and locked by us
    is_alive: bool  # its process still runs
    settled: dict[int, Epoch] = field(default_factory=dict)


class Finder:
    """Finds jobs on the nodes of a core, and adopts journals in ``folder``."""

    def __init__(self, core: GridCore, folder: Path) -> None:
        self.core = core
        self._folder = folder
        self._journals: dict[bytes, _Adopted] = {}
        self._watched: dict[bytes, dict[bytes, AttachedJob]] = {}

    async def job(self, job_id: str | bytes) -> AsyncJob:
        """Return the job of an id; UnknownJob where no reachable node has it."""
        wanted = parse_job_id(job_id)
        own = self.core.jobs.get(wanted)
        if own is not None:
            return own
        found = await self.jobs(ListJobs(job_id=wanted))
        if not found:
            silent = [link.name for link in self.core.links.values() if not link.is_up]
            raise UnknownJob(
                f"job {wanted.hex()}: no node has it; it was never accepted, or its result was "
                f"dropped after its time"
                + (f" (not reached: {', '.join(silent)})" if silent else "")
            )
        return found[0]

    async def jobs(self, query: ListJobs) -> list[AttachedJob]:
        """Return the jobs that ``query`` asks for, in order of submission, chunks by index."""
        computes = [one for one in self.core.compute.values() if one.link.is_up]
        answers = await asyncio.gather(
            *(one.jobs(query) for one in computes), return_exceptions=True
        )
        seen: dict[bytes, dict[bytes, JobRow]] = {}
        for compute, rows in zip(computes, answers, strict=True):
            if isinstance(rows, AlpyneError):
                continue  # it is gone meanwhile: what the others know is what there is
            if isinstance(rows, BaseException):
                raise rows
            for row in rows:
                seen.setdefault(row.job_id, {})[compute.key] = row
        found = [AttachedJob(self, rows) for rows in seen.values()]
        return in_order(found)

    async def watch(self, job: AttachedJob) -> None:
        """Have the job told what nodes say of it."""
        journal = job.job_id[:8]
        if journal == self.core.journal.id:
            return  # our own jobs that are not under way have ended: nothing new will come
        watched = self._watched.get(journal)
        if watched is not None:
            watched[job.job_id] = job
            return
        watched = self._watched[journal] = {job.job_id: job}

        def hear(compute: ComputeLink, rows: Sequence[EventRow]) -> None:
            for event, body in rows:
                if isinstance(event, JobEvent) and event.job_id in watched:
                    watched[event.job_id].hear(compute, event, body)

        await self.core.watch(journal, hear)

    def settled(self, job_id: bytes) -> Epoch | None:
        """Return the execution that the job's journal has settled, where that is known here."""
        return self._adopted(job_id[:8]).settled.get(int.from_bytes(job_id[8:], "big"))

    async def settle(self, job: AttachedJob, epoch: Epoch, compute: ComputeLink | None) -> None:
        """Commit, where we may, that this execution's result is delivered."""
        adopted = self._adopted(job.job_id[:8])
        counter = int.from_bytes(job.job_id[8:], "big")
        if adopted.journal is not None and counter not in adopted.settled:
            await _append(adopted.journal, Record(Kind.SETTLED, counter, *epoch))
        adopted.settled.setdefault(counter, epoch)
        if compute is not None and not adopted.is_alive:
            compute.settle(job.job_id, *epoch)

    def close(self) -> None:
        """Let adopted journals go."""
        for adopted in self._journals.values():
            if adopted.journal is not None:
                adopted.journal.close()
        self._journals.clear()

    def _adopted(self, journal_id: bytes) -> _Adopted:
        known = self._journals.get(journal_id)
        if known is None:
            journal = Journal.adopt(self._folder, journal_id)
            exists = (self._folder / f"{journal_id.hex()}{SUFFIX}").exists()
            known = _Adopted(journal, is_alive=journal is None and exists)
            if journal is not None:
                records = journal.known.settled.values()
                known.settled = {r.counter: (r.allocation, r.attempt) for r in records}
            self._journals[journal_id] = known
        return known


def parse_job_id(text: str | bytes) -> bytes:
    """Return a job id's 16 bytes; LocalProtocolError for what is none."""
    if isinstance(text, bytes) and len(text) == 16:
        return text
    try:
        found = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        found = b""
    if len(found) != 16:
        raise LocalProtocolError(f"job id: expected 32 hex digits, got {text!r:.60}")
    return found


def in_order(jobs: Iterable[AttachedJob]) -> list[AttachedJob]:
    """Return jobs by submission, the chunks of one map together and by index."""
    listed = list(jobs)
    began: dict[bytes, int] = {}
    for job in listed:
        group = job.group or job.job_id
        began[group] = min(began.get(group, job.submitted_at_ms), job.submitted_at_ms)
    return sorted(
        listed, key=lambda job: (began[job.group or job.job_id], job.group, job.index, job.job_id)
    )


def chunks_done(jobs: Iterable[AttachedJob]) -> dict[int, tuple[AsyncJob, int]]:
    """Return the chunks of earlier maps that are done or under way, by their first item."""
    found: dict[int, tuple[AsyncJob, int]] = {}
    for job in jobs:
        if job.items and (job.state is JobState.DONE or job.state < JobState.DONE):
            before = found.get(job.index)
            if before is None or before[1] < job.items:
                found[job.index] = (job, job.items)
    return found


def _outcome(event: JobEvent, body: bytes, node: bytes) -> Outcome:
    return Outcome(
        event.state,
        event.cause,
        event.text,
        body,
        node,
        event.allocation,
        event.attempt,
        event.exit_status,
        event.isolation,
        Receipt(event.ended, event.left, True),
        event.usage,
        from_node=True,
    )


async def _append(journal: Journal, record: Record) -> None:
    loop = asyncio.get_running_loop()
    written: asyncio.Future[None] = loop.create_future()

    def done(error: BaseException | None) -> None:
        loop.call_soon_threadsafe(
            lambda: written.set_result(None) if error is None else written.set_exception(error)
        )

    journal.append([record], done)
    await written


__all__ = ["AttachedJob", "Finder", "JobFailed", "chunks_done", "in_order", "parse_job_id"]
