"""From a program and its options to the row that a node gets: JobSpec, tickets, routes."""

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import commonprefix

from alpyne_grid.manager.bundle import Bundle
from alpyne_grid.manager.errors import ProgramError
from alpyne_grid.manager.grid_events import Plan
from alpyne_grid.manager.identity import ManagerIdentity
from alpyne_grid.manager.options import CheckedOptions
from alpyne_grid.manager.placement import Wants, heaviest_labels
from alpyne_grid.manager.program import Program

from alpyne_proto import limits
from alpyne_proto.codec import encode, encode_row, join_row
from alpyne_proto.jobobject import JobObject
from alpyne_proto.messages.compute import JobForm, JobSpec, ResultCodec
from alpyne_proto.ticket import AUDIENCES_MAX, Ticket, Verb

TICKET_SLACK_S = 3_600  # beyond a job's own timeout: it may wait for a slot


@dataclass(frozen=True, slots=True)
class Target:
    """Where a job may write: a container, its members, and a prefix below which it writes."""

    container_id: bytes
    members: tuple[bytes, ...]
    prefix: str  # whole segments, without a slash at either end


@dataclass(slots=True)
class Work:
    """A job as it is sent: what does not change from one allocation to the next."""

    job_id: bytes
    program: Program
    options: CheckedOptions
    bundle: Bundle | None = None
    group: bytes = b""
    target: Target | None = None
    payload_sha256: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        if len(self.program.payload) > limits.JOB_PAYLOAD_INLINE:
            self.payload_sha256 = hashlib.sha256(self.program.payload).digest()

    def blob(self, sha256: bytes) -> bytes | None:
        """Return the bytes that a node asks for by their hash, where they are this job's."""
        if self.bundle is not None and sha256 == self.bundle.sha256:
            return self.bundle.data
        return self.program.payload if sha256 == self.payload_sha256 else None


def plan_of(work: Work, labels: Callable[[bytes], str]) -> Plan:
    """Return what the table needs to know. ``labels``: host label of a data node, by its key."""
    program, options = work.program, work.options
    weights: dict[str, int] = {}
    for item in program.objects:
        for label in {labels(holder) for holder in item.holders}:
            weights[label] = weights.get(label, 0) + item.size
    wants = Wants(
        requirements=options.requirements,
        python=options.python or program.python,
        cpus=options.cpus,
        labels=heaviest_labels(weights) if weights else frozenset(),
        only=options.nodes,
        asked=options.asked,
        # Whoever reads a value object unpickles it: only nodes that are trusted may write them.
        trusted=work.target is not None,
    )
    return Plan(
        job_id=work.job_id,
        kind=program.kind,
        wants=wants,
        retries=options.retries,
        on_lost=options.on_lost,
        size=len(program.payload),
    )


def check_tickets(work: Work) -> None:
    """Raise ProgramError where a job touches more containers than it can hold tickets for."""
    count = len(_by_container(work.program.objects)) + (work.target is not None)
    if count > limits.TICKETS_PER_JOB:
        raise ProgramError(
            f"{work.program.kind}: touches {count} containers, a job may touch "
            f"{limits.TICKETS_PER_JOB}; split it, or put the objects into fewer containers"
        )


def row_for(
    work: Work,
    allocation: int,
    *,
    trusted: bool,
    holder: bytes,
    identity: ManagerIdentity,
    routes: Mapping[bytes, str],
) -> bytes:
    """Return the encoded row (JobSpec and payload) for one node.

    ``trusted``: whether its results may be unpickled. ``holder``: the node's static key, which may
    show the job's tickets. ``routes``: addresses of data nodes by key.
    """
    program = work.program
    if program.objects or work.target is not None or work.payload_sha256:
        spec = _spec(
            work, allocation, trusted, *_tickets(work, allocation, holder, identity), routes
        )
        return encode_row(spec, b"" if work.payload_sha256 else program.payload)
    made_of = (
        work.options,
        work.bundle.sha256 if work.bundle is not None else b"",
        work.group,
        allocation,
        trusted,
        program.form,
        program.kind,
        program.python,
        program.first,
        program.items,
    )
    before, start, rest = _latest.spec
    if made_of != before:
        meta = encode(_spec(work, allocation, trusted, (), (), routes))
        start, _, rest = meta.partition(work.job_id)
        _latest.spec = made_of, start, rest
    return join_row(start + work.job_id + rest, program.payload)


