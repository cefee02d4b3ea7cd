"""Programs and results: what a job's payload and result hold, by form (rows; see encode_row).

CALL     Function, Arguments, Buffer*                       -> Value, Buffer*, or Failure
MAP      Function, Items, Buffer*                           -> Values, Buffer*, ItemFailed rows
SOURCE   SourceFile (payload: text), Arguments, Buffer*     -> Value, Buffer*, or Failure
COMMAND  CommandLine, InputFile*                            -> OutputFile rows, or Failure

Arguments, items and values are pickled (protocol 5, out-of-band buffers as Buffer rows) or, in a
result with codec PLAIN, plain-encoded. A daemon stores these bytes and never reads them; only the
worker does.
"""

from dataclasses import dataclass
from typing import Annotated

from alpyne_proto import limits
from alpyne_proto.fields import FLAG, U8, U32, U64, Blob, Choice, ListOf, Text
from alpyne_proto.messages.job_terms import Cause
from alpyne_proto.registry import ANY_ROLE, Field, Message, Role, Shape, State, message

IN_PROGRAM = (State.OPEN, State.WORKER)
PAYLOAD = 1 << 32  # a program may be a blob; its own bound is BLOB_MAX


@message(0x50, shape=Shape.ROW, sender=Role.MANAGER, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class Function(Message):
    """The pickled callable is the row's payload; workers keep it by its bytes."""


@message(0x51, shape=Shape.ROW, sender=Role.MANAGER, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class Arguments(Message):
    """The pickled (args, kwargs)."""

    buffers: Annotated[int, Field(2, U32, "Buffer rows that follow")] = 0


@message(0x52, shape=Shape.ROW, sender=ANY_ROLE, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class Buffer(Message):
    """One out-of-band buffer."""


@message(0x53, shape=Shape.ROW, sender=Role.MANAGER, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class Items(Message):
    """The pickled list of a chunk's argument tuples."""

    first: Annotated[int, Field(2, U64, "index of the first item in the map")]
    count: Annotated[int, Field(4, U32, "items")]
    buffers: Annotated[int, Field(6, U32, "Buffer rows that follow")] = 0
    into: Annotated[bytes, Field(8, Blob(16, 16, or_empty=True), "container for the values")] = b""
    into_prefix: Annotated[str, Field(10, Text(limits.PATH_MAX), "path prefix there")] = ""
    load: Annotated[bool, Field(12, FLAG, "items that are value objects are loaded first")] = False
    copies: Annotated[int, Field(14, U8, "with into: copies; 0 = all of the ticket's nodes")] = 0


@message(0x54, shape=Shape.ROW, sender=Role.NODE, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class Values(Message):
    """Values of ``count`` items from ``first`` on: one pickled or plain list."""

    first: Annotated[int, Field(2, U64, "index of the first item in the map")]
    count: Annotated[int, Field(4, U32, "values")]
    buffers: Annotated[int, Field(6, U32, "Buffer rows that follow")] = 0


@message(0x55, shape=Shape.ROW, sender=Role.NODE, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class ItemFailed(Message):
    """One item failed; the payload is as in Failure."""

    index: Annotated[int, Field(2, U64, "index in the map")]
    cause: Annotated[Cause, Field(4, Choice(Cause), "why")]
    type: Annotated[str, Field(6, Text(200), "exception type")] = ""
    text: Annotated[str, Field(8, Text(2048), "exception text")] = ""
    traceback: Annotated[str, Field(10, Text(4096), "remote traceback, the end of it")] = ""


@message(0x56, shape=Shape.ROW, sender=Role.NODE, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class Failure(Message):
    """A job failed; with codec PICKLE the payload is the pickled exception, where it pickles."""

    cause: Annotated[Cause, Field(2, Choice(Cause), "why")]
    type: Annotated[str, Field(4, Text(200), "exception type")] = ""
    text: Annotated[str, Field(6, Text(2048), "exception text")] = ""
    traceback: Annotated[str, Field(8, Text(4096), "remote traceback, the end of it")] = ""


@message(0x57, shape=Shape.ROW, sender=Role.MANAGER, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class SourceFile(Message):
    """The payload is the text of a .py file."""

    name: Annotated[str, Field(2, Text(255), "file name, for tracebacks")]


@message(0x58, shape=Shape.ROW, sender=Role.MANAGER, states=IN_PROGRAM)
@dataclass(frozen=True, slots=True)
class CommandLine(Message):
    """A command, run in an empty folder that holds its input files."""

    argv: Annotated[tuple[str, ...], Field(2, ListOf(Text(4096), 256), "program and arguments")]
    environment: Annotated[
        tuple[str, ...], Field(4, ListOf(Text(1024), 64), "NAME=value, added to a bare one")
    ] = ()
    outputs: Annotated[tuple[str, ...], Field(6, ListOf(Text(1024), 64), "patterns to keep")] = ()


@message(0x59, shape=Shape.ROW, sender=Role.MANAGER, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class InputFile(Message):
    """A file for the command; the payload is its content."""

    path: Annotated[str, Field(2, Text(limits.PATH_MAX), "relative path")]
    executable: Annotated[bool, Field(4, FLAG, "may be run")] = False


@message(0x5A, shape=Shape.ROW, sender=Role.NODE, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class OutputFile(Message):
    """A file that the command left; the payload is its content."""

    path: Annotated[str, Field(2, Text(limits.PATH_MAX), "relative path")]
    executable: Annotated[bool, Field(4, FLAG, "may be run")] = False


@message(0x5B, shape=Shape.ROW, sender=Role.NODE, states=IN_PROGRAM, payload_max=PAYLOAD)
@dataclass(frozen=True, slots=True)
class Value(Message):
    """The value of a CALL or SOURCE, pickled or plain."""

    buffers: Annotated[int, Field(2, U32, "Buffer rows that follow")] = 0
