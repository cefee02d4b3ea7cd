"""Who is known to a node: accounts, invitations, revoked devices. A pure core with its SQL.

Each change is planned in memory and applied at once; the ``Change`` carries the statements that
make it durable, and ``undo`` for the case that they cannot be stored. Nothing is acknowledged
before the statements are committed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alpyne_grid.nodes.config import Registration
from alpyne_grid.nodes.store import Schema

from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.messages.control import AccountRole

SCHEMA = Schema(
    "accounts",
    (
        """
CREATE TABLE accounts (
    account BLOB PRIMARY KEY,
    role INTEGER NOT NULL,
    name TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    quota_bytes INTEGER NOT NULL,
    revoked INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE invitations (
    code_hash BLOB PRIMARY KEY,
    role INTEGER NOT NULL,
    quota_bytes INTEGER NOT NULL,
    note TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    used_by BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE revoked_devices (
    account BLOB NOT NULL,
    device BLOB NOT NULL,
    revoked_at INTEGER NOT NULL,
    PRIMARY KEY (account, device)
) WITHOUT ROWID
""",
    ),
)

_INVITATION_CONTEXT = b"alpyne invitation v1\x00"
ACCOUNTS_MAX = 100_000  # an open node must not be filled by registrations
INVITATIONS_MAX = 10_000
REVOKED_DEVICES_MAX = 10_000  # of one account

Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Account:
    """An account as a node knows it; ``quota_bytes`` 0 means no limit."""

    key: bytes
    role: AccountRole
    name: str = ""
    registered_at: int = 0
    quota_bytes: int = 0
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that nobody has used yet; only the hash of its code is kept."""

    code_hash: bytes
    role: AccountRole
    quota_bytes: int
    note: str
    not_after: int


@dataclass(frozen=True, slots=True)
class Change:
    """A planned change: what makes it durable, and what takes it back."""

    statements: tuple[Statement, ...]
    undo: Callable[[], None]


@dataclass(slots=True)
class AccountTable:
    """All accounts of one node, in memory.

    ``node_key`` binds invitation codes to this node. ``quota_bytes`` goes to invited accounts,
    ``open_quota_bytes`` to those that register themselves.
    """

    node_key: bytes
    registration: Registration
    owners: frozenset[bytes]
    quota_bytes: int
    open_quota_bytes: int
    accounts: dict[bytes, Account] = field(default_factory=dict)
    invitations: dict[bytes, Invitation] = field(default_factory=dict)
    revoked_devices: set[tuple[bytes, bytes]] = field(default_factory=set)

    def load(
        self,
        accounts: Sequence[Sequence[Any]],
        invitations: Sequence[Sequence[Any]],
        revoked_devices: Sequence[Sequence[Any]],
    ) -> None:
        """Take the rows of the three tables, in the order of their columns."""
        for key, role, name, registered_at, quota, revoked in accounts:
            self.accounts[key] = Account(
                key, AccountRole(role), name, registered_at, quota, bool(revoked)
            )
        for code_hash, role, quota, note, not_after, used_by in invitations:
            if not used_by:
                self.invitations[code_hash] = Invitation(
                    code_hash, AccountRole(role), quota, note, not_after
                )
        self.revoked_devices.update((account, device) for account, device, _ in revoked_devices)

    def adopt_owners(self, now_s: int) -> Change:
        """Make every owner an administrator; one that was revoked stays so, over restarts too."""
        before = dict(self.accounts)
        statements: list[Statement] = []
        for key in sorted(self.owners):
            known = self.accounts.get(key)
            if known is None or (known.role is not AccountRole.ADMIN and not known.revoked):
                account = Account(key, AccountRole.ADMIN, "owner", now_s, 0)
                self.accounts[key] = account
                statements.append(_save_account(account))
        return Change(tuple(statements), lambda: self._restore_accounts(before))

    def served(self, key: bytes, device: bytes) -> Account | None:
        """Return the account that ``key`` and its ``device`` may act as here, or None.

        Raises RequestFailed REVOKED where the account or the device was revoked.
        """
        account = self.accounts.get(key)
        if account is not None and account.revoked:
            raise RequestFailed(ErrorCode.REVOKED, "this account was revoked at this node")
        if (key, device) in self.revoked_devices:
            raise RequestFailed(
                ErrorCode.REVOKED,
                "this device was revoked at this node; make another by `alpyne device add`",
            )
        if self.registration is Registration.OWNERS and key not in self.owners:
            return None
        return account

    def register(self, key: bytes, name: str, code: bytes, now_s: int) -> tuple[Account, Change]:
        """Make ``key`` known, openly or by an invitation code; RequestFailed where it may not be.

        A key that is known already stays as it is, and a revoked one is refused.
        """
        known = self.accounts.get(key)
        if known is not None and known.revoked:
            raise RequestFailed(ErrorCode.REVOKED, "this account was revoked at this node")
        if known is not None and (
            self.registration is not Registration.OWNERS or key in self.owners
        ):
            return known, Change((), lambda: None)
        if self.registration is Registration.OWNERS:
            raise RequestFailed(
                ErrorCode.REGISTRATION_CLOSED,
                "this node serves only its owners; its administrator can add your key by "
                "--owner KEY.pub, or invite you where it isolates jobs",
            )
        if len(self.accounts) >= ACCOUNTS_MAX:
            raise RequestFailed(ErrorCode.OVERLOADED, "this node takes no more accounts")
        if code:
            return self._register_invited(key, name, code, now_s)
        if self.registration is not Registration.OPEN:
            raise RequestFailed(
                ErrorCode.REGISTRATION_CLOSED,
                "this node registers by invitation; ask its administrator for a code "
                "(`alpyne invite`) and give it by `alpyne pair --invitation CODE`",
            )
        account = Account(key, AccountRole.USER, name, now_s, self.open_quota_bytes)
        self.accounts[key] = account
        return account, Change((_save_account(account),), lambda: self._forget(key))

    def _register_invited(
        self, key: bytes, name: str, code: bytes, now_s: int
    ) -> tuple[Account, Change]:
        code_hash = self.invitation_hash(code)
        invitation = self.invitations.get(code_hash)
        if invitation is None or invitation.not_after < now_s:
            # One text for all three, so that a guess learns nothing.
            raise RequestFailed(
                ErrorCode.INVITATION_INVALID,
                "the invitation code is unknown at this node, used or expired; ask for another",
            )
        account = Account(key, invitation.role, name, now_s, invitation.quota_bytes)
        self.accounts[key] = account
        del self.invitations[code_hash]

        def undo() -> None:
            self._forget(key)
            self.invitations[code_hash] = invitation

        use = ("UPDATE invitations SET used_by = ? WHERE code_hash = ?", (key, code_hash))
        return account, Change((_save_account(account), use), undo)

    def invite(
        self,
        code: bytes,
        role: AccountRole,
        quota_bytes: int,
        note: str,
        *,
        not_after: int,
        now_s: int,
    ) -> Change:
        """Keep an invitation under the hash of ``code``; RequestFailed where it may not be."""
        if self.registration is Registration.OWNERS:
            raise RequestFailed(
                ErrorCode.REGISTRATION_CLOSED,
                "this node serves only the keys given by --owner; start it with one more --owner "
                "KEY.pub, or, where it isolates jobs (--level 1, --backend docker), with "
                "--registration administered to invite guests",
            )
        if role not in (AccountRole.USER, AccountRole.ADMIN):
            raise RequestFailed(ErrorCode.BAD_REQUEST, "role: expected USER or ADMIN")
        if len(self.invitations) >= INVITATIONS_MAX:
            kept = {h: one for h, one in self.invitations.items() if one.not_after >= now_s}
            self.invitations = kept
        if len(self.invitations) >= INVITATIONS_MAX:
            raise RequestFailed(ErrorCode.OVERLOADED, "this node keeps no more invitations")
        invitation = Invitation(
            self.invitation_hash(code), role, quota_bytes or self.quota_bytes, note, not_after
        )
        self.invitations[invitation.code_hash] = invitation
        row = (invitation.code_hash, int(role), invitation.quota_bytes, note, not_after, b"")
        return Change(
            (("INSERT INTO invitations VALUES (?, ?, ?, ?, ?, ?)", row),),
            lambda: self._drop_invitation(invitation.code_hash),
        )

    def revoke_account(self, key: bytes, by: bytes) -> Change:
        """Stop serving ``key``, by order of ``by``; RequestFailed for unknown keys and oneself."""
        account = self.accounts.get(key)
        if account is None:
            raise RequestFailed(ErrorCode.NOT_FOUND, "no such account at this node")
        if key == by:
            raise RequestFailed(
                ErrorCode.NOT_PERMITTED,
                "you cannot revoke your own account here; another administrator can",
            )
        revoked = replace(account, revoked=True)
        self.accounts[key] = revoked
        return Change((_save_account(revoked),), lambda: self._put(account))

    def revoke_device(self, key: bytes, device: bytes, now_s: int) -> Change:
        """Stop serving ``device`` of ``key``; a device never seen here can be revoked too."""
        if key not in self.accounts:
            raise RequestFailed(ErrorCode.NOT_FOUND, "no such account at this node")
        entry = (key, device)
        if entry in self.revoked_devices:
            return Change((), lambda: None)
        if sum(1 for owner, _ in self.revoked_devices if owner == key) >= REVOKED_DEVICES_MAX:
            raise RequestFailed(
                ErrorCode.OVERLOADED, "too many revoked devices; use another account"
            )
        self.revoked_devices.add(entry)
        statement = ("INSERT OR REPLACE INTO revoked_devices VALUES (?, ?, ?)", (*entry, now_s))
        return Change((statement,), lambda: self.revoked_devices.discard(entry))

    def invitation_hash(self, code: bytes) -> bytes:
        """Return what is kept of an invitation code: its hash with this node's key."""
        return hashlib.sha256(_INVITATION_CONTEXT + self.node_key + code).digest()

    def _restore_accounts(self, before: dict[bytes, Account]) -> None:
        self.accounts = before

    def _forget(self, key: bytes) -> None:
        self.accounts.pop(key, None)

    def _put(self, account: Account) -> None:
        self.accounts[account.key] = account

    def _drop_invitation(self, code_hash: bytes) -> None:
        self.invitations.pop(code_hash, None)


def _save_account(account: Account) -> Statement:
    return (
        "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?)",
        (
            account.key,
            int(account.role),
            account.name,
            account.registered_at,
            account.quota_bytes,
            int(account.revoked),
        ),
    )
