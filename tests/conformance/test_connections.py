"""The connections of spec/vectors/invalid.json: what ends a connection, and what does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from alpyne_proto.codec import decode_as, encode
from alpyne_proto.events import ConnectionClosed, Event
from alpyne_proto.frame import Flags, Frame, FrameType, pack, split
from alpyne_proto.handshake import SessionConfig
from alpyne_proto.messages.control import Close, Settings
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello
from alpyne_proto.noise import CipherState
from alpyne_proto.noise_suites import parse_protocol_name
from alpyne_proto.preface import NOISE_NAME, Preface
from alpyne_proto.record import RecordReader, RecordWriter
from alpyne_proto.registry import MESSAGES, State
from alpyne_proto.session import Session

FOLDER = Path(__file__).resolve().parents[2] / "spec/vectors"
INVALID: dict[str, Any] = json.loads((FOLDER / "invalid.json").read_text("utf-8"))
CASES, PREFACES = INVALID["connections"], INVALID["prefaces"]
CONNECTION: dict[str, Any] = json.loads((FOLDER / "session.json").read_text("utf-8"))
SENT = [bytes.fromhex(step["sends"]) for step in CONNECTION["steps"] if "sends" in step]
BY_NAME = {spec.name: spec.cls for spec in MESSAGES.values()}
HELLOS: dict[str, type[DiallerHello] | type[AcceptorHello]] = {
    "dialler": DiallerHello,
    "acceptor": AcceptorHello,
}
Vector = dict[str, Any]


class Bench:
    """One side of session.json, past its handshake, and the keys to both directions."""

    def __init__(self, side: str) -> None:
        peer = "acceptor" if side == "dialler" else "dialler"
        self.is_dialler = side == "dialler"
        self.session = Session(self.config_of(side), 0.0)
        first, second, third = SENT[:3]
        for data in (second,) if self.is_dialler else (first, third):
            self.session.receive_data(data, 0.0)
        while self.session.next_record(0.0) is not None:
            pass
        self._writer = RecordWriter(self.cipher_of(peer))
        self._reader = RecordReader(self.cipher_of(side))

    @staticmethod
    def config_of(side: str) -> SessionConfig:
        party = CONNECTION[side]
        node_key = bytes.fromhex(CONNECTION["acceptor"]["static_public"])
        return SessionConfig(
            hello=decode_as(bytes.fromhex(party["hello_meta"]), HELLOS[side], lenient=False),
            static_private=bytes.fromhex(party["static_private"]),
            random=lambda size: bytes.fromhex(party["ephemeral_private"]),
            remote_static=node_key if side == "dialler" else None,
        )

    @staticmethod
    def cipher_of(sender: str) -> CipherState:
        key = bytes.fromhex(CONNECTION["keys"][f"{sender}_sends_with"])
        return CipherState(parse_protocol_name(NOISE_NAME), key)

    def bring_to(self, state: State) -> None:
        path = {State.HANDSHAKE: (), State.BEARER: (State.UNKNOWN, State.BEARER)}
        for step in path.get(state, (state,)):
            if self.is_dialler:
                self.receive(pack(FrameType.SETTINGS, Flags.NONE, 0, encode(Settings(step))))
            else:
                self.session.promote(step)
        self.sent()

    def receive(self, frames: bytes) -> list[Event]:
        return self.session.receive_data(self._writer.seal([frames]), 0.0)

    def sent(self) -> list[Frame]:
        frames: list[Frame] = []
        while (record := self.session.next_record(0.0)) is not None:
            for plain in self._reader.feed(record):
                frames += split(plain)
        return frames


@pytest.mark.parametrize("vector", CASES, ids=lambda v: f"{v['to']} {v['state']}: {v['name']}")
def test_connection_ends_or_goes_on_as_the_vector_says(vector: Vector) -> None:
    bench = Bench(vector["to"])
    bench.bring_to(State[vector["state"]])
    for request in vector.get("requests", ()):
        bench.session.open_stream(BY_NAME[request["message"]](**request["fields"]))
        bench.sent()
    events: list[Event] = []
    for number, text in enumerate(vector["frames"], 1):
        assert not bench.session.closed, f"ended before frame {number}"
        events = bench.receive(bytes.fromhex(text))
    assert ended_with(events) == vector["error"]
    assert said_goodbye_with(bench.sent()) == vector["error"]


def ended_with(events: list[Event]) -> str | None:
    last = events[-1] if events else None
    if not isinstance(last, ConnectionClosed):
        return None
    assert last.error is not None
    return last.error.code.name


def said_goodbye_with(frames: list[Frame]) -> str | None:
    closes = [frame for frame in frames if frame.type == FrameType.CLOSE]
    if not closes:
        return None
    (close,) = closes
    return decode_as(close.meta, Close, lenient=False).code.name


@pytest.mark.parametrize("vector", PREFACES, ids=lambda v: str(v["name"]))
def test_acceptor_refuses_a_preface_in_the_way_the_vector_says(vector: Vector) -> None:
    session = Session(Bench.config_of("acceptor"), 0.0)
    events = session.receive_data(bytes.fromhex(vector["bytes"]), 0.0)
    assert ended_with(events) == vector["error"]
    answer = session.next_record(0.0)
    assert answer == (Preface().encode() if vector["answered"] else None)
