"""Addresses of nodes: `alpyne://host:port#key`, the key first of all, the routes only ways to it.

Several routes stand with commas between them: `alpyne://10.0.0.7:7301,[fe80::1]:7301#key`. The key
is the node's X25519 static public key, 32 bytes, as base64url without padding (RFC 4648 section 5).

Source: spec/PROTOCOL.md, "Addresses"; RFC 3986 section 3.2.2 (brackets around IPv6).
"""

import base64
import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from alpyne_proto.errors import AddressError
from alpyne_proto.keys import KEY_SIZE
from alpyne_proto.limits import ADDRESS_MAX

SCHEME = "alpyne://"
KEY_TEXT_SIZE = 43  # characters of a key
ROUTES_MAX = 8  # more would only make dialling slow; they also have to fit into ADDRESS_MAX
PORT_MAX = 65_535

_FORM = "expected alpyne://host:port#key, as a node prints it when it starts"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?")  # RFC 1123, and `_`
_ROUTE = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node can be reached, and which node it must be."""

    routes: tuple[tuple[str, int], ...]  # (host, port), 1 to ROUTES_MAX, in the order of preference
    key: bytes  # the node's X25519 static public key, 32 bytes

    def __post_init__(self) -> None:
        """Raise AddressError for what `parse` would not give back."""
        if len(self.key) != KEY_SIZE:
            raise AddressError(f"node key: expected {KEY_SIZE} bytes, got {len(self.key)}")
        if not 1 <= len(self.routes) <= ROUTES_MAX:
            raise AddressError(f"{_FORM}, with 1 to {ROUTES_MAX} routes; got {len(self.routes)}")
        for host, port in self.routes:
            _check_host(host)
            if not 1 <= port <= PORT_MAX:
                raise AddressError(f"port: expected 1 to {PORT_MAX}, got {port}")
        if len(str(self)) > ADDRESS_MAX:
            raise AddressError(f"address: expected at most {ADDRESS_MAX} characters")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address; spaces around it do not matter.

        Raises AddressError, which shows the expected form, for anything else.
        """
        text = text.strip()
        if len(text) > ADDRESS_MAX:
            raise AddressError(f"{_FORM}, at most {ADDRESS_MAX} characters; got {len(text)}")
        routes, mark, key = text.removeprefix(SCHEME).partition("#")
        if not text.startswith(SCHEME):
            raise AddressError(f"{_FORM}; got {text!r}")
        if not mark:
            raise AddressError(f"{_FORM}; got no #key in {text!r}: a route alone names no node")
        return cls(tuple(_parse_route(route) for route in routes.split(",")), key_from_text(key))

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        routes = (f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.routes)
        return f"{SCHEME}{','.join(routes)}#{key_to_text(self.key)}"


def key_to_text(key: bytes) -> str:
    """Return a node's public key, 32 bytes, as the 43 characters that addresses show."""
    if len(key) != KEY_SIZE:
        raise AddressError(f"node key: expected {KEY_SIZE} bytes, got {len(key)}")
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def key_from_text(text: str) -> bytes:
    """Return the 32 bytes of what key_to_text made; raises AddressError for any other text."""
    try:
        key = base64.b64decode(text[:KEY_TEXT_SIZE] + "=", b"-_", validate=True)
    except ValueError:
        key = b""
    # The last character has bits to spare: compare, so that a key has one text only.
    if len(key) != KEY_SIZE or key_to_text(key) != text:
        raise AddressError(
            f"node key: expected {KEY_TEXT_SIZE} characters of base64url, got {text[:64]!r}; copy "
            "the whole address"
        )
    return key


def _parse_route(text: str) -> tuple[str, int]:
    match = _ROUTE.fullmatch(text)
    if match is None:
        raise AddressError(f"{_FORM}; got the route {text!r} (write IPv6 as [::1]:7301)")
    bracketed, plain, port = match.groups()
    if bracketed is not None and ":" not in bracketed:
        raise AddressError(f"{_FORM}; got {text!r}: brackets are for IPv6 only")
    return bracketed or plain, int(port)


def _check_host(host: str) -> None:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise AddressError(f"host: expected an IPv6 address, got {host!r}") from None
        if "%" in host and not _NAME.fullmatch(host.partition("%")[2]):
            raise AddressError(f"host: expected an interface's name behind %, got {host!r}")
    elif not _NAME.fullmatch(host):
        raise AddressError(
            f"host: expected a name of ASCII letters, digits and .-_ or an IP address, got {host!r}"
        )
