"""spec/vectors/frames.json: fields to bytes and back, for every message."""

import json
from pathlib import Path
from typing import Any

import pytest

import alpyne_proto.messages  # noqa: F401 - fills the registry
from alpyne_proto import codec, fields, frame
from alpyne_proto.compression import Inflater
from alpyne_proto.registry import MESSAGES, STRUCTS, Message, Shape

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "spec/vectors/frames.json").read_text("utf-8")
)
BY_NAME = {spec.name: spec for spec in MESSAGES.values()}
Vector = dict[str, Any]


def value_of(kind: fields.Kind, written: Any) -> Any:
    """Return what a vector's JSON stands for in a field of this kind."""
    if isinstance(kind, fields.Blob):
        return bytes.fromhex(written)
    if isinstance(kind, fields.Choice):
        return kind.enum(written)
    if isinstance(kind, fields.ListOf):
        return tuple(value_of(kind.item, item) for item in written)
    if isinstance(kind, fields.Struct):
        spec = STRUCTS[kind.name]
        return spec.cls(**{f.name: value_of(f.kind, written[f.name]) for f in spec.fields})
    return written


def message_of(vector: Vector) -> Message:
    spec = BY_NAME[vector["message"]]
    kinds = {field.name: field.kind for field in spec.fields}
    return spec.cls(**{name: value_of(kinds[name], v) for name, v in vector["fields"].items()})


def name_of(vector: Vector) -> str:
    return vector.get("message") or str(vector["name"])


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=name_of)
def test_message_gives_its_meta_and_meta_its_message(vector: Vector) -> None:
    message = message_of(vector)
    meta = bytes.fromhex(vector["meta"])
    assert codec.encode(message) == meta
    assert codec.decode_as(meta, type(message), lenient=False) == message


@pytest.mark.parametrize("vector", [v for v in VECTORS["messages"] if "frame" in v], ids=name_of)
def test_frame_holds_the_meta(vector: Vector) -> None:
    (only,) = frame.split(bytes.fromhex(vector["frame"]))
    assert only.meta.hex() == vector["meta"]
    assert frame.pack(*only[:4], len(only.payload)) + bytes(only.payload) == bytes.fromhex(
        vector["frame"]
    )


@pytest.mark.parametrize("vector", [v for v in VECTORS["messages"] if "row" in v], ids=name_of)
def test_row_gives_its_bytes_and_bytes_the_row(vector: Vector) -> None:
    row, payload = message_of(vector), bytes.fromhex(vector["payload"])
    assert codec.encode_row(row, payload).hex() == vector["row"]
    read = codec.read_rows(bytes.fromhex(vector["row"]), [vector["code"]])
    assert read == [(row, payload)]


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=name_of)
def test_frame_gives_its_parts_and_parts_the_frame(vector: Vector) -> None:
    encoded, payload = bytes.fromhex(vector["frame"]), bytes.fromhex(vector["payload"])
    (only,) = frame.split(encoded)
    assert (only.type, only.flags, only.stream_id) == (
        vector["type"],
        vector["flags"],
        vector["stream_id"],
    )
    assert (only.meta.hex(), bytes(only.payload)) == (vector["meta"], payload)
    assert frame.pack(*only[:4], len(payload)) + payload == encoded


@pytest.mark.parametrize("vector", VECTORS["inflated"], ids=name_of)
def test_payload_inflates(vector: Vector) -> None:
    start = bytes.fromhex(vector["starts"])
    rest = vector["size"] - len(start)
    plain = start + bytes.fromhex(vector["then_repeats"]) * rest
    assert Inflater().inflate(memoryview(bytes.fromhex(vector["payload"]))) == plain


def test_every_message_has_a_vector() -> None:
    assert {v["message"] for v in VECTORS["messages"]} == set(BY_NAME)


def test_every_field_of_every_message_stands_in_a_vector() -> None:
    named = {(v["message"], field) for v in VECTORS["messages"] for field in v["fields"]}
    assert named == {(s.name, f.name) for s in MESSAGES.values() for f in s.fields}


def test_control_messages_have_no_code() -> None:
    for vector in VECTORS["messages"]:
        is_control = BY_NAME[vector["message"]].shape is Shape.CONTROL
        assert ("code" in vector) != is_control
