"""Compute nodes: jobs, blobs, results, output, subscriptions (spec/PROTOCOL.md, "Compute")."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from alpyne_proto import limits
from alpyne_proto.errors import ErrorCode
from alpyne_proto.fields import (
    FLAG,
    HASH32,
    ID16,
    REAL,
    U8,
    U16,
    U32,
    U64,
    Bits,
    Blob,
    Choice,
    ListOf,
    Text,
)
from alpyne_proto.messages.job_terms import Cause as Cause
from alpyne_proto.messages.job_terms import JobForm as JobForm
from alpyne_proto.messages.job_terms import JobState as JobState
from alpyne_proto.messages.job_terms import ResultCodec as ResultCodec
from alpyne_proto.registry import Field, Message, Role, Shape, message, nested, struct


class Operator(IntEnum):
    """How a requirement compares an attribute of the offer with its value."""

    EQUAL = 1
    NOT_EQUAL = 2
    AT_LEAST = 3
    AT_MOST = 4
    HAS = 5  # the attribute is a comma-separated list that holds the value


@struct
@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on the node's offer; both sides call ``alpyne_proto.offer.satisfies``."""

    name: Annotated[str, Field(2, Text(64), "attribute or resource")]
    operator: Annotated[Operator, Field(4, Choice(Operator), "comparison")]
    value: Annotated[str, Field(6, Text(256), "value; numbers in decimal")]


@message(
    0x20,
    shape=Shape.REQUEST,
    sender=Role.MANAGER,
    answers=(0x0C,),
    rows=(0x21,),
    answer_rows=(0x23,),
    body=True,
)
@dataclass(frozen=True, slots=True)
class SubmitJobs(Message):
    """Manager to compute node: 1 to 256 JobSpec rows.

    Answered by JobAnswer rows after the commit.
    """

    count: Annotated[int, Field(2, U16, "rows, 1 to 256")]


@message(0x21, shape=Shape.ROW, sender=Role.MANAGER, payload_max=limits.JOB_PAYLOAD_INLINE)
@dataclass(frozen=True, slots=True)
class JobSpec(Message):
    """One job; the row's payload is its program (or empty with ``payload_sha256``).

    The job id is (journal id, counter) and the request id of the submission: a node that knows the
    id and an allocation as high answers DUPLICATE and changes nothing. Keys 30 (inputs), 36
    (environment) and 38 (restart policy) are reserved.
    """

    job_id: Annotated[bytes, Field(2, ID16, "8 bytes journal, 8 bytes counter")]
    allocation: Annotated[int, Field(4, U32, "from 1; minted by the owner's manager")]
    form: Annotated[JobForm, Field(6, Choice(JobForm), "what the payload is")]
    codec: Annotated[ResultCodec, Field(8, Choice(ResultCodec), "how values come back")] = (
        ResultCodec.PICKLE
    )
    name: Annotated[str, Field(10, Text(200), "for lists")] = ""
    bundle: Annotated[bytes, Field(12, Blob(32, 32, or_empty=True), "SHA-256 of its modules")] = b""
    python: Annotated[str, Field(14, Text(16), "major.minor that the code needs; empty = any")] = ""
    cpus: Annotated[int, Field(16, U16, "slots")] = 1
    memory_bytes: Annotated[int, Field(18, U64, "limit; 0 = none")] = 0
    timeout_ms: Annotated[int, Field(20, U64, "milliseconds in RUNNING; 0 = none")] = 0
    output_bytes: Annotated[int, Field(22, U64, "most stdout + stderr; 0 = the node's")] = 0
    result_bytes: Annotated[int, Field(24, U64, "most result bytes; 0 = the node's")] = 0
    group: Annotated[bytes, Field(26, Blob(16, 16, or_empty=True), "a map's id")] = b""
    tags: Annotated[
        tuple[str, ...], Field(28, ListOf(Text(limits.TAG_MAX), limits.TAGS_MAX), "tags")
    ] = ()
    tickets: Annotated[
        tuple[bytes, ...],
        Field(32, ListOf(Blob(1, limits.TICKET_MAX), limits.TICKETS_PER_JOB), "for its objects"),
    ] = ()
    data_nodes: Annotated[
        tuple[str, ...],
        Field(
            34, ListOf(Text(limits.ADDRESS_MAX), limits.ROUTES_PER_JOB), "addresses of audiences"
        ),
    ] = ()
    requirements: Annotated[
        tuple[Requirement, ...], Field(40, ListOf(nested(Requirement), 16), "all must hold")
    ] = ()
    payload_sha256: Annotated[
        bytes, Field(42, Blob(32, 32, or_empty=True), "the payload, sent by PutBlob")
    ] = b""
    index: Annotated[int, Field(44, U32, "place in its group: a chunk's first item")] = 0
    items: Annotated[int, Field(46, U32, "items of a MAP; 0 for the other forms")] = 0
    processes: Annotated[int, Field(48, U32, "most at once; 0 = the node's")] = 0
    disk_bytes: Annotated[int, Field(50, U64, "most bytes of its folders; 0 = the node's")] = 0
    network: Annotated[str, Field(52, Text(64), "one that the node lists; empty = none")] = ""
    image: Annotated[str, Field(54, Text(256), "one that the node lists; empty = its own")] = ""


