"""Requests to one node that are neither jobs nor objects: status, accounts, invitations, revoking.

Each takes an open connection to the node and raises RequestFailed as the node answers
(spec/PROTOCOL.md, "Access").
"""

import base64
import binascii
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from alpyne_grid.manager.identity import ManagerIdentity
from alpyne_grid.wire import Connection, dial

from alpyne_proto.address import Address
from alpyne_proto.errors import AlpyneError, ErrorCode
from alpyne_proto.messages.access import (
    AccountRow,
    CreateInvitation,
    GetStatus,
    Invitation,
    ListAccounts,
    NodeStatus,
    Register,
    Registered,
    RevokeAccount,
    RevokeDevice,
)
from alpyne_proto.messages.compute import JobRow, ListJobs
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello
from alpyne_proto.registry import Role, State

DIAL_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0
SOFTWARE = "alpyne-grid"


class InvitationUnreadable(AlpyneError):
    """A text that is no invitation code."""

    code = ErrorCode.BAD_REQUEST


@asynccontextmanager
async def connected(
    identity: ManagerIdentity, address: Address, *, timeout_s: float = DIAL_TIMEOUT_S
) -> AsyncIterator[Connection]:
    """Give a connection of its own to the node, closed at the end of the block.

    Its state is OPEN, or UNKNOWN where the node does not know the account. Raises DialFailed.
    """
    hello = DiallerHello(
        roles=int(Role.MANAGER),
        run_id=secrets.token_bytes(16),
        certificate=identity.certificate.encode(),
        software=SOFTWARE,
    )
    connection = await dial(address, identity=identity.device, hello=hello, timeout_s=timeout_s)
    try:
        yield connection
    finally:
        await connection.close()


def hello_of(connection: Connection) -> AcceptorHello:
    """Return what the node said of itself in the handshake."""
    hello = connection.peer_hello
    assert isinstance(hello, AcceptorHello)
    return hello


def is_registered(connection: Connection) -> bool:
    """Say whether the node knows this account."""
    return connection.state is State.OPEN


async def register(connection: Connection, *, name: str = "", invitation: str = "") -> Registered:
    """Make this account known to the node, and return its role and quota there.

    name: for the node's lists. invitation: a code as `invitation_text` writes it, where the node
    asks for one. A node that knows the account already says so in the same way.
    """
    code = parse_invitation(invitation) if invitation else b""
    answer = await connection.call(Register(name[:64], code), timeout_s=REQUEST_TIMEOUT_S)
    assert isinstance(answer.message, Registered)
    return answer.message


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation: its code as text, and when it expires in seconds since the epoch."""

    code: str
    not_after: int


async def status(connection: Connection, *, timeout_s: float = REQUEST_TIMEOUT_S) -> NodeStatus:
    """Return what the node has and how busy it is."""
    answer = await connection.call(GetStatus(), timeout_s=timeout_s)
    assert isinstance(answer.message, NodeStatus)
    return answer.message


async def invite(
    connection: Connection,
    *,
    life_s: int,
    role: AccountRole = AccountRole.USER,
    quota_bytes: int = 0,
    note: str = "",
) -> Invite:
    """Make a single-use invitation; for administrators of the node.

    life_s: seconds until it expires. quota_bytes: what the account may keep; 0 = the node's
    default. note: for lists.
    """
    request = CreateInvitation(life_s, role, quota_bytes, note)
    answer = await connection.call(request, timeout_s=REQUEST_TIMEOUT_S)
    assert isinstance(answer.message, Invitation)
    return Invite(invitation_text(answer.message.code), answer.message.not_after)


async def accounts(connection: Connection) -> list[AccountRow]:
    """Return the node's accounts, oldest first; for its administrators."""
    answer = await connection.call(ListAccounts(), timeout_s=REQUEST_TIMEOUT_S)
    return [row async for row, _ in answer.body.rows() if isinstance(row, AccountRow)]


async def revoke_account(connection: Connection, account: bytes) -> None:
    """End an account's connections, jobs and tickets; its objects stay. For administrators."""
    await connection.call(RevokeAccount(account), timeout_s=REQUEST_TIMEOUT_S)


async def revoke_device(connection: Connection, account: bytes, device: bytes) -> None:
    """End a device's connections and tickets; for its account, and for administrators.

    account: Ed25519 key; device: X25519 key, 32 bytes each.
    """
    await connection.call(RevokeDevice(account, device), timeout_s=REQUEST_TIMEOUT_S)


async def jobs(connection: Connection, request: ListJobs) -> list[JobRow]:
    """Return this account's jobs at a compute node, in order of submission."""
    answer = await connection.call(request, timeout_s=REQUEST_TIMEOUT_S)
    return [row async for row, _ in answer.body.rows() if isinstance(row, JobRow)]


def invitation_text(code: bytes) -> str:
    """Return an invitation code as it is handed over: groups of base32 (RFC 4648 section 6)."""
    text = base64.b32encode(code).decode().rstrip("=").lower()
    return "-".join(text[at : at + 5] for at in range(0, len(text), 5))


def parse_invitation(text: str) -> bytes:
    """Return the code that `invitation_text` wrote; dashes, spaces and case do not matter.

    Raises InvitationUnreadable.
    """
    letters = "".join(text.split()).replace("-", "").upper()
    try:
        code = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except binascii.Error:
        code = b""
    if not 16 <= len(code) <= 64:
        raise InvitationUnreadable(
            "invitation code: expected letters and digits as `alpyne invite` prints them; copy it "
            "whole, or ask for another"
        )
    return code
