"""The identities of spec/vectors/identities.json, remade from their private keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from alpyne_proto.address import Address
from alpyne_proto.certificate import Certificate
from alpyne_proto.keys import DeviceIdentity, NodeIdentity, SigningKey
from alpyne_proto.ssh_keys import account_fingerprint, write_public_line
from alpyne_proto.ticket import Ticket, Verb

FILE = Path(__file__).resolve().parents[2] / "spec/vectors/identities.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text())


def hexed(name: str, field: str) -> bytes:
    return bytes.fromhex(VECTORS[name][field])


def make_device() -> DeviceIdentity:
    signing = SigningKey(hexed("device", "signing_private"))
    return DeviceIdentity(hexed("device", "noise_private"), signing)


def make_certificate() -> Certificate:
    device = make_device()
    return Certificate.issue(
        SigningKey(hexed("account", "private")),
        serial=VECTORS["certificate"]["serial"],
        noise_key=device.noise_public,
        signing_key=device.signing.public,
        not_after=VECTORS["certificate"]["not_after"],
    )


def test_account_reproduces_its_vector() -> None:
    public = SigningKey(hexed("account", "private")).public
    assert public == hexed("account", "public")
    assert write_public_line(public, "a comment") == VECTORS["account"]["public_line"]
    assert account_fingerprint(public) == VECTORS["account"]["fingerprint"]


@pytest.mark.parametrize(("name", "kind"), [("device", DeviceIdentity), ("node", NodeIdentity)])
def test_identity_reproduces_its_vector(
    name: str, kind: type[DeviceIdentity] | type[NodeIdentity]
) -> None:
    signing = SigningKey(hexed(name, "signing_private"))
    identity = kind(hexed(name, "noise_private"), signing)
    assert identity.noise_public == hexed(name, "noise_public")
    assert identity.signing.public == hexed(name, "signing_public")
    assert identity.to_text() == VECTORS[name]["text"]


@pytest.mark.parametrize("vector", VECTORS["addresses"])
def test_address_reproduces_its_vector(vector: dict[str, Any]) -> None:
    routes = tuple((host, port) for host, port in vector["routes"])
    address = Address(routes, hexed("node", "noise_public"))
    assert str(address) == vector["text"]
    assert Address.parse(vector["text"]) == address


def test_certificate_reproduces_its_vector() -> None:
    encoded = hexed("certificate", "encoded")
    assert make_certificate().encode() == encoded
    assert Certificate.parse(encoded) == make_certificate()


@pytest.mark.parametrize("vector", VECTORS["tickets"])
def test_ticket_reproduces_its_vector(vector: dict[str, Any]) -> None:
    ticket = Ticket.issue(
        make_device(),
        make_certificate(),
        serial=bytes.fromhex(vector["serial"]),
        holder=bytes.fromhex(vector["holder"]),
        audiences=tuple(bytes.fromhex(key) for key in vector["audiences"]),
        container=bytes.fromhex(vector["container"]),
        prefix=vector["prefix"],
        verbs=Verb(vector["verbs"]),
        job=bytes.fromhex(vector["job"]),
        allocation=vector["allocation"],
        not_after=vector["not_after"],
    )
    assert ticket.encode().hex() == vector["encoded"]
    assert Ticket.parse(bytes.fromhex(vector["encoded"])) == ticket
