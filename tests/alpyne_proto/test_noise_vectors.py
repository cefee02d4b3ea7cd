"""The Noise code against public vectors, and our own with intermediate values."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from alpyne_proto.noise import CipherState, HandshakeState

ROOT = Path(__file__).resolve().parents[2]
CACOPHONY = Path(
    os.environ.get("ALPYNE_NOISE_VECTORS", ROOT / "../shared/vectors/noise-cacophony.json")
)
OWN = ROOT / "spec/vectors/noise-xk.json"
CACOPHONY_COUNT = 24  # 3 patterns x 2 ciphers x 4 hashes

Vector = dict[str, Any]


def load(path: Path) -> list[Vector]:
    if not path.is_file():
        return []
    vectors: list[Vector] = json.loads(path.read_text())["vectors"]
    return vectors


def party(vector: Vector, role: str) -> HandshakeState:
    """Build one side of a vector; role is "init" or "resp"."""

    def key(name: str) -> bytes | None:
        text = vector.get(f"{role}_{name}")
        return None if text is None else bytes.fromhex(text)

    psks = vector.get(f"{role}_psks")
    return HandshakeState(
        vector["protocol_name"].encode(),
        role == "init",
        bytes.fromhex(vector[f"{role}_prologue"]),
        key("static"),
        bytes.fromhex(vector[f"{role}_ephemeral"]),
        key("remote_static"),
        bytes.fromhex(psks[0]) if psks else None,
    )


def name_of(vector: Vector) -> str:
    return str(vector["protocol_name"])


cacophony = load(CACOPHONY)
needs_cacophony = pytest.mark.skipif(
    not cacophony,
    reason=f"public Noise vectors absent: set ALPYNE_NOISE_VECTORS or put {CACOPHONY}",
)


@needs_cacophony
def test_vector_file_holds_all_suites() -> None:
    assert len({name_of(vector) for vector in cacophony}) == CACOPHONY_COUNT


@needs_cacophony
@pytest.mark.parametrize("vector", cacophony, ids=name_of)
def test_noise_reproduces_public_vector(vector: Vector) -> None:
    sides = party(vector, "init"), party(vector, "resp")
    ciphers: list[tuple[CipherState, CipherState]] = []
    messages = [
        (bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]
    ]
    for number, (payload, ciphertext) in enumerate(messages):
        writer, reader = number % 2, 1 - number % 2
        if not ciphers:
            assert sides[writer].write_message(payload) == ciphertext
            assert sides[reader].read_message(ciphertext) == payload
            if sides[0].finished:
                assert sides[1].finished
                for side in sides:
                    assert side.handshake_hash.hex() == vector["handshake_hash"]
                ciphers = [side.split() for side in sides]
        else:
            assert ciphers[writer][0].encrypt_with_ad(b"", payload) == ciphertext
            assert ciphers[reader][1].decrypt_with_ad(b"", ciphertext) == payload
    assert ciphers, "the vector ends before the handshake does"


@pytest.mark.parametrize("vector", load(OWN), ids=lambda vector: str(vector["name"]))
def test_noise_reproduces_own_vector_with_intermediate_values(vector: Vector) -> None:
    sides = party(vector, "init"), party(vector, "resp")
    for side in sides:
        assert side.symmetric.h.hex() == vector["initial"]["h"]
        assert side.symmetric.ck.hex() == vector["initial"]["ck"]
    for number, step in enumerate(vector["messages"]):
        writer, reader = sides[number % 2], sides[1 - number % 2]
        message = writer.write_message(bytes.fromhex(step["payload"]))
        assert message.hex() == step["message"]
        assert reader.read_message(message).hex() == step["payload"]
        for side in sides:
            key = side.symmetric.cipher.key
            assert side.symmetric.h.hex() == step["h"]
            assert side.symmetric.ck.hex() == step["ck"]
            assert key is not None
            assert key.hex() == step["k"]
    assert sides[0].handshake_hash.hex() == vector["handshake_hash"]
    (sending, receiving), (back, forth) = sides[0].split(), sides[1].split()
    for direction, pair in (
        ("initiator_to_responder", (sending, forth)),
        ("responder_to_initiator", (receiving, back)),
    ):
        for cipher in pair:
            assert cipher.key is not None
            assert cipher.key.hex() == vector["transport"][direction]["k"]
            cipher.rekey()
            assert cipher.key.hex() == vector["transport"][direction]["k_after_rekey"]
            assert cipher.nonce == 0


def test_own_vectors_are_there() -> None:
    assert len(load(OWN)) == 3
