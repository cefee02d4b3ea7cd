"""Data nodes: containers, objects, versions (spec/PROTOCOL.md, "Data")."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from alpyne_proto import limits
from alpyne_proto.fields import FLAG, ID16, KEY32, U8, U32, U64, Blob, Choice, ListOf, Text
from alpyne_proto.registry import ANY_ROLE, Field, Message, Role, Shape, State, message

WITH_TICKET = (State.BEARER, State.OPEN)
PATH = Text(limits.PATH_MAX)
WRITER = Blob(16, 16, or_empty=True)
TICKET = Blob(16, 16, or_empty=True)


class Expect(IntEnum):
    """What must stand under a path for a put or delete to happen."""

    ANY = 0  # whatever; the version sent must only be higher
    ABSENT = 1  # nothing, or a tombstone
    VERSION = 2  # exactly the version named


@message(0x40, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x41,))
@dataclass(frozen=True, slots=True)
class PutContainer(Message):
    """Manager to data node: keep this descriptor; the higher (counter, writer) wins."""

    container_id: Annotated[bytes, Field(2, ID16, "derived from owner and name")]
    name: Annotated[str, Field(4, Text(limits.CONTAINER_NAME_MAX), "name")]
    copies: Annotated[int, Field(6, U8, "k, 1 to 16")]
    members: Annotated[
        tuple[bytes, ...],
        Field(8, ListOf(KEY32, limits.MEMBERS_MAX), "static keys of its n >= k data nodes"),
    ]
    counter: Annotated[int, Field(10, U64, "version of the descriptor")]
    writer: Annotated[bytes, Field(12, ID16, "who wrote the version")]


@message(0x41, shape=Shape.RESPONSE, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class ContainerInfo(Message):
    """The descriptor that the node now has."""

    container_id: Annotated[bytes, Field(2, ID16, "id")]
    name: Annotated[str, Field(4, Text(limits.CONTAINER_NAME_MAX), "name")]
    copies: Annotated[int, Field(6, U8, "k")]
    members: Annotated[tuple[bytes, ...], Field(8, ListOf(KEY32, limits.MEMBERS_MAX), "members")]
    counter: Annotated[int, Field(10, U64, "version")]
    writer: Annotated[bytes, Field(12, ID16, "writer")]


@message(0x42, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x41,))
@dataclass(frozen=True, slots=True)
class GetContainer(Message):
    """Manager to data node: the descriptor, or Error NOT_FOUND."""

    container_id: Annotated[bytes, Field(2, ID16, "id")]


@message(0x43, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x0C,), answer_rows=(0x44,))
@dataclass(frozen=True, slots=True)
class ListContainers(Message):
    """Manager to data node: the account's containers, as ContainerRow rows."""