class Verdict(IntEnum):
    """What a node says to one submitted job."""

    ACCEPTED = 1
    DUPLICATE = 2
    NEED_BLOB = 3  # send ``missing`` by PutBlob and submit again
    REFUSED = 4
    FENCED = 5  # a higher allocation of this job is known here


@message(0x23, shape=Shape.ROW, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class JobAnswer(Message):
    """The answer to one JobSpec, durable when ACCEPTED."""

    job_id: Annotated[bytes, Field(2, ID16, "job")]
    verdict: Annotated[Verdict, Field(4, Choice(Verdict), "verdict")]
    code: Annotated[ErrorCode, Field(6, Choice(ErrorCode), "with REFUSED")] = ErrorCode.NO_ERROR
    text: Annotated[str, Field(8, Text(1024), "with REFUSED: why and what to do")] = ""
    missing: Annotated[tuple[bytes, ...], Field(10, ListOf(HASH32, 4), "with NEED_BLOB")] = ()
    retryable: Annotated[bool, Field(13, FLAG, "with REFUSED: later, or elsewhere")] = False
    retry_after_ms: Annotated[int, Field(15, U32, "with REFUSED: wait at least so long")] = 0


@message(0x27, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x0A,), body=True)
@dataclass(frozen=True, slots=True)
class PutBlob(Message):
    """Manager to compute node: keep the body (a bundle or a payload) under its hash."""

    sha256: Annotated[bytes, Field(2, HASH32, "of the body")]
    size: Annotated[int, Field(4, U64, "bytes, at most BLOB_MAX")]


@message(0x25, shape=Shape.INTERRUPT, sender=Role.MANAGER)
@dataclass(frozen=True, slots=True)
class SuspendJobs(Message):
    """Manager to compute node: pause these jobs; one that does not run yet, as soon as it runs."""

    job_ids: Annotated[tuple[bytes, ...], Field(2, ListOf(ID16, limits.CANCEL_IDS), "jobs")]


@message(0x26, shape=Shape.INTERRUPT, sender=Role.MANAGER)
@dataclass(frozen=True, slots=True)
class ResumeJobs(Message):
    """Manager to compute node: let these jobs go on."""

    job_ids: Annotated[tuple[bytes, ...], Field(2, ListOf(ID16, limits.CANCEL_IDS), "jobs")]


@message(0x28, shape=Shape.INTERRUPT, sender=Role.MANAGER)
@dataclass(frozen=True, slots=True)
class CancelJobs(Message):
    """Manager to compute node: end these jobs; each ends as KILLED with a receipt in its event."""

    job_ids: Annotated[tuple[bytes, ...], Field(2, ListOf(ID16, limits.CANCEL_IDS), "jobs")]


@message(0x29, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x2A,))
@dataclass(frozen=True, slots=True)
class GetResult(Message):
    """Manager to compute node: a finished job's result; NOT_FOUND for unknown and foreign ids."""

    job_id: Annotated[bytes, Field(2, ID16, "job")]
    offset: Annotated[int, Field(4, U64, "first byte")] = 0


@message(0x2B, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x0A,), rows=(0x2C,), body=True)
@dataclass(frozen=True, slots=True)
class SettleJobs(Message):
    """Manager to compute node: these results (SettleRow rows) are delivered; keep them 1 hour."""

    count: Annotated[int, Field(2, U16, "rows, 1 to 256")]


@message(0x2C, shape=Shape.ROW, sender=Role.MANAGER)
@dataclass(frozen=True, slots=True)
class SettleRow(Message):
    """One settled execution."""

    job_id: Annotated[bytes, Field(2, ID16, "job")]
    allocation: Annotated[int, Field(4, U32, "epoch")]
    attempt: Annotated[int, Field(6, U32, "epoch")]


