"""What a request asks for, checked: who asks, for which object, as which job's execution."""

from collections.abc import Callable
from typing import Any, Protocol

from alpyne_grid.nodes.data.events import Condition
from alpyne_grid.nodes.data.records import Descriptor, JobEpoch, ObjectKey, Version
from alpyne_grid.wire import Request

from alpyne_proto import limits
from alpyne_proto.container import NameRefused, check_path, container_id
from alpyne_proto.errors import ErrorCode, Outcome, RequestFailed
from alpyne_proto.messages import data as messages
from alpyne_proto.registry import State
from alpyne_proto.ticket import Ticket, Verb

COUNTER_MAX = (1 << 62) - 1  # stores keep signed 64-bit integers


class Gate(Protocol):
    """What the service asks of access; see ``nodes.access.Access``."""

    def authorize(self, request: Request, container_id: bytes, path: str, verb: Verb) -> bytes:
        """Return the account whose objects ``request`` acts on. Raises RequestFailed."""

    def ticket_of(self, request: Request) -> Ticket | None:
        """Return the ticket that a bearer's request names."""

    def quota_of(self, account: bytes) -> int:
        """Return the account's quota in bytes; 0 = no limit."""


def refuse(
    code: ErrorCode,
    text: str,
    *,
    retryable: bool = False,
    outcome: Outcome = Outcome.NOT_STARTED,
) -> RequestFailed:
    """Return the error that answers a request."""
    return RequestFailed(code, text, retryable=retryable, outcome=outcome)


def key_of(gate: Gate, request: Request, verb: Verb) -> ObjectKey:
    """Return the object that ``request`` names, its owner being the asking account.

    Raises RequestFailed.
    """
    message: Any = request.message
    owner = gate.authorize(request, message.container_id, message.path, verb)
    checked(check_path, message.path)
    return ObjectKey(owner, message.container_id, message.path)


def checked(check: Callable[[str], str], name: str) -> str:
    """Return ``name`` where ``check`` takes it. Raises RequestFailed BAD_REQUEST."""
    try:
        return check(name)
    except NameRefused as error:
        raise refuse(ErrorCode.BAD_REQUEST, str(error)) from None


def version_of(counter: int, writer: bytes) -> Version:
    """Return a version as a client names it. Raises RequestFailed."""
    if not 1 <= counter <= COUNTER_MAX:
        raise refuse(
            ErrorCode.BAD_REQUEST, f"version: expected a counter of 1 to 2^62-1, got {counter}"
        )
    return Version(counter, writer)


def condition_of(message: messages.PutObject | messages.DeleteObject) -> Condition:
    """Return what must stand under the path. Raises RequestFailed."""
    if message.expect is not messages.Expect.VERSION:
        return Condition(message.expect)
    return Condition(message.expect, version_of(message.expect_counter, message.expect_writer))


def epoch_of(
    gate: Gate, request: Request, message: messages.PutObject | messages.DeleteObject
) -> JobEpoch | None:
    """Return the job's execution that writes; a bearer writes only as its ticket's job.

    Raises RequestFailed.
    """
    ticket = gate.ticket_of(request) if request.connection.state is not State.OPEN else None
    if ticket is not None and (message.job_id, message.allocation) != (
        ticket.job,
        ticket.allocation,
    ):
        raise refuse(
            ErrorCode.NOT_PERMITTED,
            "the ticket is of another job or allocation than the request names",
        )
    if not message.job_id:
        return None
    return JobEpoch(message.job_id, message.allocation, message.attempt)


def descriptor_of(owner: bytes, message: messages.PutContainer) -> Descriptor:
    """Return the descriptor that ``owner`` sends. Raises RequestFailed."""
    try:
        expected_id = container_id(owner, message.name)
    except NameRefused as error:
        raise refuse(ErrorCode.BAD_REQUEST, str(error)) from None
    name = f"container {message.name!a}"
    if message.container_id != expected_id:
        raise refuse(
            ErrorCode.BAD_REQUEST,
            f"{name}: expected the id {expected_id.hex()}, which follows from account and name, "
            f"got {message.container_id.hex()}",
        )
    members = message.members
    if len(set(members)) != len(members):
        raise refuse(ErrorCode.BAD_REQUEST, f"{name}: a member is named twice; name each once")
    if not 1 <= message.copies <= min(len(members), limits.COPIES_MAX):
        raise refuse(
            ErrorCode.BAD_REQUEST,
            f"{name}: expected 1 to {limits.COPIES_MAX} copies on at least as many members, got "
            f"{message.copies} copies on {len(members)} members",
        )
    version = version_of(message.counter, message.writer)
    return Descriptor(message.container_id, message.name, message.copies, members, version)


def label_of(request: Request) -> str:
    """Return the peer's host label."""
    hello = request.connection.peer_hello
    return hello.host_label if hello is not None else ""
