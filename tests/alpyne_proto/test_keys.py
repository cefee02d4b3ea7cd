"""Signing keys and the identities of devices and nodes."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.errors import KeyFileError, LocalProtocolError
from alpyne_proto.keys import DeviceIdentity, Identity, NodeIdentity, SigningKey, signature_holds


def counting_random() -> Callable[[int], bytes]:
    """Return a source that gives other bytes on each call."""
    calls = iter(range(1, 255))
    return lambda size: bytes([next(calls)]) * size


def test_signing_key_reproduces_rfc_8032_test_1() -> None:
    key = SigningKey(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06")
    assert signature_holds(key.public, key.sign(b""), b"")


def test_signature_does_not_hold_for_other_message_key_or_size() -> None:
    key, other = SigningKey(bytes(32)), SigningKey(b"\1" * 32)
    signature = key.sign(b"text")
    assert not signature_holds(key.public, signature, b"texT")
    assert not signature_holds(other.public, signature, b"text")
    assert not signature_holds(key.public, signature[:-1], b"text")
    assert not signature_holds(key.public[:-1], signature, b"text")


def test_identity_draws_two_keys_when_created() -> None:
    identity = NodeIdentity.create(counting_random())
    assert identity == NodeIdentity(b"\1" * 32, SigningKey(b"\2" * 32))
    assert identity.noise_public != identity.signing.public


def test_identity_refuses_one_key_for_both_purposes() -> None:
    with pytest.raises(LocalProtocolError, match="two keys"):
        DeviceIdentity(bytes(32), SigningKey(bytes(32)))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_refuse_other_sizes(size: int) -> None:
    with pytest.raises(LocalProtocolError, match="expected 32 bytes"):
        SigningKey(bytes(size))
    with pytest.raises(LocalProtocolError, match="expected 32 bytes"):
        NodeIdentity(bytes(size), SigningKey(bytes(32)))


def test_private_keys_stay_out_of_repr() -> None:
    shown = repr(DeviceIdentity(b"\xaa" * 32, SigningKey(b"\xbb" * 32)))
    assert r"\xaa" * 32 not in shown
    assert r"\xbb" * 32 not in shown


@pytest.mark.parametrize("kind", [DeviceIdentity, NodeIdentity])
def test_identity_survives_its_text(kind: type[Identity]) -> None:
    identity = kind.create(counting_random())
    read = kind.from_text(identity.to_text(), "file")
    assert read == identity
    assert type(read) is kind
    windows = identity.to_text().replace("\n", "\r\n")
    assert kind.from_text("\n" + windows + "\n", "file") == identity


def test_device_refuses_a_nodes_file() -> None:
    text = NodeIdentity.create(counting_random()).to_text()
    with pytest.raises(KeyFileError, match=r"^node.key: expected .*ALPYNE DEVICE PRIVATE KEYS"):
        DeviceIdentity.from_text(text, "node.key")
    renamed = text.replace("NODE", "DEVICE")
    with pytest.raises(KeyFileError, match="checksum"):
        DeviceIdentity.from_text(renamed, "node.key")


def test_identity_refuses_text_when_any_character_is_changed_or_missing() -> None:
    identity = NodeIdentity.create(counting_random())
    text = identity.to_text()
    for at, old in enumerate(text):
        for new in ("", "A" if old != "A" else "B"):
            changed = text[:at] + new + text[at + 1 :]
            with suppress(KeyFileError):  # a line end inside the base64 means nothing
                assert NodeIdentity.from_text(changed, "file") == identity


@given(st.text(max_size=100))
def test_identity_raises_only_key_file_error_for_any_text(text: str) -> None:
    begin, end = (
        "-----BEGIN ALPYNE NODE PRIVATE KEYS-----",
        "-----END ALPYNE NODE PRIVATE KEYS-----",
    )
    for content in (text, f"{begin}\n{text}\n{end}", begin + text, begin):
        with pytest.raises(KeyFileError):
            NodeIdentity.from_text(content, "file")


def test_identity_refuses_long_text() -> None:
    text = NodeIdentity.create(counting_random()).to_text()
    with pytest.raises(KeyFileError):
        NodeIdentity.from_text(text + " " * 1024, "file")
