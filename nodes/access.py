"""Who may do what on a connection: certificates, registration, tickets, administration, revocation.

A connection's account is decided once, when the handshake completes; every bearer's request is
checked again when it comes. Somebody else's ids answer exactly like unknown ones.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from alpyne_grid.nodes.accounts import Account, AccountTable, Change
from alpyne_grid.wire import Connection, Handler, Request

from alpyne_proto.certificate import Certificate
from alpyne_proto.codec import encode_row
from alpyne_proto.errors import CertificateInvalid, ErrorCode, RequestFailed, TicketInvalid
from alpyne_proto.messages import access as messages
from alpyne_proto.messages.control import AccountRole, Done, RowsFollow
from alpyne_proto.messages.hello import DiallerHello
from alpyne_proto.registry import Message, State
from alpyne_proto.ticket import Ticket, Verb

TICKETS_PER_CONNECTION = 1024
CONNECTIONS_PER_ACCOUNT = 128  # of the 512 that a node takes: no account keeps the others out


_CROWDED = (
    f"the account has {CONNECTIONS_PER_ACCOUNT} connections to this node, those of its jobs "
    "included; end some of its programs"
)


class Clock(Protocol):
    """Wall time for certificates, tickets and invitations."""

    def __call__(self) -> int:
        """Return seconds since the epoch."""


Persist = Callable[[Change, Callable[[BaseException | None], None]], None]


@dataclass(slots=True)
class Peer:
    """What access knows of one connection."""

    account: bytes = b""  # of the certificate; says nothing about being registered
    device: bytes = b""
    tickets: dict[bytes, Ticket] = field(default_factory=dict)


@dataclass(slots=True)
class AccessHooks:
    """What the node does when access changes; each is called after the commit."""

    account_revoked: Callable[[bytes], None] = lambda account: None
    device_revoked: Callable[[bytes, bytes], None] = lambda account, device: None
    used_bytes: Callable[[bytes], int] = lambda account: 0


class Access:
    """The access rules of one node.

    ``node_key``: its static key, the audience of tickets. ``persist``: makes a Change durable and
    calls back. ``random``: for invitation codes. ``takes_tickets``: data nodes only.
    """

    def __init__(
        self,
        table: AccountTable,
        *,
        node_key: bytes,
        persist: Persist,
        clock_s: Clock,
        random: Callable[[int], bytes],
        takes_tickets: bool,
        hooks: AccessHooks | None = None,
    ) -> None:
        self.table = table
        self.hooks = hooks or AccessHooks()
        self._node_key = node_key
        self._persist = persist
        self._clock_s = clock_s
        self._random = random
        self._takes_tickets = takes_tickets
        self._peers: dict[Connection, Peer] = {}

    # --- connections ------------------------------------------------------------------------

    def admit(self, connection: Connection) -> None:
        """Decide the state of a connection whose handshake has completed.

        A certificate that does not hold, a revoked account or device end the connection with a
        CLOSE that says so: the peer has proven its key, so the text goes to nobody else.
        """
        peer = Peer()
        self._peers[connection] = peer
        hello = connection.peer_hello
        assert isinstance(hello, DiallerHello)
        if not hello.certificate:
            connection.promote(State.UNKNOWN, AccountRole.NONE)
            return
        try:
            certificate = Certificate.parse(hello.certificate)
            certificate.verify(self._clock_s(), noise_key=connection.peer_key)
            account = self.table.served(certificate.account_key, certificate.noise_key)
        except (CertificateInvalid, RequestFailed) as error:
            connection.close_nowait(error.code, str(error))
            return
        peer.account, peer.device = certificate.account_key, certificate.noise_key
        if account is None:
            connection.promote(State.UNKNOWN, AccountRole.NONE)
        else:
            self._open(connection, account)

    def forget(self, connection: Connection) -> None:
        """Drop what is known of a connection that has ended."""
        self._peers.pop(connection, None)

    def _open(self, connection: Connection, account: Account) -> None:
        if self._is_crowded(account.key):
            connection.close_nowait(ErrorCode.TOO_BUSY, _CROWDED)
            return
        connection.account = account.key
        connection.promote(State.OPEN, account.role)

    def _is_crowded(self, account: bytes) -> bool:
        """Return whether ``account`` has all the connections that it may have, bearers included."""
        served = sum(
            connection.account == account
            if connection.state is State.OPEN
            else any(ticket.account == account for ticket in peer.tickets.values())
            for connection, peer in self._peers.items()
        )
        return served >= CONNECTIONS_PER_ACCOUNT

    # --- what handlers ask ------------------------------------------------------------------

    def quota_of(self, account: bytes) -> int:
        """Return the account's quota in bytes; 0 means no limit."""
        known = self.table.accounts.get(account)
        return known.quota_bytes if known is not None else 1

    def serves(self, account: bytes) -> bool:
        """Return whether ``account`` may act here: registered, not revoked, and still an owner
        where only owners are served.
        """
        try:
            return self.table.served(account, b"") is not None
        except RequestFailed:
            return False

    def authorize(self, request: Request, container_id: bytes, path: str, verb: Verb) -> bytes:
        """Return the account whose objects ``request`` acts on.

        On an OPEN connection that is its own account. A bearer's ticket (the request's ``ticket``
        field) is checked again: still valid, its device and account not revoked, ``verb`` and
        ``path`` (for a list: the prefix) within it. Raises RequestFailed.
        """
        connection = request.connection
        if connection.state is State.OPEN:
            return connection.account
        peer = self._peers.get(connection)
        message: Any = request.message
        ticket = peer.tickets.get(message.ticket) if peer is not None else None
        if ticket is None:
            raise RequestFailed(
                ErrorCode.TICKET_INVALID, "ticket: none with this serial was shown here"
            )
        try:
            ticket.check_time(self._clock_s())
            self._check_served(ticket)
        except TicketInvalid as error:
            raise RequestFailed(ErrorCode.TICKET_INVALID, str(error)) from None
        if not ticket.permits(verb, container_id, path):
            raise RequestFailed(
                ErrorCode.NOT_PERMITTED, "the ticket does not cover this container, path and verb"
            )
        return ticket.account

    def ticket_of(self, request: Request) -> Ticket | None:
        """Return the ticket that a bearer's request names, or None."""
        peer = self._peers.get(request.connection)
        message: Any = request.message
        return peer.tickets.get(message.ticket) if peer is not None else None

    # --- requests ---------------------------------------------------------------------------

    def handlers(self) -> dict[type[Message], Handler]:
        """Return the handlers of the access messages."""
        handlers: dict[type[Message], Handler] = {
            messages.Register: self._register,
            messages.CreateInvitation: self._create_invitation,
            messages.ListAccounts: self._list_accounts,
            messages.RevokeAccount: self._revoke_account,
            messages.RevokeDevice: self._revoke_device,
        }
        if self._takes_tickets:
            handlers[messages.ShowTicket] = self._show_ticket
        return handlers

    def _register(self, request: Request) -> None:
        connection, message = request.connection, request.message
        assert isinstance(message, messages.Register)
        peer = self._peers.get(connection)
        if peer is None or not peer.account:
            raise RequestFailed(
                ErrorCode.BAD_REQUEST, "register: this connection has shown no certificate"
            )
        account, change = self.table.register(
            peer.account, message.name, message.invitation, self._clock_s()
        )

        def registered() -> None:
            if account.key not in self.table.accounts:  # by a request before, which was not stored
                _not_stored(request)
                return
            if connection.state is not State.OPEN:
                self._open(connection, account)
            request.reply_nowait(messages.Registered(account.role, account.quota_bytes))

        self._commit(request, change, registered)

    def _show_ticket(self, request: Request) -> None:
        connection, message = request.connection, request.message
        assert isinstance(message, messages.ShowTicket)
        peer = self._peers.get(connection)
        if peer is None or len(peer.tickets) >= TICKETS_PER_CONNECTION:
            raise RequestFailed(
                ErrorCode.OVERLOADED,
                f"ticket: at most {TICKETS_PER_CONNECTION} on one connection; open another",
            )
        try:
            ticket = Ticket.parse(message.ticket)
            ticket.check(audience=self._node_key, holder=connection.peer_key, now_s=self._clock_s())
            self._check_served(ticket)
        except TicketInvalid as error:
            raise RequestFailed(ErrorCode.TICKET_INVALID, str(error)) from None
        if not peer.tickets and self._is_crowded(ticket.account):
            raise RequestFailed(ErrorCode.OVERLOADED, _CROWDED, retryable=True)
        peer.tickets[ticket.serial] = ticket
        if connection.state is State.UNKNOWN:
            connection.promote(State.BEARER, AccountRole.NONE)
        request.reply_nowait(messages.TicketTaken(ticket.serial, ticket.not_after))

    def _check_served(self, ticket: Ticket) -> None:
        certificate = ticket.certificate
        try:
            account = self.table.served(certificate.account_key, certificate.noise_key)
        except RequestFailed as error:
            raise TicketInvalid(str(error)) from None
        if account is None:
            raise TicketInvalid("ticket: its account is not registered at this node")

    def _create_invitation(self, request: Request) -> None:
        self._require_admin(request)
        message = request.message
        assert isinstance(message, messages.CreateInvitation)
        code = self._random(16)
        not_after = self._clock_s() + message.life_s
        change = self.table.invite(
            code,
            message.role,
            message.quota_bytes,
            message.note,
            not_after=not_after,
            now_s=self._clock_s(),
        )
        answer = messages.Invitation(code, not_after)
        self._commit(request, change, lambda: request.reply_nowait(answer))

    async def _list_accounts(self, request: Request) -> None:
        self._require_admin(request)
        accounts = sorted(self.table.accounts.values(), key=lambda account: account.registered_at)
        opened = Counter(
            peer.account
            for connection, peer in self._peers.items()
            if connection.state is State.OPEN
        )
        rows = (
            encode_row(
                messages.AccountRow(
                    account.key,
                    account.role,
                    account.name,
                    account.registered_at,
                    account.quota_bytes,
                    self.hooks.used_bytes(account.key),
                    account.revoked,
                    opened[account.key],
                )
            )
            for account in accounts
        )
        await request.reply(RowsFollow(len(accounts)), rows)

    def _revoke_account(self, request: Request) -> None:
        self._require_admin(request)
        message = request.message
        assert isinstance(message, messages.RevokeAccount)
        change = self.table.revoke_account(message.account, request.connection.account)

        def revoked() -> None:
            request.reply_nowait(Done())
            self.hooks.account_revoked(message.account)
            self._close_where(lambda peer: peer.account == message.account)
            self._drop_tickets(lambda ticket: ticket.account == message.account)

        self._commit(request, change, revoked)

    def _revoke_device(self, request: Request) -> None:
        message = request.message
        assert isinstance(message, messages.RevokeDevice)
        if message.account != request.connection.account and not self._is_admin(request):
            raise RequestFailed(ErrorCode.NOT_FOUND, "no such account at this node")
        change = self.table.revoke_device(message.account, message.device, self._clock_s())
        entry = (message.account, message.device)

        def revoked() -> None:
            request.reply_nowait(Done())
            self.hooks.device_revoked(*entry)
            self._close_where(lambda peer: (peer.account, peer.device) == entry)
            self._drop_tickets(
                lambda ticket: (ticket.account, ticket.certificate.noise_key) == entry
            )

        self._commit(request, change, revoked)

    # --- parts ------------------------------------------------------------------------------

    def _commit(self, request: Request, change: Change, then: Callable[[], None]) -> None:
        # Also where there is nothing to store: what stood there may not be committed yet.
        def done(error: BaseException | None) -> None:
            if error is None:
                then()
                return
            change.undo()
            _not_stored(request)

        self._persist(change, done)

    def _close_where(self, matches: Callable[[Peer], bool]) -> None:
        for connection, peer in list(self._peers.items()):
            if matches(peer):
                connection.close_nowait(ErrorCode.REVOKED, "revoked at this node")

    def _drop_tickets(self, matches: Callable[[Ticket], bool]) -> None:
        """Forget tickets, and end the connections of bearers that are left with none.

        Their open transfers end with the connection; a bearer with other tickets dials again.
        """
        for connection, peer in list(self._peers.items()):
            dropped = [serial for serial, ticket in peer.tickets.items() if matches(ticket)]
            for serial in dropped:
                del peer.tickets[serial]
            if dropped:
                connection.close_nowait(ErrorCode.REVOKED, "a ticket was revoked at this node")

    def _is_admin(self, request: Request) -> bool:
        account = self.table.accounts.get(request.connection.account)
        return account is not None and account.role is AccountRole.ADMIN

    def _require_admin(self, request: Request) -> None:
        if not self._is_admin(request):
            raise RequestFailed(
                ErrorCode.NOT_PERMITTED, "only an administrator of this node may do this"
            )


def _not_stored(request: Request) -> None:
    request.fail(
        ErrorCode.STORE_FAILED,
        "the node could not store the change; nothing was changed; try again later",
        retryable=True,
    )
