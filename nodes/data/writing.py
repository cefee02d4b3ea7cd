"""The requests that change something: PutContainer, PutObject, DeleteObject."""

import asyncio
from collections.abc import Callable

from alpyne_grid.nodes.data import events as ev
from alpyne_grid.nodes.data.asking import (
    Gate,
    condition_of,
    descriptor_of,
    epoch_of,
    key_of,
    label_of,
    refuse,
    version_of,
)
from alpyne_grid.nodes.data.backends.base import Data, DataBackend, Stage
from alpyne_grid.nodes.data.driver import ObjectDriver, Step
from alpyne_grid.nodes.data.records import Descriptor, ObjectKey, ObjectRecord, Staged
from alpyne_grid.nodes.data.traffic import Traffic
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.wire import BodyReader, Request

from alpyne_proto import limits
from alpyne_proto.errors import ErrorCode, Outcome, RequestFailed
from alpyne_proto.messages import data as messages
from alpyne_proto.messages.control import BodyDigest
from alpyne_proto.ticket import Verb


class Writing:
    """Handlers of the changing requests."""

    def __init__(
        self, driver: ObjectDriver, backend: DataBackend, gate: Gate, traffic: Traffic
    ) -> None:
        self._driver = driver
        self._backend = backend
        self._gate = gate
        self._traffic = traffic

    async def put_container(self, request: Request) -> None:
        """Keep a descriptor; answer with the one that the node now has."""
        message: messages.PutContainer = request.message
        owner = request.connection.account
        descriptor = descriptor_of(owner, message)
        op = self._driver.new_op()
        step = await self._begin(op, ev.ContainerAsked(op, owner, descriptor))
        assert isinstance(step, ev.AnswerContainer)
        request.reply_nowait(container_info(step.descriptor))

    async def put(self, request: Request) -> None:
        """Take a body and publish it as a version of an object."""
        message: messages.PutObject = request.message
        key = key_of(self._gate, request, Verb.WRITE)
        if message.size > limits.OBJECT_MAX:
            raise refuse(
                ErrorCode.BAD_REQUEST,
                f"object {key.path!a}: expected at most {limits.OBJECT_MAX} bytes, "
                f"got {message.size}",
            )
        op = self._driver.new_op()
        asked = ev.PutAsked(
            op,
            key,
            version_of(message.counter, message.writer),
            message.size,
            condition_of(message),
            epoch_of(self._gate, request, message),
            self._gate.quota_of(key.owner),
        )
        step = await self._begin(op, asked)
        assert isinstance(step, ev.Receive)
        try:
            staged = await self._receive(request, key, message.size)
            step = await self._ask(ev.BodyStaged(op, staged))
        except BaseException:
            self._driver.abandon(op)
            raise
        assert isinstance(step, ev.Answer)
        request.reply_nowait(object_info(step.record))

    async def delete(self, request: Request) -> None:
        """Write a tombstone."""
        message: messages.DeleteObject = request.message
        key = key_of(self._gate, request, Verb.WRITE)
        version = version_of(message.counter, message.writer)
        epoch = epoch_of(self._gate, request, message)
        op = self._driver.new_op()
        asked = ev.DeleteAsked(op, key, version, condition_of(message), epoch)
        step = await self._begin(op, asked)
        assert isinstance(step, ev.Answer)
        request.reply_nowait(object_info(step.record))

    # ---- parts ----

    async def _begin(
        self, op: int, asked: ev.PutAsked | ev.DeleteAsked | ev.ContainerAsked
    ) -> Step:
        try:
            wanted = await self._ask(asked)
            assert isinstance(wanted, ev.Load | ev.LoadContainer)
            return _unless_refused(await self._driver.load(wanted))
        except BaseException:
            self._driver.abandon(op)
            raise

    async def _ask(
        self, event: ev.PutAsked | ev.DeleteAsked | ev.ContainerAsked | ev.BodyStaged
    ) -> Step:
        return _unless_refused(await self._driver.ask(event))

    async def _receive(self, request: Request, key: ObjectKey, size: int) -> Staged:
        """Take the body into the back end, whole, durable and with the client's digest."""
        try:
            stage = self._backend.stage(key.owner, size)
        except StoreFailed as error:
            raise _not_stored(error) from None
        is_whole = False
        try:
            await request.body.pour(_Bounded(stage, key, size))
            digest = _digest_behind(request.body, key, size)
            is_whole = True
        except OSError as error:
            raise _disk_failed(error) from None
        finally:
            if not is_whole:
                self._driver.discard(stage)
        self._traffic.received(key.owner, label_of(request), size)
        staged = await self._finish(stage)
        if staged.sha256 != digest:
            self._driver.discard_staged(staged)
            raise refuse(
                ErrorCode.DIGEST_MISMATCH,
                f"object {key.path!a}: the body's SHA-256 is {staged.sha256.hex()}, its sender "
                f"computed {digest.hex()}; nothing was published; send it again",
                retryable=True,
            )
        return staged

    async def _finish(self, stage: Stage) -> Staged:
        """Return the staged body; where the request ends before, what was staged goes."""
        finishing = asyncio.ensure_future(stage.finish())
        try:
            return await asyncio.shield(finishing)
        except asyncio.CancelledError:
            self._driver.discard(finishing)
            raise
        except StoreFailed as error:
            raise _not_stored(error) from None


