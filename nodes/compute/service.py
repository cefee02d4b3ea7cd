"""A compute node's requests: parsed and bounded here, decided by the job table."""

from collections.abc import Callable

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.inquiry import Inquiry
from alpyne_grid.nodes.compute.intake import Intake, QuotaOf
from alpyne_grid.nodes.compute.push import Pusher
from alpyne_grid.nodes.compute.runner import JobRunner, Stores
from alpyne_grid.wire import Connection, Handler

from alpyne_proto.messages.compute import CancelJobs, ResumeJobs, SuspendJobs
from alpyne_proto.registry import Message, State

_ORDERS = (CancelJobs, SuspendJobs, ResumeJobs)
_EVENTS: dict[type[Message], Callable[[bytes, tuple[bytes, ...]], ev.Event]] = {
    CancelJobs: ev.JobsCancelled,
    SuspendJobs: ev.JobsSuspended,
    ResumeJobs: ev.JobsResumed,
}


class ComputeService:
    """The handlers of one compute node."""

    def __init__(
        self, runner: JobRunner, stores: Stores, pusher: Pusher, quota_of: QuotaOf
    ) -> None:
        self._runner = runner
        self._stores = stores
        self._intake = Intake(runner, stores, quota_of)
        self._inquiry = Inquiry(runner.table, stores, pusher)

    def handlers(self) -> dict[type[Message], Handler]:
        """Return the handlers by message."""
        return {**self._intake.handlers(), **self._inquiry.handlers()}

    def on_interrupt(self, connection: Connection, message: Message) -> None:
        """Cancel, pause or resume jobs; ids that are not the account's own are passed over."""
        if not isinstance(message, _ORDERS) or connection.state is not State.OPEN:
            return
        event = _EVENTS[type(message)]
        self._runner.handle(event(connection.account, message.job_ids))

    def kept(self, account: bytes) -> int:
        """Return the bytes that the account keeps here: jobs, results, output, blobs."""
        stores = self._stores
        kept = self._runner.table.bytes_kept(account)
        return kept + stores.blobs.kept(account) + stores.outputs.kept(account)

    def blobs_in_use(self, account: bytes) -> set[bytes]:
        """Return the hashes of the blobs that the account's unfinished jobs name."""
        return self._intake.blobs_in_use(account)
