"""spec/vectors/session.json: a whole connection, reproduced from its keys, record by record."""

import json
from pathlib import Path
from typing import Any

import pytest

from alpyne_proto.codec import decode_as
from alpyne_proto.frame import FrameType, split
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello
from alpyne_proto.noise import HandshakeState
from alpyne_proto.preface import NOISE_NAME, Preface
from alpyne_proto.record import RecordReader, encode_handshake

FILE = Path(__file__).resolve().parents[2] / "spec/vectors/session.json"
VECTOR: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
SENT = [step for step in VECTOR["steps"] if "sends" in step]


def party(side: str) -> HandshakeState:
    is_dialler = side == "dialler"
    return HandshakeState(
        NOISE_NAME,
        is_dialler,
        bytes.fromhex(VECTOR["prologue"]),
        bytes.fromhex(VECTOR[side]["static_private"]),
        bytes.fromhex(VECTOR[side]["ephemeral_private"]),
        bytes.fromhex(VECTOR["acceptor"]["static_public"]) if is_dialler else None,
    )


def finished() -> HandshakeState:
    """Do the handshake by Noise alone, check each message, and return the dialler's side."""
    dialler, acceptor = party("dialler"), party("acceptor")
    metas = {side: bytes.fromhex(VECTOR[side]["hello_meta"]) for side in ("dialler", "acceptor")}
    first = dialler.write_message()
    assert acceptor.read_message(first) == b""
    second = acceptor.write_message(metas["acceptor"])
    assert dialler.read_message(second) == metas["acceptor"]
    third = dialler.write_message(metas["dialler"])
    assert acceptor.read_message(third) == metas["dialler"]
    sent = [Preface().encode() + encode_handshake(first)]
    sent += [encode_handshake(message) for message in (second, third)]
    assert [data.hex() for data in sent] == [step["sends"] for step in SENT[:3]]
    return dialler


def test_handshake_gives_the_bytes_and_keys_of_the_vector() -> None:
    dialler = finished()
    assert Preface().prologue.hex() == VECTOR["prologue"]
    assert dialler.handshake_hash.hex() == VECTOR["handshake_hash"]
    for side, cipher in zip(("dialler", "acceptor"), dialler.split(), strict=True):
        assert cipher.key is not None
        assert cipher.key.hex() == VECTOR["keys"][f"{side}_sends_with"]


@pytest.mark.parametrize(
    ("side", "hello"), [("dialler", DiallerHello), ("acceptor", AcceptorHello)]
)
def test_hello_gives_its_meta(side: str, hello: type[DiallerHello] | type[AcceptorHello]) -> None:
    read = decode_as(bytes.fromhex(VECTOR[side]["hello_meta"]), hello, lenient=False)
    for name, written in VECTOR[side]["hello"]["fields"].items():
        value = getattr(read, name)
        assert (value.hex() if isinstance(value, bytes) else value) == written


def test_records_hold_the_frames_of_the_vector() -> None:
    ciphers = dict(zip(("dialler", "acceptor"), finished().split(), strict=True))
    readers = {side: RecordReader(cipher) for side, cipher in ciphers.items()}
    for step in SENT[3:]:
        (plain,) = readers[step["by"]].feed(bytes.fromhex(step["sends"]))
        read = [
            {
                "type": FrameType(frame.type).name,
                "flags": frame.flags,
                "stream_id": frame.stream_id,
                "meta": frame.meta.hex(),
                "payload": bytes(frame.payload).hex(),
            }
            for frame in split(plain)
        ]
        assert read == step["frames"]


def test_connection_uses_most_kinds_of_frames() -> None:
    used = {frame["type"] for step in SENT for frame in step.get("frames", ())}
    reserved = {FrameType.RESUME, FrameType.PRIORITY, FrameType.PAD}
    assert used == {kind.name for kind in FrameType if kind not in reserved}
