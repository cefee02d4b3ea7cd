"""The preface: what is accepted, what is refused, and how it binds the handshake."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.errors import HandshakeFailed
from alpyne_proto.noise import HandshakeState
from alpyne_proto.preface import NOISE_NAME, Preface, PrefaceFlag

WIRE = b"ALPYNE\r\n\x01\x01\x01\x00"


def test_preface_is_twelve_known_bytes_when_encoded() -> None:
    assert Preface().encode() == WIRE
    assert Preface().prologue == WIRE + b"alpyne"


def test_acceptor_accepts_our_own_preface() -> None:
    preface = Preface.parse(WIRE)
    preface.check()
    assert preface == Preface()


@pytest.mark.parametrize("bit", range(96))
def test_acceptor_refuses_preface_when_any_bit_is_flipped(bit: int) -> None:
    changed = bytearray(WIRE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(HandshakeFailed):
        Preface.parse(bytes(changed)).check()


@pytest.mark.parametrize("bit", range(64, 96))
def test_handshake_fails_when_one_side_saw_a_changed_preface(bit: int) -> None:
    changed = bytearray(WIRE)
    changed[bit // 8] ^= 1 << bit % 8
    node, device, first, second = (bytes([n]) * 32 for n in range(1, 5))
    address_key = X25519PrivateKey.from_private_bytes(node).public_key().public_bytes_raw()
    sent, seen = Preface().prologue, Preface.parse(bytes(changed)).prologue
    dialler = HandshakeState(NOISE_NAME, True, sent, device, first, address_key)
    acceptor = HandshakeState(NOISE_NAME, False, seen, node, second)
    with pytest.raises(HandshakeFailed):
        acceptor.read_message(dialler.write_message())


@pytest.mark.parametrize(
    ("preface", "text"),
    [
        (Preface(version=2), "version: expected 1, got 2"),
        (Preface(suite=2), "suite: expected 1, got 2"),
        (Preface(pattern=3), "pattern: expected 1, got 3"),
        (Preface(flags=1), "flags: expected 0, got 1"),
    ],
)
def test_acceptor_names_what_differs_when_it_refuses(preface: Preface, text: str) -> None:
    with pytest.raises(HandshakeFailed, match=text):
        preface.check()


@pytest.mark.parametrize(
    ("preface", "text"),
    [
        (Preface(flags=PrefaceFlag.BUSY), "busy; try again later"),
        (Preface(version=9), "version: expected 1, got 9; use the same release"),
        (Preface(), "no reason"),
    ],
)
def test_dialler_explains_refusal_when_acceptor_answers_with_preface(
    preface: Preface, text: str
) -> None:
    assert text in Preface.parse(preface.encode()).explain_refusal()


@given(st.binary(max_size=20))
def test_parser_raises_only_handshake_failed_for_any_bytes(data: bytes) -> None:
    try:
        preface = Preface.parse(data)
    except HandshakeFailed:
        return
    assert preface.encode() == data


@given(st.binary(min_size=4, max_size=4))
def test_parser_gives_back_any_numbers_after_the_magic(data: bytes) -> None:
    assert Preface.parse(WIRE[:8] + data).encode() == WIRE[:8] + data