@message(0x44, shape=Shape.ROW, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class ContainerRow(Message):
    """One container of the account."""

    container_id: Annotated[bytes, Field(2, ID16, "id")]
    name: Annotated[str, Field(4, Text(limits.CONTAINER_NAME_MAX), "name")]
    copies: Annotated[int, Field(6, U8, "k")]
    members: Annotated[tuple[bytes, ...], Field(8, ListOf(KEY32, limits.MEMBERS_MAX), "members")]
    counter: Annotated[int, Field(10, U64, "version")]
    writer: Annotated[bytes, Field(12, ID16, "writer")]
    objects: Annotated[int, Field(15, U64, "objects on this node")] = 0
    size_bytes: Annotated[int, Field(17, U64, "their bytes")] = 0


@message(0x45, shape=Shape.REQUEST, sender=ANY_ROLE, states=WITH_TICKET, answers=(0x47,), body=True)
@dataclass(frozen=True, slots=True)
class PutObject(Message):
    """Manager or bearer to data node: the body becomes this version of the object, atomically.

    The body ends with a BodyDigest trailer. Answered after the commit.
    """

    container_id: Annotated[bytes, Field(2, ID16, "container")]
    path: Annotated[str, Field(4, PATH, "path")]
    counter: Annotated[int, Field(6, U64, "version counter, from 1")]
    writer: Annotated[bytes, Field(8, ID16, "version writer")]
    size: Annotated[int, Field(10, U64, "bytes of the body")]
    expect: Annotated[Expect, Field(12, Choice(Expect), "condition")] = Expect.ANY
    expect_counter: Annotated[int, Field(14, U64, "with VERSION")] = 0
    expect_writer: Annotated[bytes, Field(16, WRITER, "with VERSION")] = b""
    ticket: Annotated[bytes, Field(18, TICKET, "serial of the ticket, from a bearer")] = b""
    job_id: Annotated[bytes, Field(20, Blob(16, 16, or_empty=True), "job that writes")] = b""
    allocation: Annotated[int, Field(22, U32, "its allocation")] = 0
    attempt: Annotated[int, Field(24, U32, "its attempt")] = 0


@message(0x47, shape=Shape.RESPONSE, sender=Role.NODE, states=WITH_TICKET, body=True)
@dataclass(frozen=True, slots=True)
class ObjectInfo(Message):
    """A version of an object; counter 0: there is none. The answer to GetObject has a body."""

    counter: Annotated[int, Field(2, U64, "version counter")]
    writer: Annotated[bytes, Field(4, WRITER, "version writer")] = b""
    size: Annotated[int, Field(6, U64, "bytes of the whole object")] = 0
    sha256: Annotated[bytes, Field(8, Blob(32, 32, or_empty=True), "of the whole object")] = b""
    deleted: Annotated[bool, Field(10, FLAG, "a tombstone")] = False
    modified_at_ms: Annotated[int, Field(13, U64, "milliseconds since the epoch")] = 0


@message(0x48, shape=Shape.REQUEST, sender=ANY_ROLE, states=WITH_TICKET, answers=(0x47,))
@dataclass(frozen=True, slots=True)
class GetObject(Message):
    """Manager or bearer to data node: bytes of an object, as ObjectInfo and a body."""

    container_id: Annotated[bytes, Field(2, ID16, "container")]
    path: Annotated[str, Field(4, PATH, "path")]
    counter: Annotated[int, Field(6, U64, "version; 0 = the newest")] = 0
    writer: Annotated[bytes, Field(8, WRITER, "version's writer")] = b""
    offset: Annotated[int, Field(10, U64, "first byte")] = 0
    length: Annotated[int, Field(12, U64, "most bytes; 2^64-1 = to the end")] = (1 << 64) - 1
    ticket: Annotated[bytes, Field(18, TICKET, "serial of the ticket, from a bearer")] = b""


@message(0x49, shape=Shape.REQUEST, sender=ANY_ROLE, states=WITH_TICKET, answers=(0x47,))
@dataclass(frozen=True, slots=True)
class StatObject(Message):
    """Manager or bearer to data node: the newest version, tombstones too."""

    container_id: Annotated[bytes, Field(2, ID16, "container")]
    path: Annotated[str, Field(4, PATH, "path")]
    ticket: Annotated[bytes, Field(18, TICKET, "serial of the ticket, from a bearer")] = b""


@message(
    0x4A,
    shape=Shape.REQUEST,
    sender=ANY_ROLE,
    states=WITH_TICKET,
    answers=(0x0C,),
    answer_rows=(0x4B,),
)
@dataclass(frozen=True, slots=True)
class ListObjects(Message):
    """Manager or bearer to data node: objects in path order, as ObjectRow rows."""

    container_id: Annotated[bytes, Field(2, ID16, "container")]
    prefix: Annotated[str, Field(4, PATH, "only paths that begin so")] = ""
    pattern: Annotated[str, Field(6, PATH, "only paths that match; ** crosses /")] = ""
    after: Annotated[str, Field(8, PATH, "only paths behind this one")] = ""
    limit: Annotated[int, Field(10, U32, "most rows; 0 = all")] = 0
    tombstones: Annotated[bool, Field(12, FLAG, "deleted ones too")] = False
    ticket: Annotated[bytes, Field(18, TICKET, "serial of the ticket, from a bearer")] = b""


@message(0x4B, shape=Shape.ROW, sender=Role.NODE, states=WITH_TICKET)
@dataclass(frozen=True, slots=True)
class ObjectRow(Message):
    """One object of a container."""

    path: Annotated[str, Field(2, PATH, "path")]
    counter: Annotated[int, Field(4, U64, "version counter")]
    writer: Annotated[bytes, Field(6, WRITER, "version writer")]
    size: Annotated[int, Field(8, U64, "bytes")] = 0
    sha256: Annotated[bytes, Field(10, Blob(32, 32, or_empty=True), "of the object")] = b""
    deleted: Annotated[bool, Field(12, FLAG, "a tombstone")] = False
    modified_at_ms: Annotated[int, Field(15, U64, "milliseconds since the epoch")] = 0


@message(0x4C, shape=Shape.REQUEST, sender=ANY_ROLE, states=WITH_TICKET, answers=(0x47,))
@dataclass(frozen=True, slots=True)
class DeleteObject(Message):
    """Manager or bearer to data node: write a tombstone as this version."""

    container_id: Annotated[bytes, Field(2, ID16, "container")]
    path: Annotated[str, Field(4, PATH, "path")]
    counter: Annotated[int, Field(6, U64, "version counter")]
    writer: Annotated[bytes, Field(8, ID16, "version writer")]
    expect: Annotated[Expect, Field(12, Choice(Expect), "condition")] = Expect.ANY
    expect_counter: Annotated[int, Field(14, U64, "with VERSION")] = 0
    expect_writer: Annotated[bytes, Field(16, WRITER, "with VERSION")] = b""
    ticket: Annotated[bytes, Field(18, TICKET, "serial of the ticket, from a bearer")] = b""
    job_id: Annotated[bytes, Field(20, Blob(16, 16, or_empty=True), "job that deletes")] = b""
    allocation: Annotated[int, Field(22, U32, "its allocation")] = 0
    attempt: Annotated[int, Field(24, U32, "its attempt")] = 0