class _Bounded:
    """A stage that refuses more bytes than were announced: only these were reserved."""

    def __init__(self, stage: Stage, key: ObjectKey, size: int) -> None:
        self._stage = stage
        self._key = key
        self._size = size
        self._left = size

    def feed(self, data: Data) -> bool:
        self._left -= len(data)
        if self._left < 0:
            raise refuse(
                ErrorCode.BAD_REQUEST,
                f"object {self._key.path!a}: expected a body of {self._size} bytes, got more",
            )
        return self._stage.feed(data)

    def when_room(self, callback: Callable[[], None]) -> None:
        self._stage.when_room(callback)


def _unless_refused(step: Step) -> Step:
    if isinstance(step, ev.Refuse):
        # Where the store is another machine, what it did not acknowledge may yet have happened.
        maybe = step.code is ErrorCode.STORE_FAILED
        outcome = Outcome.MAYBE if maybe else Outcome.NOT_STARTED
        raise refuse(step.code, step.text, retryable=step.retryable, outcome=outcome)
    return step


def _digest_behind(body: BodyReader, key: ObjectKey, size: int) -> bytes:
    """Return the SHA-256 that came behind a body of ``size`` bytes. Raises RequestFailed."""
    if body.received != size:
        raise refuse(
            ErrorCode.BAD_REQUEST,
            f"object {key.path!a}: expected a body of {size} bytes, got {body.received}",
        )
    if not isinstance(body.trailer, BodyDigest):
        raise refuse(
            ErrorCode.BAD_REQUEST,
            f"object {key.path!a}: expected a BodyDigest trailer behind the body, got none",
        )
    return body.trailer.sha256


def _not_stored(error: StoreFailed) -> RequestFailed:
    return refuse(ErrorCode.STORE_FAILED, str(error), retryable=True)


def _disk_failed(error: OSError) -> RequestFailed:
    reason = error.strerror or "input/output error"
    return refuse(
        ErrorCode.STORE_FAILED,
        f"the node could not write the object ({reason}); put it on another node",
        retryable=True,
    )


def object_info(record: ObjectRecord) -> messages.ObjectInfo:
    """Return a version as a message."""
    return messages.ObjectInfo(
        *record.version, record.size, record.sha256, record.deleted, record.modified_at_ms
    )


def container_info(kept: Descriptor) -> messages.ContainerInfo:
    """Return a descriptor as a message."""
    return messages.ContainerInfo(
        kept.container_id, kept.name, kept.copies, kept.members, *kept.version
    )