@message(0x2D, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x0C,), answer_rows=(0x2E,))
@dataclass(frozen=True, slots=True)
class ListJobs(Message):
    """Manager to compute node: the account's jobs, as JobRow rows in order of submission."""

    journal: Annotated[bytes, Field(2, Blob(8, 8, or_empty=True), "only of this journal")] = b""
    group: Annotated[bytes, Field(4, Blob(16, 16, or_empty=True), "only of this group")] = b""
    tag: Annotated[str, Field(6, Text(limits.TAG_MAX), "only with this tag")] = ""
    states: Annotated[int, Field(8, Bits(0x7FE), "bit n = state n; 0 = all")] = 0
    job_id: Annotated[bytes, Field(10, Blob(16, 16, or_empty=True), "only this job")] = b""
    limit: Annotated[int, Field(12, U32, "most rows, newest kept; 0 = all")] = 0


@struct
@dataclass(frozen=True, slots=True)
class Usage:
    """What an execution used."""

    wall_ms: Annotated[int, Field(2, U64, "milliseconds from start to end")] = 0
    cpu_ms: Annotated[int, Field(4, U64, "user + system CPU milliseconds")] = 0
    peak_memory_bytes: Annotated[int, Field(6, U64, "largest, as the kernel or samples say")] = 0
    read_bytes: Annotated[int, Field(8, U64, "object bytes read through the node")] = 0
    written_bytes: Annotated[int, Field(10, U64, "object bytes written through the node")] = 0
    failovers: Annotated[int, Field(12, U32, "reads that went on at another data node")] = 0
    disk_read_bytes: Annotated[int, Field(14, U64, "read from disks, as the kernel counts")] = 0
    disk_written_bytes: Annotated[int, Field(16, U64, "written to disks, likewise")] = 0
    peak_is_shared: Annotated[
        bool, Field(18, FLAG, "the peak may be of an earlier job in the same place")
    ] = False


_NO_USAGE = Usage()


@message(0x2A, shape=Shape.RESPONSE, sender=Role.NODE, body=True)
@dataclass(frozen=True, slots=True)
class ResultFollows(Message):
    """The body is the result's bytes from the asked offset."""

    state: Annotated[JobState, Field(2, Choice(JobState), "a finished state")]
    allocation: Annotated[int, Field(4, U32, "epoch")]
    attempt: Annotated[int, Field(6, U32, "epoch")]
    size: Annotated[int, Field(8, U64, "bytes of the whole result")]
    sha256: Annotated[bytes, Field(10, HASH32, "of the whole result")]


@message(0x2E, shape=Shape.ROW, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class JobRow(Message):
    """One job as its node knows it."""

    job_id: Annotated[bytes, Field(2, ID16, "job")]
    state: Annotated[JobState, Field(4, Choice(JobState), "state")]
    allocation: Annotated[int, Field(6, U32, "epoch")]
    attempt: Annotated[int, Field(8, U32, "epoch")]
    form: Annotated[JobForm, Field(10, Choice(JobForm), "form")]
    name: Annotated[str, Field(12, Text(200), "name")] = ""
    group: Annotated[bytes, Field(14, Blob(16, 16, or_empty=True), "group")] = b""
    tags: Annotated[
        tuple[str, ...], Field(16, ListOf(Text(limits.TAG_MAX), limits.TAGS_MAX), "tags")
    ] = ()
    index: Annotated[int, Field(18, U32, "place in its group")] = 0
    submitted_at_ms: Annotated[int, Field(20, U64, "milliseconds since the epoch")] = 0
    cause: Annotated[Cause, Field(22, Choice(Cause), "why it did not end as DONE")] = Cause.NONE
    settled: Annotated[bool, Field(24, FLAG, "its result was delivered")] = False
    result_bytes: Annotated[int, Field(26, U64, "size of the result")] = 0
    codec: Annotated[ResultCodec, Field(28, Choice(ResultCodec), "of its values")] = (
        ResultCodec.PICKLE
    )
    usage: Annotated[Usage, Field(31, nested(Usage), "what it used")] = _NO_USAGE
    text: Annotated[str, Field(33, Text(1024), "the failure in a line")] = ""
    items: Annotated[int, Field(35, U32, "items of a MAP")] = 0


@message(0x2F, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x30,), answer_rows=(0x31,))
@dataclass(frozen=True, slots=True)
class ReadOutput(Message):
    """Manager to compute node: stdout and stderr as OutputRow rows.

    With ``follow`` the rows go on until the job has finished.
    """

    job_id: Annotated[bytes, Field(2, ID16, "job")]
    offset: Annotated[int, Field(4, U64, "first byte of both streams together")] = 0
    follow: Annotated[bool, Field(6, FLAG, "stay until the job has finished")] = False


