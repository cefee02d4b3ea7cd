"""spec/vectors/invalid.json: what must be refused is refused, with the error that it names."""

import json
from pathlib import Path
from typing import Any

import pytest

import alpyne_proto.messages  # noqa: F401 - fills the registry
from alpyne_proto import codec, container, frame
from alpyne_proto.address import Address
from alpyne_proto.certificate import Certificate
from alpyne_proto.compression import Inflater
from alpyne_proto.errors import AlpyneError
from alpyne_proto.noise import CipherState
from alpyne_proto.noise_suites import parse_protocol_name
from alpyne_proto.preface import NOISE_NAME, Preface
from alpyne_proto.record import RecordReader, take_handshake
from alpyne_proto.registry import MESSAGES
from alpyne_proto.ticket import Ticket

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "spec/vectors/invalid.json").read_text("utf-8")
)
BY_NAME = {spec.name: spec.cls for spec in MESSAGES.values()}
Vector = dict[str, Any]


def cases(group: str) -> pytest.MarkDecorator:
    held = VECTORS[group]
    held = held["cases"] if isinstance(held, dict) else held
    assert held, f"no cases in {group}"
    return pytest.mark.parametrize("vector", held, ids=lambda v: str(v["name"]))


def data_of(vector: Vector) -> bytes:
    return bytes.fromhex(vector["bytes"])


@cases("prefaces")
def test_preface_is_refused(vector: Vector) -> None:
    with pytest.raises(AlpyneError) as raised:
        Preface.parse(data_of(vector)).check()
    assert raised.value.code.name == vector["error"]


@cases("handshake_records")
def test_handshake_record_is_refused(vector: Vector) -> None:
    with pytest.raises(AlpyneError) as raised:
        take_handshake(bytearray(data_of(vector)))
    assert raised.value.code.name == vector["error"]


@cases("records")
def test_last_record_is_refused(vector: Vector) -> None:
    suite = parse_protocol_name(NOISE_NAME)
    reader = RecordReader(CipherState(suite, bytes.fromhex(VECTORS["records"]["key"])))
    *before, last = (bytes.fromhex(record) for record in vector["records"])
    for record in before:
        assert len(list(reader.feed(record))) == 1
    with pytest.raises(AlpyneError) as raised:
        list(reader.feed(last))
    assert raised.value.code.name == vector["error"]


@cases("frames")
def test_frames_of_a_record_are_refused(vector: Vector) -> None:
    with pytest.raises(AlpyneError) as raised:
        list(frame.split(data_of(vector)))
    assert raised.value.code.name == vector["error"]


@cases("meta")
def test_meta_is_refused(vector: Vector) -> None:
    expected = BY_NAME[vector["as"]]
    with pytest.raises(AlpyneError) as raised:
        codec.decode_as(data_of(vector), expected, lenient=vector["lenient"])
    assert raised.value.code.name == vector["error"]


@cases("rows")
def test_row_is_refused(vector: Vector) -> None:
    with pytest.raises(AlpyneError) as raised:
        codec.read_rows(data_of(vector), vector["allowed"])
    assert raised.value.code.name == vector["error"]


@cases("compressed")
def test_compressed_payload_is_refused(vector: Vector) -> None:
    with pytest.raises(AlpyneError) as raised:
        Inflater().inflate(memoryview(data_of(vector)))
    assert raised.value.code.name == vector["error"]


@cases("certificates")
def test_certificate_is_refused(vector: Vector) -> None:
    noise_key = bytes.fromhex(vector["noise_key"])
    with pytest.raises(AlpyneError) as raised:
        Certificate.parse(data_of(vector)).verify(vector["now_s"], noise_key=noise_key)
    assert raised.value.code.name == vector["error"]


@cases("tickets")
def test_ticket_is_refused(vector: Vector) -> None:
    audience, holder = (bytes.fromhex(vector[key]) for key in ("audience", "holder"))
    with pytest.raises(AlpyneError) as raised:
        Ticket.parse(data_of(vector)).check(audience=audience, holder=holder, now_s=vector["now_s"])
    assert raised.value.code.name == vector["error"]


@cases("addresses")
def test_address_is_refused(vector: Vector) -> None:
    with pytest.raises(AlpyneError) as raised:
        Address.parse(vector["text"])
    assert raised.value.code.name == vector["error"]


@cases("names")
def test_name_is_refused(vector: Vector) -> None:
    check = {"path": container.check_path, "container name": container.check_container_name}
    with pytest.raises(AlpyneError) as raised:
        check[vector["kind"]](vector["text"])
    assert raised.value.code.name == vector["error"]
