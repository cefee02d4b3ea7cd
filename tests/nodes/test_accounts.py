"""The account table: who is known, and what makes it durable."""

import pytest
from alpyne_grid.nodes import accounts as accounts_module
from alpyne_grid.nodes.accounts import AccountTable
from alpyne_grid.nodes.config import Registration

from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.messages.control import AccountRole

OWNER, ALICE, BOB = b"o" * 32, b"a" * 32, b"b" * 32
LAPTOP, PHONE = b"l" * 32, b"p" * 32
CODE = b"c" * 16


def table(registration: Registration, node_key: bytes = b"n" * 32) -> AccountTable:
    made = AccountTable(node_key, registration, frozenset({OWNER}), 1000, 10)
    made.adopt_owners(5)
    return made


def code_of(call: object) -> ErrorCode:
    with pytest.raises(RequestFailed) as caught:
        call()  # type: ignore[operator]
    return caught.value.code


def test_table_registers_any_key_when_open() -> None:
    accounts = table(Registration.OPEN)
    account, change = accounts.register(ALICE, "alice", b"", 7)
    assert (account.role, account.quota_bytes) == (AccountRole.USER, 10)
    assert [s for s, _ in change.statements] == [
        "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?)"
    ]
    assert accounts.served(ALICE, LAPTOP) == account


def test_table_forgets_an_account_when_it_could_not_be_stored() -> None:
    accounts = table(Registration.OPEN)
    _, change = accounts.register(ALICE, "alice", b"", 7)
    change.undo()
    assert accounts.served(ALICE, LAPTOP) is None


def test_table_refuses_a_key_without_invitation_when_administered() -> None:
    accounts = table(Registration.ADMINISTERED)
    assert code_of(lambda: accounts.register(ALICE, "", b"", 7)) is ErrorCode.REGISTRATION_CLOSED


def test_invitation_admits_once_and_only_once() -> None:
    accounts = table(Registration.ADMINISTERED)
    accounts.invite(CODE, AccountRole.USER, 0, "for alice", not_after=100, now_s=1)
    account, change = accounts.register(ALICE, "alice", CODE, 100)
    assert account.quota_bytes == 1000
    assert len(change.statements) == 2
    assert code_of(lambda: accounts.register(BOB, "", CODE, 100)) is ErrorCode.INVITATION_INVALID


def test_invitation_is_open_again_when_its_use_could_not_be_stored() -> None:
    accounts = table(Registration.ADMINISTERED)
    accounts.invite(CODE, AccountRole.USER, 0, "", not_after=100, now_s=1)
    _, change = accounts.register(ALICE, "", CODE, 50)
    change.undo()
    assert accounts.register(BOB, "", CODE, 50)[0].key == BOB


def test_invitation_is_refused_when_expired() -> None:
    accounts = table(Registration.ADMINISTERED)
    accounts.invite(CODE, AccountRole.USER, 0, "", not_after=100, now_s=1)
    assert code_of(lambda: accounts.register(ALICE, "", CODE, 101)) is ErrorCode.INVITATION_INVALID


def test_invitation_is_refused_at_another_node() -> None:
    here, there = table(Registration.ADMINISTERED), table(Registration.ADMINISTERED, b"m" * 32)
    change = here.invite(CODE, AccountRole.USER, 0, "", not_after=100, now_s=1)
    row = change.statements[0][1]
    there.load([], [row], [])  # even where the other node's row was copied
    assert code_of(lambda: there.register(ALICE, "", CODE, 7)) is ErrorCode.INVITATION_INVALID


def test_invitation_keeps_no_code() -> None:
    change = table(Registration.ADMINISTERED).invite(
        CODE, AccountRole.USER, 0, "", not_after=100, now_s=1
    )
    assert CODE not in change.statements[0][1]


