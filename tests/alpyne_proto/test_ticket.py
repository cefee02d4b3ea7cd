"""Tickets: what holds where, what they permit, and that any bytes are refused in order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto import limits
from alpyne_proto.certificate import Certificate
from alpyne_proto.errors import LocalProtocolError, TicketInvalid
from alpyne_proto.keys import DeviceIdentity, SigningKey
from alpyne_proto.ticket import CONTEXT, TICKET_SIZE_MAX, TICKET_SIZE_MIN, Ticket, Verb

ACCOUNT = SigningKey(b"\1" * 32)
DEVICE = DeviceIdentity(b"\2" * 32, SigningKey(b"\3" * 32))
NOT_AFTER = 1_800_000_000
CERTIFICATE = Certificate.issue(
    ACCOUNT,
    serial=1,
    noise_key=DEVICE.noise_public,
    signing_key=DEVICE.signing.public,
    not_after=NOT_AFTER + 86_400,
)
HOLDER, HERE, THERE = (bytes([n]) * 32 for n in (10, 11, 12))
CONTAINER, JOB, SERIAL = (bytes([n]) * 16 for n in (20, 21, 22))
TERMS: dict[str, Any] = {
    "serial": SERIAL,
    "holder": HOLDER,
    "audiences": (HERE, THERE),
    "container": CONTAINER,
    "prefix": "texts/new",
    "verbs": Verb.READ | Verb.LIST,
    "job": JOB,
    "allocation": 3,
    "not_after": NOT_AFTER,
}


def issue(**changes: Any) -> Ticket:
    return Ticket.issue(DEVICE, CERTIFICATE, **(TERMS | changes))


def resign(body: bytes) -> bytes:
    """Sign what may be no ticket, as a device that breaks the protocol could."""
    return body + DEVICE.signing.sign(CONTEXT + body)


def test_ticket_holds_after_the_way_over_the_wire() -> None:
    parsed = Ticket.parse(issue().encode())
    assert parsed == issue()
    assert parsed.account == ACCOUNT.public
    for audience in (HERE, THERE):
        parsed.check(audience=audience, holder=HOLDER, now_s=NOT_AFTER)


@pytest.mark.parametrize("prefix", ["", "a", "é/b", "p" * 1_024])
@pytest.mark.parametrize("audiences", [1, 8])
def test_ticket_survives_the_wire_at_its_bounds(prefix: str, audiences: int) -> None:
    keys = tuple(bytes([n]) * 32 for n in range(audiences))
    encoded = issue(prefix=prefix, audiences=keys, allocation=2**32 - 1).encode()
    assert TICKET_SIZE_MIN <= len(encoded) <= TICKET_SIZE_MAX <= limits.TICKET_MAX
    assert Ticket.parse(encoded).encode() == encoded


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"audience": HOLDER}, "this node among its audiences"),
        ({"holder": HERE}, "its holder to show it"),
        ({"now_s": NOT_AFTER + 301}, "expired 301 s ago"),
        ({"now_s": NOT_AFTER + 86_701}, "device certificate: expired"),
    ],
)
def test_check_names_its_reason_when_the_ticket_does_not_hold_here(
    arguments: dict[str, Any], reason: str
) -> None:
    fitting: dict[str, Any] = {"audience": HERE, "holder": HOLDER, "now_s": NOT_AFTER + 300}
    issue().check(**fitting)
    with pytest.raises(TicketInvalid, match=reason):
        issue().check(**(fitting | arguments))


def test_ticket_expires_with_its_certificate_when_that_is_sooner() -> None:
    ticket = issue(not_after=NOT_AFTER + 10 * 86_400)
    ticket.check_time(NOT_AFTER + 86_400 + 300)
    with pytest.raises(TicketInvalid, match="expired 301 s ago"):
        ticket.check_time(NOT_AFTER + 86_400 + 301)


def test_ticket_never_holds_when_any_bit_is_flipped() -> None:
    encoded = issue().encode()
    for bit in range(8 * len(encoded)):
        changed = bytearray(encoded)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TicketInvalid):
            Ticket.parse(bytes(changed)).check(audience=HERE, holder=HOLDER, now_s=NOT_AFTER)


def test_ticket_does_not_hold_when_another_device_signed_it() -> None:
    other = DeviceIdentity(b"\4" * 32, SigningKey(b"\5" * 32))
    body = issue().encode()[:-64]
    forged = Ticket.parse(body + other.signing.sign(CONTEXT + body))
    with pytest.raises(TicketInvalid, match="a signature by its device"):
        forged.check(audience=HERE, holder=HOLDER, now_s=NOT_AFTER)


def test_ticket_is_not_issued_with_another_devices_certificate() -> None:
    other = DeviceIdentity(b"\4" * 32, SigningKey(b"\5" * 32))
    with pytest.raises(LocalProtocolError, match="another device's"):
        Ticket.issue(other, CERTIFICATE, **TERMS)


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": bytes(15)},
        {"container": bytes(17)},
        {"job": b""},
        {"holder": bytes(31)},
        {"audiences": ()},
        {"audiences": (bytes(31),)},
        {"audiences": tuple(bytes([n]) * 32 for n in range(9))},
        {"audiences": (HERE, HERE)},
        {"verbs": Verb(0)},
        {"verbs": Verb(8)},
        {"allocation": -1},
        {"allocation": 1 << 32},
        {"not_after": 1 << 64},
        {"prefix": "é" * 513},
        {"prefix": "/a"},
        {"prefix": "a/"},
        {"prefix": "a//b"},
        {"prefix": "a/../b"},
        {"prefix": "."},
        {"prefix": "a\0"},
        {"prefix": "\ud800"},
    ],
    ids=str,
)
def test_ticket_is_not_issued_for_what_no_ticket_may_say(changes: dict[str, Any]) -> None:
    with pytest.raises(TicketInvalid, match="ticket: expected"):
        issue(**changes)


FIXED_SIZE = 275
VERBS_AT, COUNT_AT, PREFIX_SIZE_AT = 262, 272, 273


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, b"\2", "version 1, got 2"),
        (VERBS_AT, b"\0\0", "verbs of 1 to 7"),
        (VERBS_AT, b"\0\x09", "verbs of 1 to 7, got 9"),
        (VERBS_AT, b"\x80\1", "verbs of 1 to 7, got 32769"),
        (COUNT_AT, b"\0", "the length that its counts add up to"),
        (COUNT_AT, b"\xff", "the length that its counts add up to"),
        (PREFIX_SIZE_AT, b"\xff\xff", "the length that its counts add up to"),
        (PREFIX_SIZE_AT + 1, b"\0", "the length that its counts add up to"),
        (FIXED_SIZE + 32, HERE, "each audience once"),
        (FIXED_SIZE + 64, b"\xff", "utf-8"),
        (FIXED_SIZE + 64, b"/", "whole segments"),
        (17, b"\2", "device certificate: expected version 1, got 2"),
    ],
)
def test_parser_names_its_reason_when_a_signed_ticket_breaks_the_rules(
    at: int, value: bytes, reason: str
) -> None:
    body = issue().encode()[:-64]
    with pytest.raises(TicketInvalid, match=reason):
        Ticket.parse(resign(body[:at] + value + body[at + len(value) :]))


@pytest.mark.parametrize("size", [0, TICKET_SIZE_MIN - 1, TICKET_SIZE_MAX + 1])
def test_parser_refuses_sizes_that_no_ticket_has(size: int) -> None:
    with pytest.raises(TicketInvalid, match="371 to 1619 bytes"):
        Ticket.parse(bytes(size))


@given(st.binary(max_size=600), st.integers(0, 400))
def test_parser_raises_only_ticket_invalid_for_any_bytes(data: bytes, keep: int) -> None:
    for whole in (data, issue().encode()[:keep] + data):
        with pytest.raises(TicketInvalid):
            Ticket.parse(whole).check(audience=HERE, holder=HOLDER, now_s=NOT_AFTER)


@pytest.mark.parametrize(
    ("verb", "container", "path", "permitted"),
    [
        (Verb.READ, CONTAINER, "texts/new", True),
        (Verb.READ, CONTAINER, "texts/new/a", True),
        (Verb.LIST, CONTAINER, "texts/new/", True),
        (Verb.READ | Verb.LIST, CONTAINER, "texts/new/a", True),
        (Verb.WRITE, CONTAINER, "texts/new/a", False),
        (Verb.READ | Verb.WRITE, CONTAINER, "texts/new/a", False),
        (Verb(0), CONTAINER, "texts/new/a", False),
        (Verb.READ, JOB, "texts/new/a", False),
        (Verb.READ, CONTAINER, "texts/newer", False),
        (Verb.READ, CONTAINER, "texts", False),
        (Verb.LIST, CONTAINER, "", False),
    ],
)
def test_ticket_permits_only_its_verbs_on_its_subject(
    verb: Verb, container: bytes, path: str, permitted: bool
) -> None:
    assert issue().permits(verb, container, path) is permitted


def test_ticket_without_prefix_permits_the_whole_container() -> None:
    ticket = issue(prefix="")
    assert ticket.permits(Verb.READ, CONTAINER, "anything/at all")
    assert ticket.permits(Verb.LIST, CONTAINER, "")
