"""The certificates, tickets, addresses and names of spec/vectors/invalid.json."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from alpyne_proto.address import Address
from alpyne_proto.certificate import Certificate
from alpyne_proto.errors import ErrorCode
from alpyne_proto.keys import DeviceIdentity, SigningKey
from alpyne_proto.ticket import CONTEXT, Ticket, Verb

NOW_S = 1_790_000_000
_LATER_S = NOW_S + 86_400
_TOLERANCE_S = 300
Case = dict[str, Any]


def seeded(name: str, size: int = 32) -> bytes:
    """Return the fixed bytes that stand for something random."""
    return hashlib.sha256(b"alpyne vectors: " + name.encode()).digest()[:size]


ACCOUNT = SigningKey(seeded("account"))
DEVICE = DeviceIdentity(seeded("device"), SigningKey(seeded("device signing")))
NODE_KEY = seeded("this node")
HOLDER = seeded("holder")


def certificate(not_after: int = _LATER_S) -> Certificate:
    """Return the device's certificate."""
    return Certificate.issue(
        ACCOUNT,
        serial=7,
        noise_key=DEVICE.noise_public,
        signing_key=DEVICE.signing.public,
        not_after=not_after,
    )


def invalid_certificates() -> Iterator[Case]:
    """Certificates that a node must refuse: at ``now_s``, of the peer with ``noise_key``."""
    good = certificate().encode()
    cases = {
        "cut short": good[:-1],
        "too long": good + b"\0",
        "version 2": b"\2" + good[1:],
        "another serial than was signed": good[:1] + b"\1" + good[2:],
        "a flipped bit of the signature": good[:-1] + bytes((good[-1] ^ 1,)),
        "expired": certificate(NOW_S - _TOLERANCE_S - 1).encode(),
    }
    for name, data in cases.items():
        yield _case(name, data, ErrorCode.CERTIFICATE_INVALID, noise_key=DEVICE.noise_public.hex())
    yield _case("another device's", good, ErrorCode.CERTIFICATE_INVALID, noise_key=HOLDER.hex())


def ticket(**changes: Any) -> Ticket:
    """Return a ticket of the device; changes replace fields before it is signed."""
    fields: dict[str, Any] = {
        "serial": seeded("serial", 16),
        "holder": HOLDER,
        "audiences": (NODE_KEY,),
        "container": seeded("container", 16),
        "prefix": "texts",
        "verbs": Verb.READ,
        "job": seeded("job", 16),
        "allocation": 1,
        "not_after": _LATER_S,
        **changes,
    }
    return Ticket.issue(DEVICE, fields.pop("certificate", certificate()), **fields)


def _signed_anew(body: bytes) -> bytes:
    return body + DEVICE.signing.sign(CONTEXT + body)


def _with_audiences(body: bytes, at_count: int, audiences: list[bytes]) -> bytes:
    size, prefix = body[at_count + 1 : at_count + 3], body[at_count + 3 + 32 :]
    count = bytes((len(audiences),))
    return _signed_anew(b"".join((body[:at_count], count, size, *audiences, prefix)))


def invalid_tickets() -> Iterator[Case]:
    """Tickets that the node ``audience`` must refuse from the peer ``holder`` at ``now_s``."""
    good = ticket().encode()
    body = good[:-64]
    at_verbs = 1 + 16 + 177 + 32 + 16 + 16 + 4
    at_count = at_verbs + 2 + 8
    cases = {
        "cut short": good[:-1],
        "too long": good + b"\0",
        "version 2": _signed_anew(b"\2" + body[1:]),
        "an unknown verb": _signed_anew(body[:at_verbs] + b"\0\x09" + body[at_verbs + 2 :]),
        "no verb": _signed_anew(body[:at_verbs] + b"\0\0" + body[at_verbs + 2 :]),
        "no audience": _with_audiences(body, at_count, []),
        "nine audiences": _with_audiences(body, at_count, [seeded(str(n)) for n in range(9)]),
        "an audience twice": _with_audiences(body, at_count, [NODE_KEY, NODE_KEY]),
        "more audiences announced": _signed_anew(body[:at_count] + b"\2" + body[at_count + 1 :]),
        "a prefix that ends with a slash": _signed_anew(body[:-1] + b"/"),
        "a prefix with a control character": _signed_anew(body[:-1] + b"\n"),
        "a prefix that is no UTF-8": _signed_anew(body[:-1] + b"\xff"),
        "another prefix than was signed": body[:-1] + b"z" + good[-64:],
        "another node's": ticket(audiences=(HOLDER,)).encode(),
        "another holder's": ticket(holder=NODE_KEY).encode(),
        "expired": ticket(not_after=NOW_S - _TOLERANCE_S - 1).encode(),
        "an expired certificate": ticket(
            certificate=certificate(NOW_S - _TOLERANCE_S - 1)
        ).encode(),
        "another account's certificate": ticket(
            certificate=replace(certificate(), account_key=HOLDER)
        ).encode(),
    }
    for name, data in cases.items():
        yield _case(name, data, ErrorCode.TICKET_INVALID, audience=NODE_KEY.hex(),
                    holder=HOLDER.hex())  # fmt: skip


def _case(name: str, data: bytes, error: ErrorCode, **more: Any) -> Case:
    return {"name": name, **more, "now_s": NOW_S, "bytes": data.hex(), "error": error.name}


def invalid_addresses() -> Iterator[Case]:
    """Texts that are no address."""
    text = str(Address((("10.0.0.7", 7301),), NODE_KEY))
    route, key = text.split("#")
    cases = {
        "no key": route,
        "a key of 42 characters": text[:-1],
        "a key of 44 characters": text + "A",
        "a key with bits left over": text[:-1] + "9",
        "a key in plain base64": f"{route}#{'+' * 43}",
        "another scheme": "https" + text.removeprefix("alpyne"),
        "no port": f"alpyne://10.0.0.7#{key}",
        "port 0": f"alpyne://10.0.0.7:0#{key}",
        "port 65536": f"alpyne://10.0.0.7:65536#{key}",
        "no host": f"alpyne://:7301#{key}",
        "IPv6 without brackets": f"alpyne://fe80::1:7301#{key}",
        "brackets around a name": f"alpyne://[node]:7301#{key}",
        "an empty route": f"alpyne://10.0.0.7:7301,#{key}",
        "a slash": f"alpyne://10.0.0.7:7301/#{key}",
        "nine routes": f"alpyne://{','.join(['a:1'] * 9)}#{key}",
    }
    for name, data in cases.items():
        yield {"name": name, "text": data, "error": ErrorCode.BAD_REQUEST.name}


def invalid_names() -> Iterator[Case]:
    """Paths of objects and names of containers that must be refused."""
    paths = {
        "empty": "",
        "absolute": "/a",
        "a slash at the end": "a/",
        "an empty segment": "a//b",
        "a segment .": "a/./b",
        "a segment ..": "a/../b",
        "NUL": "a\0b",
        "LF": "a\nb",
        "DEL": "a\x7fb",
        "a C1 control": "a\x85b",
        "1,025 bytes": "a" * 1025,
        "513 letters of 2 bytes": "é" * 513,
    }
    names = {"empty": "", "LF": "a\nb", "256 bytes": "a" * 256}
    for kind, cases in (("path", paths), ("container name", names)):
        for name, text in cases.items():
            error = ErrorCode.BAD_REQUEST.name
            yield {"name": name, "kind": kind, "text": text, "error": error}