@message(0x30, shape=Shape.RESPONSE, sender=Role.NODE, body=True, rows=(0x31,))
@dataclass(frozen=True, slots=True)
class OutputFollows(Message):
    """OutputRow rows follow."""

    allocation: Annotated[int, Field(2, U32, "epoch whose output it is")]
    attempt: Annotated[int, Field(4, U32, "epoch whose output it is")]


@message(0x31, shape=Shape.ROW, sender=Role.NODE, payload_max=64 * 1024)
@dataclass(frozen=True, slots=True)
class OutputRow(Message):
    """Bytes that the job wrote, in the row's payload, in the order in which the node saw them."""

    descriptor: Annotated[int, Field(2, U8, "1 = stdout, 2 = stderr")]
    offset: Annotated[int, Field(4, U64, "of its first byte in both streams together")]


SUBSCRIBE_JOBS = 1
SUBSCRIBE_LOAD = 2


@message(0x32, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x33,))
@dataclass(frozen=True, slots=True)
class Subscribe(Message):
    """Manager to compute node: push job events and load. The node opens a PushEvents stream."""

    kinds: Annotated[int, Field(2, Bits(0x03), "1 = jobs, 2 = load")]
    journal: Annotated[bytes, Field(4, Blob(8, 8, or_empty=True), "only its jobs")] = b""
    after: Annotated[int, Field(6, U64, "first every job whose last event is newer")] = 0


@message(0x33, shape=Shape.RESPONSE, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class Subscribed(Message):
    """The subscription's number."""

    subscription: Annotated[int, Field(2, U32, "on this connection")]
    sequence: Annotated[int, Field(4, U64, "number of the newest event")] = 0


@message(
    0x34, shape=Shape.REQUEST, sender=Role.NODE, answers=(0x0A,), rows=(0x35, 0x36, 0x37), body=True
)
@dataclass(frozen=True, slots=True)
class PushEvents(Message):
    """Compute node to manager: the stream of one subscription's rows; open as long as it lives."""

    subscription: Annotated[int, Field(2, U32, "on this connection")]


@message(0x35, shape=Shape.ROW, sender=Role.NODE, payload_max=limits.RESULT_INLINE_MAX)
@dataclass(frozen=True, slots=True)
class JobEvent(Message):
    """A job's state changed; a result up to 48 KiB is the payload, larger ones by GetResult."""

    sequence: Annotated[int, Field(2, U64, "rising per account and store")]
    job_id: Annotated[bytes, Field(4, ID16, "job")]
    allocation: Annotated[int, Field(6, U32, "epoch")]
    attempt: Annotated[int, Field(8, U32, "epoch")]
    state: Annotated[JobState, Field(10, Choice(JobState), "new state")]
    cause: Annotated[Cause, Field(12, Choice(Cause), "why it did not end as DONE")] = Cause.NONE
    result_bytes: Annotated[int, Field(14, U64, "size of the result")] = 0
    sha256: Annotated[bytes, Field(16, Blob(32, 32, or_empty=True), "of the result")] = b""
    inline: Annotated[bool, Field(18, FLAG, "the row's payload is the whole result")] = False
    isolation: Annotated[int, Field(20, U8, "level that it ran at: 0, 1, 2")] = 0
    ended: Annotated[int, Field(22, U32, "receipt: processes that were ended")] = 0
    left: Annotated[int, Field(24, U32, "receipt: processes that could not be ended")] = 0
    exit_status: Annotated[int, Field(26, U32, "of a command; 256 + n: signal n")] = 0
    text: Annotated[str, Field(29, Text(1024), "the failure in a line")] = ""
    usage: Annotated[Usage, Field(31, nested(Usage), "what it used")] = _NO_USAGE
    signature: Annotated[bytes, Field(33, Blob(64, 64, or_empty=True), "reserved")] = b""


@message(0x36, shape=Shape.ROW, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class LoadEvent(Message):
    """The node's load changed."""

    slots: Annotated[int, Field(2, U16, "execution places")]
    busy_slots: Annotated[int, Field(4, U16, "in use")]
    queued: Annotated[int, Field(6, U32, "jobs waiting, all accounts")]
    load: Annotated[float, Field(8, REAL, "machine load per core")] = 0.0
    score: Annotated[float, Field(10, REAL, "benchmark score, one core")] = 0.0
    score_estimated: Annotated[bool, Field(12, FLAG, "the benchmark has not run yet")] = False


@message(0x37, shape=Shape.ROW, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class EventGap(Message):
    """Events were dropped because the subscriber was slow; ask again with ListJobs."""

    first: Annotated[int, Field(2, U64, "first sequence left out")]
    last: Annotated[int, Field(4, U64, "last sequence left out")]
