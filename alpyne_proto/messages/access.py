"""Registration, tickets, invitations, accounts, revocation, and a node's status."""

from dataclasses import dataclass
from typing import Annotated

from alpyne_proto import limits
from alpyne_proto.fields import FLAG, ID16, KEY32, REAL, U16, U32, U64, Blob, Choice, ListOf, Text
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.registry import Field, Message, Role, Shape, State, message, nested, struct

_KNOWN = (State.UNKNOWN, State.OPEN)


@message(0x10, shape=Shape.REQUEST, sender=Role.MANAGER, states=_KNOWN, answers=(0x11,))
@dataclass(frozen=True, slots=True)
class Register(Message):
    """Manager to node: make the certificate's account known here. Moves UNKNOWN to OPEN."""

    name: Annotated[str, Field(2, Text(128), "a name for lists")] = ""
    invitation: Annotated[bytes, Field(4, Blob(16, 64, or_empty=True), "invitation code")] = b""


@message(0x11, shape=Shape.RESPONSE, sender=Role.NODE, states=_KNOWN)
@dataclass(frozen=True, slots=True)
class Registered(Message):
    """The account is known here; the connection is OPEN."""

    role: Annotated[AccountRole, Field(2, Choice(AccountRole), "what the account may do")]
    quota_bytes: Annotated[int, Field(4, U64, "bytes it may keep here; 0 = no limit")] = 0


@message(
    0x12,
    shape=Shape.REQUEST,
    sender=Role.NODE | Role.MANAGER,
    states=(State.UNKNOWN, State.BEARER),
    answers=(0x13,),
)
@dataclass(frozen=True, slots=True)
class ShowTicket(Message):
    """Bearer to data node: act under this ticket. Moves UNKNOWN to BEARER; more may be shown."""

    ticket: Annotated[bytes, Field(2, Blob(1, limits.TICKET_MAX), "a signed ticket")]


@message(0x13, shape=Shape.RESPONSE, sender=Role.NODE, states=(State.UNKNOWN, State.BEARER))
@dataclass(frozen=True, slots=True)
class TicketTaken(Message):
    """The ticket holds here; requests name its serial."""

    serial: Annotated[bytes, Field(2, ID16, "the ticket's serial")]
    not_after: Annotated[int, Field(4, U64, "seconds since the epoch")]


@message(0x14, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x15,))
@dataclass(frozen=True, slots=True)
class CreateInvitation(Message):
    """Administrator to node: make a single-use invitation code."""

    life_s: Annotated[int, Field(2, U32, "seconds until it expires")]
    role: Annotated[AccountRole, Field(4, Choice(AccountRole), "role that it grants")] = (
        AccountRole.USER
    )
    quota_bytes: Annotated[int, Field(6, U64, "quota that it grants; 0 = the node's default")] = 0
    note: Annotated[str, Field(8, Text(128), "for lists: who it is for")] = ""


@message(0x15, shape=Shape.RESPONSE, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class Invitation(Message):
    """An invitation code; it is shown once and stored hashed."""

    code: Annotated[bytes, Field(2, Blob(16, 64), "the code")]
    not_after: Annotated[int, Field(4, U64, "seconds since the epoch")]


@message(0x16, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x0C,), answer_rows=(0x17,))
@dataclass(frozen=True, slots=True)
class ListAccounts(Message):
    """Administrator to node: all accounts, as AccountRow rows."""


@message(0x17, shape=Shape.ROW, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class AccountRow(Message):
    """One account of a node."""

    account: Annotated[bytes, Field(2, KEY32, "Ed25519 key")]
    role: Annotated[AccountRole, Field(4, Choice(AccountRole), "role")]
    name: Annotated[str, Field(6, Text(128), "as registered")] = ""
    registered_at: Annotated[int, Field(8, U64, "seconds since the epoch")] = 0
    quota_bytes: Annotated[int, Field(10, U64, "0 = no limit")] = 0
    used_bytes: Annotated[int, Field(12, U64, "bytes kept")] = 0
    revoked: Annotated[bool, Field(14, FLAG, "no longer served")] = False
    connections: Annotated[int, Field(16, U32, "open now")] = 0


@message(0x18, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x0A,))
@dataclass(frozen=True, slots=True)
class RevokeAccount(Message):
    """Administrator to node: end the account's connections, jobs and tickets; keep its objects."""

    account: Annotated[bytes, Field(2, KEY32, "Ed25519 key")]


@message(0x1A, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x0A,))
@dataclass(frozen=True, slots=True)
class RevokeDevice(Message):
    """The account itself, or an administrator, to node: end a device's connections and tickets."""

    account: Annotated[bytes, Field(2, KEY32, "Ed25519 key of the device's account")]
    device: Annotated[bytes, Field(4, KEY32, "the device's X25519 key")]


@message(0x1E, shape=Shape.REQUEST, sender=Role.MANAGER, answers=(0x1F,))
@dataclass(frozen=True, slots=True)
class GetStatus(Message):
    """Manager to node: offer, score, load."""


@struct
@dataclass(frozen=True, slots=True)
class Attribute:
    """A name and a value of an offer, for instance os = linux."""

    name: Annotated[str, Field(2, Text(64), "name")]
    value: Annotated[str, Field(4, Text(256), "value")]


@struct
@dataclass(frozen=True, slots=True)
class LabelTraffic:
    """Body bytes that a data node sent to and took from one host label."""

    label: Annotated[str, Field(2, Text(64), "the peer's host label")]
    sent_bytes: Annotated[int, Field(4, U64, "bytes")] = 0
    received_bytes: Annotated[int, Field(6, U64, "bytes")] = 0


@message(0x1F, shape=Shape.RESPONSE, sender=Role.NODE)
@dataclass(frozen=True, slots=True)
class NodeStatus(Message):
    """What a node has and how busy it is."""

    kind: Annotated[NodeKind, Field(2, Choice(NodeKind), "compute or data")]
    score: Annotated[float, Field(4, REAL, "benchmark score, one core; 0 where it has none")] = 0.0
    score_all: Annotated[float, Field(6, REAL, "benchmark score, all cores")] = 0.0
    score_estimated: Annotated[bool, Field(8, FLAG, "the benchmark has not run yet")] = False
    slots: Annotated[int, Field(10, U16, "execution places")] = 0
    busy_slots: Annotated[int, Field(12, U16, "in use")] = 0
    queued: Annotated[int, Field(14, U32, "jobs waiting, all accounts")] = 0
    load: Annotated[float, Field(16, REAL, "machine load per core over a minute")] = 0.0
    memory_free: Annotated[int, Field(18, U64, "bytes")] = 0
    disk_free: Annotated[int, Field(20, U64, "bytes in the state folder's file system")] = 0
    used_bytes: Annotated[int, Field(22, U64, "bytes kept for this account")] = 0
    quota_bytes: Annotated[int, Field(24, U64, "its quota; 0 = no limit")] = 0
    attributes: Annotated[
        tuple[Attribute, ...],
        Field(26, ListOf(nested(Attribute), 64), "os, arch, python, isolation, limits, labels"),
    ] = ()
    health: Annotated[str, Field(29, Text(512), "empty = well; else what is wrong")] = ""
    traffic: Annotated[
        tuple[LabelTraffic, ...],
        Field(31, ListOf(nested(LabelTraffic), 32), "this account's body bytes by host label"),
    ] = ()
    uptime_s: Annotated[int, Field(33, U64, "seconds since the daemon's start")] = 0
