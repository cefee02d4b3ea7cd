"""spec/vectors/records.json: plaintext to record and back, under the key in force."""

import json
from pathlib import Path
from typing import Any

import pytest

from alpyne_proto.limits import REKEY_RECORDS
from alpyne_proto.noise import CipherState
from alpyne_proto.noise_suites import parse_protocol_name
from alpyne_proto.preface import NOISE_NAME
from alpyne_proto.record import RecordReader, RecordWriter

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "spec/vectors/records.json").read_text("utf-8")
)
KEY = bytes.fromhex(VECTORS["key"])
Vector = dict[str, Any]


def cipher_of(vector: Vector) -> CipherState:
    cipher = CipherState(parse_protocol_name(NOISE_NAME), KEY)
    for _ in range(vector["rekeys"]):
        cipher.rekey()
    cipher.nonce = vector["counter"]
    return cipher


@pytest.mark.parametrize("vector", VECTORS["records"], ids=lambda v: str(v["name"]))
def test_writer_and_reader_agree_with_the_vector(vector: Vector) -> None:
    cipher = cipher_of(vector)
    assert cipher.key is not None
    assert cipher.key.hex() == vector["key"]
    assert cipher.suite.nonce.pack(cipher.nonce).hex() == vector["nonce"]
    plain, record = bytes.fromhex(vector["plain"]), bytes.fromhex(vector["record"])
    assert RecordWriter(cipher).seal([plain]) == record
    assert list(RecordReader(cipher_of(vector)).feed(record)) == [plain]


def test_writer_changes_its_key_where_the_vectors_do() -> None:
    before, after = (
        next(v for v in VECTORS["records"] if v["counter"] == counter)
        for counter in (REKEY_RECORDS - 1, REKEY_RECORDS)
    )
    writer = RecordWriter(cipher_of(before))
    for vector in (before, after):
        assert writer.seal([bytes.fromhex(vector["plain"])]).hex() == vector["record"]


def test_reader_changes_its_key_where_the_vectors_do() -> None:
    before, after = (
        next(v for v in VECTORS["records"] if v["counter"] == counter)
        for counter in (2 * REKEY_RECORDS - 1, 2 * REKEY_RECORDS)
    )
    reader = RecordReader(cipher_of(before))
    joined = bytes.fromhex(before["record"]) + bytes.fromhex(after["record"])
    assert [plain.hex() for plain in reader.feed(joined)] == [before["plain"], after["plain"]]


def test_vectors_reach_the_second_rekey() -> None:
    assert {vector["rekeys"] for vector in VECTORS["records"]} == {0, 1, 2}
