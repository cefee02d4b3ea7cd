"""ObjectTable: which writes happen on a data node, in what order, and when they are acknowledged.

A pure core: ``handle(event, now_ms)`` returns effects. It holds what is in flight and each
account's usage, never the names of a container: these are loaded when an operation begins and
forgotten when the last operation on them ends.

Operations on one key are stored one behind the other; each is judged against what the one before
left. Nothing is answered before it is durable.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from alpyne_grid.nodes.data import events as ev
from alpyne_grid.nodes.data.in_flight import (
    STORY,
    Asked,
    Operation,
    Phase,
    Slot,
    SlotKey,
    WrongEvent,
    move,
    slot_key,
)
from alpyne_grid.nodes.data.ledger import Accounts, Fences
from alpyne_grid.nodes.data.records import (
    Change,
    Cutoffs,
    Descriptor,
    ObjectRecord,
    Publish,
    RaiseFence,
    Usage,
)
from alpyne_grid.nodes.data.rules import (
    Refusal,
    check_version,
    container_changes,
    no_container,
    object_changes,
)

from alpyne_proto.errors import ErrorCode

SUPERSEDED_KEPT_MS = 3_600_000  # so that a reader of an exact version can finish
TOMBSTONES_KEPT_MS = 30 * 86_400_000  # a member that was away so long must not bring objects back
FENCES_KEPT_MS = 30 * 86_400_000  # no execution of a job comes so late
_NOT_STORED = "the node could not store the change; nothing was changed; try again later"
SWEEP_ROWS = 200  # one batch, some 12 ms: bounds how long other commits wait for it


class ObjectTable:
    """The write side of a data node. ``usages``: what each account keeps at the start."""

    def __init__(self, usages: Mapping[bytes, Usage]) -> None:
        self._accounts = Accounts(usages)
        self._fences = Fences()
        self._operations: dict[int, Operation] = {}
        self._slots: dict[SlotKey, Slot] = {}
        self._batches: dict[int, int] = {}  # batch -> operation
        self._fence_batches: dict[int, tuple[RaiseFence, Usage]] = {}
        self._last_batch = 0
        self._effects: list[ev.Effect] = []
        self._now_ms = 0

    @property
    def in_flight(self) -> int:
        """Operations that have not ended."""
        return len(self._operations)

    def used_bytes(self, owner: bytes) -> int:
        """Return what ``owner`` keeps, in bytes."""
        return self._accounts.used(owner).size_bytes

    def handle(self, event: ev.Event, now_ms: int) -> list[ev.Effect]:
        """Take ``event`` and return what is to be done, in order.

        now_ms: wall time, milliseconds since the epoch; for ``modified_at_ms`` and retention only.
        Raises WrongEvent for an event that has no place where its operation stands.
        """
        self._now_ms = now_ms
        if isinstance(event, ev.PutAsked | ev.DeleteAsked | ev.ContainerAsked):
            self._begin(event)
        elif isinstance(event, ev.Stored | ev.StoreFailed):
            self._batch_ended(event)
        elif isinstance(event, ev.SweepDue):
            self._sweep()
        elif isinstance(event, ev.SweepDone):
            self._swept(event)
        else:
            self._advance(event)
        effects, self._effects = self._effects, []
        return effects

    # ---- one operation ----

    def _begin(self, asked: Asked) -> None:
        if asked.op in self._operations:
            raise WrongEvent(f"object table: operation {asked.op} is in flight already")
        story = deque([type(asked).__name__], maxlen=STORY)
        self._operations[asked.op] = Operation(asked, Phase.LOADING, story)
        self._slots.setdefault(slot_key(asked), Slot()).users += 1
        if isinstance(asked, ev.ContainerAsked):
            wanted = asked.descriptor.container_id
            self._effects.append(ev.LoadContainer(asked.op, asked.owner, wanted))
            return
        self._fences.enter(asked.key.owner, asked.epoch)
        job_id = asked.epoch.job_id if asked.epoch is not None else b""
        self._effects.append(ev.Load(asked.op, asked.key, job_id))

    def _advance(self, event: Any) -> None:
        operation = self._operations.get(event.op)
        if operation is None:
            if isinstance(event, ev.Abandoned):
                return  # it ended at the same time
            raise WrongEvent(f"object table: {type(event).__name__} for no operation {event.op}")
        operation.story.append(type(event).__name__)
        step = _STEPS.get((type(event), operation.phase))
        if step is None:
            raise WrongEvent(
                f"object table: {type(event).__name__} while operation {event.op} is "
                f"{operation.phase.value}; its last events: {', '.join(operation.story)}"
            )
        step(self, operation, event)

    def _loaded(self, operation: Operation, event: ev.Loaded) -> None:
        asked = operation.asked
        if isinstance(asked, ev.ContainerAsked):
            raise WrongEvent("object table: Loaded for a container; expected ContainerLoaded")
        slot = self._slots[asked.key]
        if not slot.is_loaded:
            # Otherwise what is held here is newer: nobody else writes.
            slot.is_loaded, slot.current = True, event.found.current
        try:
            if not event.found.has_container:
                raise Refusal(ErrorCode.NOT_FOUND, no_container(asked.key.container_id))
            self._see_execution(asked, event.found.fence)
            self._judge(asked, slot)
            if isinstance(asked, ev.PutAsked):
                self._accounts.reserve(asked.key.owner, asked.size, asked.quota_bytes)
                operation.reserved = asked.size
        except Refusal as refusal:
            self._refuse(operation, refusal)
            return
        if isinstance(asked, ev.PutAsked):
            move(operation, Phase.RECEIVING)
            self._effects.append(ev.Receive(asked.op))
        else:
            self._enqueue(operation, slot)

    def _container_loaded(self, operation: Operation, event: ev.ContainerLoaded) -> None:
        asked = operation.asked
        if not isinstance(asked, ev.ContainerAsked):
            raise WrongEvent("object table: ContainerLoaded for an object; expected Loaded")
        slot = self._slots[slot_key(asked)]
        if not slot.is_loaded:
            slot.is_loaded, slot.current = True, event.current
        self._enqueue(operation, slot)

    def _staged(self, operation: Operation, event: ev.BodyStaged) -> None:
        operation.staged = event.staged
        self._enqueue(operation, self._slots[slot_key(operation.asked)])

    def _abandon(self, operation: Operation, event: ev.Abandoned) -> None:
        self._end(operation)

    def _mute(self, operation: Operation, event: ev.Abandoned) -> None:
        operation.muted = True

    # ---- storing, one operation at a time on each key ----

    def _enqueue(self, operation: Operation, slot: Slot) -> None:
        if slot.storing is None:
            self._store(operation, slot)
        else:
            move(operation, Phase.WAITING)
            slot.waiting.append(operation.asked.op)

    def _store(self, operation: Operation, slot: Slot) -> None:
        """Judge the operation against what stands there now, and store it or end it."""
        asked, current = operation.asked, slot.current
        changes: list[Change]
        try:
            if isinstance(asked, ev.ContainerAsked):
                assert current is None or isinstance(current, Descriptor)
                operation.outcome, changes = container_changes(asked, current)
                if current is None:
                    self._accounts.check_names(asked.owner)
            else:
                record = self._judge(asked, slot)
                operation.outcome, changes = object_changes(
                    asked, record, operation.staged, self._now_ms
                )
        except Refusal as refusal:
            self._refuse(operation, refusal)
            return
        if not changes:
            self._answer(operation, operation.outcome)
            return
        move(operation, Phase.STORING)
        slot.storing = asked.op
        batch = self._next_batch()
        self._batches[batch] = asked.op
        self._effects.append(ev.Store(batch, tuple(changes)))

    def _batch_ended(self, event: ev.Stored | ev.StoreFailed) -> None:
        raised = self._fence_batches.pop(event.batch, None)
        if raised is not None:
            fence, adds = raised
            self._fences.leave(fence.owner, fence.epoch)
            if isinstance(event, ev.Stored):
                self._accounts.add(fence.owner, adds)
            return
        op = self._batches.pop(event.batch, None)
        if op is None:
            raise WrongEvent(f"object table: {type(event).__name__} for no batch {event.batch}")
        operation = self._operations[op]
        slot = self._slots[slot_key(operation.asked)]
        slot.storing = None
        if isinstance(event, ev.Stored):
            self._adopt(operation, slot)
            operation.staged = None
            self._answer(operation, operation.outcome)
        else:
            text = event.why or _NOT_STORED
            self._refuse(operation, Refusal(ErrorCode.STORE_FAILED, text, retryable=True))
        while slot.waiting and slot.storing is None:
            self._store(self._operations[slot.waiting.popleft()], slot)

    def _adopt(self, operation: Operation, slot: Slot) -> None:
        """Make what was stored the present."""
        asked = operation.asked
        outcome = operation.outcome
        if isinstance(asked, ev.ContainerAsked):
            if slot.current is None:
                self._accounts.add(asked.owner, Usage(0, 1))
        elif outcome is not slot.current:
            assert isinstance(outcome, ObjectRecord)
            previous = slot.current
            assert previous is None or isinstance(previous, ObjectRecord)
            self._accounts.add(asked.key.owner, Publish(asked.key, outcome, previous, None, 0).adds)
        slot.current = outcome

    # ---- rules ----

    def _judge(self, asked: ev.PutAsked | ev.DeleteAsked, slot: Slot) -> ObjectRecord | None:
        """Return the current version. Raises Refusal where the operation must not happen."""
        current = slot.current
        assert current is None or isinstance(current, ObjectRecord)
        self._fences.check(asked.key.owner, asked.epoch)
        check_version(asked, current)
        if isinstance(asked, ev.PutAsked) or current is None:  # what frees is never refused
            self._accounts.check_names(asked.key.owner)
        return current

    def _see_execution(self, asked: ev.PutAsked | ev.DeleteAsked, stored: tuple[int, int]) -> None:
        """Note the job's execution; a higher one than any before is stored at once."""
        owner, epoch = asked.key.owner, asked.epoch
        if epoch is None:
            return
        is_new = self._fences.is_new(owner, epoch, stored)
        if is_new:
            self._accounts.check_names(owner)
        if self._fences.see(owner, epoch, stored):
            fence = RaiseFence(owner, epoch, self._now_ms)
            self._fences.enter(owner, epoch)  # until it is stored
            batch = self._next_batch()
            self._fence_batches[batch] = fence, Usage(0, int(is_new))
            self._effects.append(ev.Store(batch, (fence,)))

    # ---- retention ----

    def _sweep(self) -> None:
        now = self._now_ms
        cutoffs = Cutoffs(now - SUPERSEDED_KEPT_MS, now - TOMBSTONES_KEPT_MS, now - FENCES_KEPT_MS)
        self._effects.append(ev.Sweep(cutoffs, SWEEP_ROWS))

    def _swept(self, event: ev.SweepDone) -> None:
        for owner, freed in event.swept.freed.items():
            self._accounts.add(owner, Usage(-freed.size_bytes, -freed.rows))
        if event.swept.more:
            self._sweep()

    # ---- parts ----

    def _answer(self, operation: Operation, current: ObjectRecord | Descriptor | None) -> None:
        assert current is not None
        if not operation.muted:
            op = operation.asked.op
            self._effects.append(
                ev.AnswerContainer(op, current)
                if isinstance(current, Descriptor)
                else ev.Answer(op, current)
            )
        self._end(operation)

    def _refuse(self, operation: Operation, refusal: Refusal) -> None:
        if not operation.muted:
            self._effects.append(
                ev.Refuse(operation.asked.op, refusal.code, refusal.text, refusal.retryable)
            )
        self._end(operation)

    def _end(self, operation: Operation) -> None:
        asked = operation.asked
        del self._operations[asked.op]
        if operation.staged is not None:
            self._effects.append(ev.Discard(operation.staged))
        key = slot_key(asked)
        slot = self._slots[key]
        slot.users -= 1
        if not slot.users:
            del self._slots[key]
        if isinstance(asked, ev.ContainerAsked):
            return
        self._accounts.release(asked.key.owner, operation.reserved)
        self._fences.leave(asked.key.owner, asked.epoch)

    def _next_batch(self) -> int:
        self._last_batch += 1
        return self._last_batch


_Step = Callable[[ObjectTable, Operation, Any], None]

# What may happen to an operation where; every other pair raises WrongEvent.
_STEPS: dict[tuple[type, Phase], _Step] = {
    (ev.Loaded, Phase.LOADING): ObjectTable._loaded,
    (ev.ContainerLoaded, Phase.LOADING): ObjectTable._container_loaded,
    (ev.BodyStaged, Phase.RECEIVING): ObjectTable._staged,
    (ev.Abandoned, Phase.LOADING): ObjectTable._abandon,
    (ev.Abandoned, Phase.RECEIVING): ObjectTable._abandon,
    (ev.Abandoned, Phase.WAITING): ObjectTable._mute,
    (ev.Abandoned, Phase.STORING): ObjectTable._mute,
}
