"""Daemon and worker, over two socket pairs: frames without records (state WORKER).

On the job's socket pair the daemon talks with the interpreter that runs jobs: RunJob, JobRan,
objects. On the control pair it talks with that interpreter's supervisor: EndWorker, WorkerEnded.
REQUEST and RESPONSE frames, DATA frames (u64 offset, bytes) without flow control: a body runs from
its REQUEST or RESPONSE to the frame with END. The daemon's stream ids are odd, the worker's even.
"""

from dataclasses import dataclass
from typing import Annotated

from alpyne_proto import limits
from alpyne_proto.fields import FLAG, ID16, U8, U16, U32, U64, Blob, Choice, ListOf, Text
from alpyne_proto.messages.job_terms import Cause, JobForm, JobState, ResultCodec
from alpyne_proto.registry import Field, Message, Role, Shape, State, message

IN_WORKER = (State.WORKER,)
OBJECT_PIECE = 4 << 20  # most bytes that one ReadObject brings; the daemon holds them in memory
DAEMON = Role.MANAGER  # towards a worker the daemon is the one that asks
WORKER = Role.NODE


@message(0x60, shape=Shape.REQUEST, sender=WORKER, states=IN_WORKER)
@dataclass(frozen=True, slots=True)
class WorkerReady(Message):
    """Worker to daemon, once: it can take jobs."""

    pid: Annotated[int, Field(2, U32, "process id")]
    python: Annotated[str, Field(4, Text(16), "major.minor")]


@message(0x61, shape=Shape.REQUEST, sender=DAEMON, states=IN_WORKER, answers=(0x62,), body=True)
@dataclass(frozen=True, slots=True)
class RunJob(Message):
    """Daemon to worker: run the program in the body.

    Nothing in it is of one job alone, so that both sides encode and decode it once for many.
    """

    form: Annotated[JobForm, Field(4, Choice(JobForm), "form")]
    codec: Annotated[ResultCodec, Field(6, Choice(ResultCodec), "how values come back")]
    folder: Annotated[str, Field(12, Text(4096), "a command's working folder, made by it")] = ""
    bundle: Annotated[str, Field(14, Text(4096), "zip of its modules, or empty")] = ""
    program: Annotated[str, Field(16, Text(4096), "file with the program, or empty: body")] = ""
    result_bytes: Annotated[int, Field(18, U64, "most bytes of the result")] = 1 << 30
    cpus: Annotated[int, Field(20, U16, "slots it has")] = 1
    disk_bytes: Annotated[int, Field(22, U64, "that its folders may take; 0 = no limit")] = 0


@message(0x62, shape=Shape.RESPONSE, sender=WORKER, states=IN_WORKER, body=True)
@dataclass(frozen=True, slots=True)
class JobRan(Message):
    """Worker to daemon: the job's end; the body is its result (rows of program)."""

    state: Annotated[JobState, Field(2, Choice(JobState), "DONE, FAILED or LIMIT")]
    cause: Annotated[Cause, Field(4, Choice(Cause), "cause")] = Cause.NONE
    text: Annotated[str, Field(6, Text(1024), "the failure in a line")] = ""
    exit_status: Annotated[int, Field(8, U32, "of a command; 256 + n: signal n")] = 0
    ended: Annotated[int, Field(10, U32, "processes it left behind that were ended")] = 0
    left: Annotated[int, Field(12, U32, "processes that could not be ended")] = 0
    cpu_ms: Annotated[int, Field(14, U64, "CPU milliseconds")] = 0
    peak_memory_bytes: Annotated[int, Field(16, U64, "bytes")] = 0
    spent: Annotated[bool, Field(18, FLAG, "the worker cannot take another job")] = False
    disk_read_bytes: Annotated[int, Field(20, U64, "read from disks")] = 0
    disk_written_bytes: Annotated[int, Field(22, U64, "written to disks")] = 0


