"""The Noise handshake: agreement with another implementation, and refusal of everything else."""

import warnings
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection  # type: ignore[import-untyped]

from alpyne_proto.errors import HandshakeFailed, LocalProtocolError
from alpyne_proto.noise import MAX_NONCE, CipherState, HandshakeState
from alpyne_proto.noise_suites import parse_protocol_name

XK = b"Noise_XK_25519_AESGCM_SHA256"
KEYS = [bytes([n]) * 32 for n in range(1, 5)]
NAMES = [
    f"Noise_{pattern}_25519_{cipher}_{digest}".encode()
    for pattern in ("XK", "XX", "NNpsk0")
    for cipher in ("AESGCM", "ChaChaPoly")
    for digest in ("SHA256", "SHA512", "BLAKE2s", "BLAKE2b")
]


def public_of(private: bytes) -> bytes:
    state = HandshakeState(
        b"Noise_NNpsk0_25519_AESGCM_SHA256", True, b"", None, private, psk=bytes(32)
    )
    return state.write_message()[:32]


def xk_pair(prologue: bytes = b"p") -> tuple[HandshakeState, HandshakeState]:
    initiator = HandshakeState(XK, True, prologue, KEYS[0], KEYS[1], public_of(KEYS[2]))
    return initiator, HandshakeState(XK, False, prologue, KEYS[2], KEYS[3])


def finish(pair: tuple[HandshakeState, HandshakeState]) -> None:
    writer, reader = pair
    while not writer.finished:
        reader.read_message(writer.write_message(b"payload"))
        writer, reader = reader, writer


def test_handshake_tells_responder_the_initiators_key_when_finished() -> None:
    initiator, responder = xk_pair()
    assert responder.remote_static is None
    finish((initiator, responder))
    assert responder.remote_static == public_of(KEYS[0])
    assert initiator.handshake_hash == responder.handshake_hash


def test_split_gives_ciphers_that_match_crosswise() -> None:
    pair = xk_pair()
    finish(pair)
    (a_send, a_receive), (b_send, b_receive) = pair[0].split(), pair[1].split()
    assert a_send.key == b_receive.key != a_receive.key == b_send.key


def test_split_refuses_when_called_twice_or_early() -> None:
    pair = xk_pair()
    with pytest.raises(LocalProtocolError):
        pair[0].split()
    finish(pair)
    pair[0].split()
    with pytest.raises(LocalProtocolError):
        pair[0].split()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_bit_flip_of_a_message_ends_the_handshake_before_anything_is_delivered(
    number: int,
) -> None:
    flips = 8 * [32 + 16, 32 + 16, 48 + 16][number]
    for bit in range(flips):
        writer, reader = xk_pair()
        for _ in range(number):
            reader.read_message(writer.write_message())
            writer, reader = reader, writer
        message = bytearray(writer.write_message())
        assert len(message) * 8 == flips
        message[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HandshakeFailed):
            reader.read_message(bytes(message))
        assert not reader.finished
        with pytest.raises(LocalProtocolError):
            reader.write_message()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("change", [lambda m: m[:-1], lambda m: m + b"x", lambda m: b""])
def test_handshake_fails_when_a_message_is_cut_or_longer(
    number: int, change: Callable[[bytes], bytes]
) -> None:
    writer, reader = xk_pair()
    for _ in range(number):
        reader.read_message(writer.write_message())
        writer, reader = reader, writer
    with pytest.raises(HandshakeFailed):
        reader.read_message(change(writer.write_message()))


@given(data=st.binary(max_size=300))
def test_responder_raises_only_handshake_failed_for_any_bytes(data: bytes) -> None:
    with pytest.raises(HandshakeFailed):
        xk_pair()[1].read_message(data)


def test_handshake_fails_when_message_exceeds_noise_maximum() -> None:
    with pytest.raises(HandshakeFailed, match="65536"):
        xk_pair()[1].read_message(bytes(65_536))


def test_handshake_fails_when_prologues_differ() -> None:
    initiator, _ = xk_pair(b"one")
    _, responder = xk_pair(b"two")
    with pytest.raises(HandshakeFailed):
        responder.read_message(initiator.write_message())


def test_handshake_fails_when_dialled_key_is_not_the_nodes() -> None:
    initiator = HandshakeState(XK, True, b"p", KEYS[0], KEYS[1], public_of(KEYS[3]))
    with pytest.raises(HandshakeFailed):
        xk_pair()[1].read_message(initiator.write_message())


