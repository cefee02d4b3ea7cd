"""Effects: what GridTable wants done, done: jobs sent, records committed, results delivered."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.compute_link import RESULT_MAX, ComputeLink, Order, Submission
from alpyne_grid.manager.errors import JournalError
from alpyne_grid.manager.jobs import Ended
from alpyne_grid.manager.journal import Record
from alpyne_grid.manager.specs import row_for
from alpyne_grid.wire.log import Log

from alpyne_proto.errors import AlpyneError, ConnectionLost
from alpyne_proto.messages import compute as messages
from alpyne_proto.messages.hello import NodeKind

if TYPE_CHECKING:
    from alpyne_grid.manager.core import GridCore

Batch = list[tuple[bytes, Record]]


class Effects:
    """Carries out the effects of one core's table, all of one call together."""

    def __init__(self, core: "GridCore") -> None:
        self._core = core
        self._log = Log("manager")
        self._to_store: Batch = []
        self._to_flush: dict[bytes, ComputeLink] = {}
        self._orders: dict[tuple[bytes, type[Order]], list[bytes]] = {}
        self._one: dict[type[Any], Callable[[Any], None]] = {
            g.Send: self._send,
            g.Store: lambda effect: self._to_store.append((effect.job_id, effect.record)),
            g.Deliver: self._deliver,
            g.Abandon: self._abandon,
            g.Settle: self._settle,
            g.Fetch: lambda effect: core.spawn(self._fetch(effect)),
            g.Cancel: lambda effect: self._order(messages.CancelJobs, effect),
            g.Suspend: lambda effect: self._order(messages.SuspendJobs, effect),
            g.Resume: lambda effect: self._order(messages.ResumeJobs, effect),
            g.Changed: self._changed,
            g.Misstep: lambda effect: self._log.error("misstep", text=effect.text),
        }

    def perform(self, effects: Iterable[g.Effect]) -> None:
        """Carry out ``effects``: what goes to one node leaves together, one commit for all."""
        one = self._one
        for effect in effects:
            one[type(effect)](effect)
        if self._to_flush:
            submitted, self._to_flush = self._to_flush, {}
            for link in submitted.values():
                link.flush()
        if self._orders:
            orders, self._orders = self._orders, {}
            for (node, what), job_ids in orders.items():
                compute = self._core.compute.get(node)
                if compute is not None:
                    compute.order(what, job_ids)
        if self._to_store:
            batch, self._to_store = self._to_store, []
            self._store(batch)

    def _order(self, what: type[Order], effect: g.Cancel | g.Suspend | g.Resume) -> None:
        self._orders.setdefault((effect.node, what), []).append(effect.job_id)

    def _store(self, batch: Batch) -> None:
        core = self._core
        records = [record for _, record in batch]
        if len(batch) == len(core.jobs):  # no other job is under way that the loop could see to
            try:
                now = core.journal.commit_now(records)
            except JournalError as error:
                core.committed(batch, error)
                return
            if now:
                core.committed(batch, None)
                return

        def done(error: BaseException | None) -> None:
            """In the journal's thread."""
            core.call_soon(lambda: core.committed(batch, error))

        core.journal.append(records, done)

    def _send(self, effect: g.Send) -> None:
        job, compute = self._core.jobs.get(effect.job_id), self._core.compute.get(effect.node)
        if job is None or compute is None or job.work is None:
            return
        work = job.work
        try:
            row = row_for(
                work,
                effect.allocation,
                trusted=compute.link.trusted,
                holder=compute.key,
                identity=self._core.settings.identity,
                routes={link.key: str(link.node.address) for link in self._core.data_links()}
                if work.program.objects or work.target is not None
                else {},
            )
        except AlpyneError as error:
            answer = messages.JobAnswer(
                work.job_id, messages.Verdict.REFUSED, error.code, str(error)[:1000]
            )
            asyncio.get_running_loop().call_soon(self._core.answered, compute, answer)
            return
        compute.submit(Submission(work.job_id, row, work.blob))
        self._to_flush[compute.key] = compute

    def _deliver(self, effect: g.Deliver) -> None:
        job = self._core.jobs.pop(effect.job_id, None)
        if job is None:
            return
        outcome = effect.outcome
        if outcome.misfits:
            silent = [
                f"{link.name}: not reached yet"
                for link in self._core.links.values()
                if link.key not in self._core.table.nodes and link.kind is not NodeKind.DATA
            ]
            outcome = g.with_misfits(outcome, (*outcome.misfits, *silent))
        job.deliver(Ended(outcome, self._core.place(effect.job_id, outcome.node), job.form))

    def _abandon(self, effect: g.Abandon) -> None:
        job = self._core.jobs.pop(effect.job_id, None)
        if job is not None:
            job.fail(JournalError(effect.text))

    def _settle(self, effect: g.Settle) -> None:
        compute = self._core.compute.get(effect.node)
        if compute is not None and self._core.settles:
            compute.settle(effect.job_id, effect.allocation, effect.attempt)

    def _changed(self, effect: g.Changed) -> None:
        job = self._core.jobs.get(effect.job_id)
        if job is not None:
            job.took_place(effect.state, effect.node, accepted=effect.accepted)

    async def _fetch(self, effect: g.Fetch) -> None:
        compute = self._core.compute[effect.node]
        epoch = (effect.allocation, effect.attempt)
        try:
            job = self._core.jobs.get(effect.job_id)
            most = job.work.options.result_bytes if job is not None and job.work is not None else 0
            head, body = await compute.result(effect.job_id, most or RESULT_MAX)
            if (head.allocation, head.attempt) == epoch:
                self._core.handle(
                    g.ResultFetched(effect.node, effect.job_id, *epoch, body, head.sha256)
                )
                return
            text = "its node has another execution's result"
        except ConnectionLost:
            return  # it is fetched again when the node is back
        except AlpyneError as error:
            if not compute.link.is_up:
                return
            text = str(error)
        self._core.handle(g.FetchFailed(effect.node, effect.job_id, *epoch, text))