def test_used_and_expired_invitations_leave_room_for_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounts_module, "INVITATIONS_MAX", 2)
    accounts = table(Registration.ADMINISTERED)
    codes = [bytes([n]) * 16 for n in range(4)]
    for code, not_after in zip(codes[:2], (10, 100), strict=True):
        accounts.invite(code, AccountRole.USER, 0, "", not_after=not_after, now_s=1)
    full = lambda now_s: accounts.invite(  # noqa: E731
        codes[2], AccountRole.USER, 0, "", not_after=100, now_s=now_s
    )
    assert code_of(lambda: full(10)) is ErrorCode.OVERLOADED
    full(11)
    accounts.register(ALICE, "", codes[1], 12)
    accounts.invite(codes[3], AccountRole.USER, 0, "", not_after=100, now_s=12)


def test_revoked_account_is_refused_and_cannot_register_again() -> None:
    accounts = table(Registration.OPEN)
    accounts.register(ALICE, "", b"", 7)
    accounts.revoke_account(ALICE, OWNER)
    assert code_of(lambda: accounts.served(ALICE, LAPTOP)) is ErrorCode.REVOKED
    assert code_of(lambda: accounts.register(ALICE, "", b"", 8)) is ErrorCode.REVOKED


def test_revoked_device_is_refused_and_the_others_are_served() -> None:
    accounts = table(Registration.OPEN)
    accounts.register(ALICE, "", b"", 7)
    accounts.revoke_device(ALICE, LAPTOP, 8)
    assert code_of(lambda: accounts.served(ALICE, LAPTOP)) is ErrorCode.REVOKED
    assert accounts.served(ALICE, PHONE) is not None


def test_revocations_stand_after_a_restart() -> None:
    accounts = table(Registration.OPEN)
    accounts.register(ALICE, "", b"", 7)
    row = accounts.revoke_account(ALICE, OWNER).statements[0][1]
    accounts.register(BOB, "", b"", 7)
    device = accounts.revoke_device(BOB, LAPTOP, 9).statements[0][1]
    again = table(Registration.OPEN)
    again.load([row], [], [device])
    assert code_of(lambda: again.served(ALICE, PHONE)) is ErrorCode.REVOKED
    assert code_of(lambda: again.served(BOB, LAPTOP)) is ErrorCode.REVOKED


def test_administrator_cannot_revoke_itself() -> None:
    accounts = table(Registration.OPEN)
    refused = code_of(lambda: accounts.revoke_account(OWNER, OWNER))
    assert refused is ErrorCode.NOT_PERMITTED


def test_revoked_owner_stays_revoked_when_the_node_starts_again() -> None:
    accounts = AccountTable(b"n" * 32, Registration.OWNERS, frozenset({OWNER, ALICE}), 1000, 10)
    accounts.adopt_owners(5)
    accounts.revoke_account(ALICE, OWNER)
    assert accounts.adopt_owners(6).statements == ()
    assert code_of(lambda: accounts.served(ALICE, LAPTOP)) is ErrorCode.REVOKED


def test_table_serves_only_owners_when_told_so() -> None:
    accounts = table(Registration.OPEN)
    _, change = accounts.register(ALICE, "", b"", 7)
    closed = table(Registration.OWNERS)
    closed.load([change.statements[0][1]], [], [])
    assert closed.served(ALICE, LAPTOP) is None
    assert code_of(lambda: closed.register(ALICE, "", b"", 8)) is ErrorCode.REGISTRATION_CLOSED
    assert closed.register(OWNER, "", b"", 8)[0].role is AccountRole.ADMIN


def test_owner_is_administrator_again_when_it_was_a_user_before() -> None:
    accounts = AccountTable(b"n" * 32, Registration.OPEN, frozenset({OWNER}), 1000, 10)
    accounts.load([(OWNER, 1, "x", 1, 10, 0)], [], [])
    assert len(accounts.adopt_owners(9).statements) == 1
    assert accounts.accounts[OWNER].role is AccountRole.ADMIN
    assert accounts.adopt_owners(10).statements == ()