@message(0x63, shape=Shape.REQUEST, sender=WORKER, states=IN_WORKER, answers=(0x64,))
@dataclass(frozen=True, slots=True)
class ReadObject(Message):
    """Worker to daemon: bytes of an object that the running job holds a ticket for.

    The answer brings at most OBJECT_PIECE bytes; a worker asks again for what follows.
    """

    container_id: Annotated[bytes, Field(2, ID16, "container")]
    path: Annotated[str, Field(4, Text(limits.PATH_MAX), "path")]
    counter: Annotated[int, Field(6, U64, "version")] = 0
    writer: Annotated[bytes, Field(8, Blob(16, 16, or_empty=True), "version's writer")] = b""
    offset: Annotated[int, Field(10, U64, "first byte")] = 0
    length: Annotated[int, Field(12, U64, "most bytes")] = OBJECT_PIECE
    holders: Annotated[
        tuple[bytes, ...],
        Field(14, ListOf(Blob(32, 32), limits.MEMBERS_MAX), "static keys of nodes that have it"),
    ] = ()
    avoid: Annotated[
        tuple[bytes, ...],
        Field(16, ListOf(Blob(32, 32), limits.MEMBERS_MAX), "holders that sent damaged bytes"),
    ] = ()


@message(0x64, shape=Shape.RESPONSE, sender=DAEMON, states=IN_WORKER, body=True)
@dataclass(frozen=True, slots=True)
class ObjectFollows(Message):
    """The body is the object's bytes."""

    size: Annotated[int, Field(2, U64, "bytes of the whole object")]
    sha256: Annotated[bytes, Field(4, Blob(32, 32, or_empty=True), "of the whole object")] = b""
    holder: Annotated[bytes, Field(6, Blob(32, 32, or_empty=True), "who serves it")] = b""
    counter: Annotated[int, Field(8, U64, "version")] = 0
    writer: Annotated[bytes, Field(10, Blob(16, 16, or_empty=True), "version's writer")] = b""


@message(0x65, shape=Shape.REQUEST, sender=WORKER, states=IN_WORKER, answers=(0x66,), body=True)
@dataclass(frozen=True, slots=True)
class WriteObject(Message):
    """Worker to daemon: the body becomes an object, in as many copies as its container asks."""

    container_id: Annotated[bytes, Field(2, ID16, "container")]
    path: Annotated[str, Field(4, Text(limits.PATH_MAX), "path")]
    size: Annotated[int, Field(6, U64, "bytes of the body")]
    copies: Annotated[int, Field(8, U8, "data nodes that must have it; 0 = all of the ticket")] = 0


@message(0x66, shape=Shape.RESPONSE, sender=DAEMON, states=IN_WORKER)
@dataclass(frozen=True, slots=True)
class ObjectWritten(Message):
    """The version that was written, and who has it."""

    counter: Annotated[int, Field(2, U64, "version")]
    writer: Annotated[bytes, Field(4, Blob(16, 16), "version's writer")]
    size: Annotated[int, Field(6, U64, "bytes")]
    sha256: Annotated[bytes, Field(8, Blob(32, 32), "of the object")]
    holders: Annotated[
        tuple[bytes, ...], Field(10, ListOf(Blob(32, 32), limits.MEMBERS_MAX), "static keys")
    ]


@message(0x67, shape=Shape.RESPONSE, sender=DAEMON, states=IN_WORKER)
@dataclass(frozen=True, slots=True)
class ObjectRefused(Message):
    """The object could not be read or written."""

    code: Annotated[int, Field(2, U16, "ErrorCode")]
    text: Annotated[str, Field(4, Text(4096), "what, where, and what to do")]


@message(0x68, shape=Shape.REQUEST, sender=DAEMON, states=IN_WORKER)
@dataclass(frozen=True, slots=True)
class EndWorker(Message):
    """Daemon to supervisor: end the tree with SIGKILL; WorkerEnded follows, then EOF."""


@message(0x69, shape=Shape.REQUEST, sender=WORKER, states=IN_WORKER)
@dataclass(frozen=True, slots=True)
class WorkerEnded(Message):
    """Supervisor to daemon, last: the receipt, and how the worker ended."""

    ended: Annotated[int, Field(2, U32, "processes ended")]
    left: Annotated[int, Field(4, U32, "processes that could not be ended")]
    exit_status: Annotated[int, Field(6, U32, "of the worker; 256 + n: signal n")] = 0
    cpu_ms: Annotated[int, Field(8, U64, "CPU milliseconds of all its jobs")] = 0
    peak_memory_bytes: Annotated[int, Field(10, U64, "bytes")] = 0
    disk_read_bytes: Annotated[int, Field(12, U64, "read from disks by all its jobs")] = 0
    disk_written_bytes: Annotated[int, Field(14, U64, "written to disks, likewise")] = 0