class _Latest:
    """The spec that was encoded last, cut where its job's id stands.

    Calls of one function differ by their ids alone, and come one after the other.
    """

    def __init__(self) -> None:
        self.spec: tuple[tuple[object, ...], bytes, bytes] = ((), b"", b"")


_latest = _Latest()


def _spec(
    work: Work,
    allocation: int,
    trusted: bool,
    tickets: tuple[bytes, ...],
    audiences: Sequence[bytes],
    routes: Mapping[bytes, str],
) -> JobSpec:
    program, options = work.program, work.options
    asked = options.asked
    return JobSpec(
        job_id=work.job_id,
        allocation=allocation,
        form=program.form,
        codec=ResultCodec.PICKLE if trusted else ResultCodec.PLAIN,
        name=options.name or program.kind,
        bundle=work.bundle.sha256 if work.bundle is not None else b"",
        python=options.python or program.python,
        cpus=options.cpus,
        memory_bytes=asked.memory_bytes,
        timeout_ms=options.timeout_ms,
        output_bytes=options.output_bytes,
        result_bytes=options.result_bytes,
        group=work.group,
        tags=options.tags,
        tickets=tickets,
        data_nodes=tuple(routes[key] for key in audiences if key in routes)[
            : limits.ROUTES_PER_JOB
        ],
        requirements=options.requirements,
        payload_sha256=work.payload_sha256,
        index=min(program.first, (1 << 32) - 1),
        items=program.items,
        processes=asked.processes,
        disk_bytes=asked.disk_bytes,
        network=asked.network,
        image=asked.image,
    )


def needs_bundle(form: JobForm) -> bool:
    """Return whether jobs of this form can import the program's modules."""
    return form is not JobForm.COMMAND


def _by_container(objects: Sequence[JobObject]) -> dict[bytes, list[JobObject]]:
    grouped: dict[bytes, list[JobObject]] = {}
    for item in objects:
        grouped.setdefault(item.container_id, []).append(item)
    return grouped


def _tickets(
    work: Work, allocation: int, holder: bytes, identity: ManagerIdentity
) -> tuple[tuple[bytes, ...], list[bytes]]:
    """Return the job's tickets and the data nodes that they are for."""
    tickets: list[bytes] = []
    audiences: dict[bytes, None] = {}
    life_s = max(limits.TICKET_LIFE_S, work.options.timeout_ms // 1000 + TICKET_SLACK_S)

    def issue(container: bytes, members: tuple[bytes, ...], verbs: Verb, prefix: str) -> None:
        ticket = Ticket.issue(
            identity.device,
            identity.certificate,
            serial=secrets.token_bytes(16),
            holder=holder,
            audiences=members,
            container=container,
            verbs=verbs,
            job=work.job_id,
            allocation=allocation,
            not_after=int(time.time()) + life_s,
            prefix=prefix,
        )
        tickets.append(ticket.encode())
        audiences.update(dict.fromkeys(members))

    for container, items in _by_container(work.program.objects).items():
        members = _most_useful(items)
        if members:
            issue(container, members, Verb.READ, _common_prefix([item.path for item in items]))
    if work.target is not None:
        target = work.target
        members = target.members[:AUDIENCES_MAX]
        issue(target.container_id, members, Verb.READ | Verb.WRITE, target.prefix)
    return tuple(tickets), list(audiences)


def _most_useful(items: Sequence[JobObject]) -> tuple[bytes, ...]:
    """Return the data nodes to read from: those that hold most of the objects."""
    held = Counter(holder for item in items for holder in item.holders)
    return tuple(key for key, _ in held.most_common(AUDIENCES_MAX))


def _common_prefix(paths: Sequence[str]) -> str:
    """Return the segments that all paths begin with; of one path, all of it."""
    return "/".join(commonprefix([path.split("/") for path in paths]))