SMALL_ORDER = [bytes(32), b"\1" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_responder_fails_when_ephemeral_has_small_order(point: bytes) -> None:
    with pytest.raises(HandshakeFailed, match="small order"):
        xk_pair()[1].read_message(point + bytes(16))


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_initiator_fails_when_address_key_has_small_order(point: bytes) -> None:
    with pytest.raises(HandshakeFailed, match="small order"):
        HandshakeState(XK, True, b"", KEYS[0], KEYS[1], point).write_message()


def test_handshake_refuses_use_when_out_of_turn() -> None:
    initiator, responder = xk_pair()
    with pytest.raises(LocalProtocolError):
        initiator.read_message(bytes(48))
    with pytest.raises(LocalProtocolError):
        responder.write_message()
    finish((initiator, responder))
    with pytest.raises(LocalProtocolError):
        initiator.write_message()


def test_handshake_refuses_payload_that_exceeds_one_message() -> None:
    with pytest.raises(LocalProtocolError, match="65536"):
        xk_pair()[0].write_message(bytes(65_536 - 48))


@pytest.mark.parametrize(
    "arguments",
    [
        {"static": None},
        {"static": bytes(31)},
        {"static": b""},
        {"ephemeral": bytes(33)},
        {"remote_static": None},
        {"remote_static": bytes(31)},
        {"psk": bytes(32)},
        {"initiator": False},
    ],
    ids=str,
)
def test_handshake_refuses_keys_that_do_not_fit_the_pattern(arguments: dict[str, object]) -> None:
    fitting: dict[str, object] = {
        "protocol_name": XK,
        "initiator": True,
        "prologue": b"",
        "static": KEYS[0],
        "ephemeral": KEYS[1],
        "remote_static": public_of(KEYS[2]),
    }
    HandshakeState(**fitting)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="key: expected"):
        HandshakeState(**(fitting | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [b"", b"Noise_IK_25519_AESGCM_SHA256", b"Noise_XK_448_AESGCM_SHA256", XK + b"_x", XK[:-1]],
)
def test_parser_refuses_protocol_name_that_is_not_implemented(name: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="expected Noise_"):
        parse_protocol_name(name)


def test_cipher_refuses_to_work_when_nonce_is_exhausted() -> None:
    cipher = CipherState(parse_protocol_name(XK), bytes(32))
    cipher.nonce = MAX_NONCE
    with pytest.raises(LocalProtocolError, match="exhausted"):
        cipher.encrypt_with_ad(b"", b"x")
    with pytest.raises(LocalProtocolError, match="exhausted"):
        cipher.decrypt_with_ad(b"", bytes(17))


def test_cipher_keeps_nonce_when_authentication_fails() -> None:
    suite = parse_protocol_name(XK)
    writer, reader = CipherState(suite, bytes(32)), CipherState(suite, bytes(32))
    sealed = writer.encrypt_with_ad(b"ad", b"text")
    with pytest.raises(HandshakeFailed):
        reader.decrypt_with_ad(b"other", sealed)
    assert reader.decrypt_with_ad(b"ad", sealed) == b"text"


def test_rekey_is_refused_when_cipher_has_no_key() -> None:
    with pytest.raises(LocalProtocolError):
        CipherState(parse_protocol_name(XK)).rekey()


key = st.binary(min_size=32, max_size=32)
payloads = st.lists(st.binary(max_size=200), min_size=3, max_size=3)


def reference_party(
    name: bytes, initiator: bool, prologue: bytes, keys: dict[Keypair, bytes], psk: bytes
) -> NoiseConnection:
    connection = NoiseConnection.from_name(name)
    connection.set_prologue(prologue)
    if b"psk" in name:
        connection.set_psks(psk)
    for which, value in keys.items():
        if which is Keypair.REMOTE_STATIC:
            connection.set_keypair_from_public_bytes(which, value)
        else:
            connection.set_keypair_from_private_bytes(which, value)
    if initiator:
        connection.set_as_initiator()
    else:
        connection.set_as_responder()
    with warnings.catch_warnings():  # it warns of ephemeral keys given from outside
        warnings.simplefilter("ignore")
        connection.start_handshake()
    return connection


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    ours_initiates=st.booleans(),
    prologue=st.binary(max_size=40),
    keys=st.lists(key, min_size=4, max_size=4, unique=True),
    psk=key,
    texts=payloads,
    transport=st.lists(
        st.tuples(st.booleans(), st.one_of(st.none(), st.binary(max_size=100))), max_size=8
    ),
)
def test_noise_agrees_with_noiseprotocol_on_random_transcripts(
    name: bytes,
    ours_initiates: bool,
    prologue: bytes,
    keys: list[bytes],
    psk: bytes,
    texts: list[bytes],
    transport: list[tuple[bool, bytes | None]],
) -> None:
    static, ephemeral, its_static, its_ephemeral = keys
    statics, known = b"NN" not in name, b"XK" in name
    ours = HandshakeState(
        name,
        ours_initiates,
        prologue,
        static if statics else None,
        ephemeral,
        public_of(its_static) if known and ours_initiates else None,
        psk if b"psk" in name else None,
    )
    its_keys = {Keypair.EPHEMERAL: its_ephemeral}
    if statics:
        its_keys[Keypair.STATIC] = its_static
    if known and not ours_initiates:
        its_keys[Keypair.REMOTE_STATIC] = public_of(static)
    theirs = reference_party(name, not ours_initiates, prologue, its_keys, psk)

    we_write = ours_initiates
    for text in texts:
        if ours.finished:
            break
        if we_write:
            assert bytes(theirs.read_message(ours.write_message(text))) == text
        else:
            assert ours.read_message(bytes(theirs.write_message(text))) == text
        we_write = not we_write
    assert ours.finished
    assert theirs.handshake_finished
    assert ours.handshake_hash == theirs.get_handshake_hash()
    if statics:
        assert ours.remote_static == public_of(its_static)

    sending, receiving = ours.split()
    for we_send, data in transport:
        if data is None and we_send:
            sending.rekey()
            theirs.rekey_inbound_cipher()
        elif data is None:
            receiving.rekey()
            theirs.rekey_outbound_cipher()
        elif we_send:
            assert theirs.decrypt(sending.encrypt_with_ad(b"", data)) == data
        else:
            assert receiving.decrypt_with_ad(b"", theirs.encrypt(data)) == data
