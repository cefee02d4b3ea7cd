"""spec/vectors/records.json: sealed records under a known key, around the changes of the key."""

import hashlib
from collections.abc import Iterator
from typing import Any

from alpyne_proto.codec import encode
from alpyne_proto.frame import FrameType, pack
from alpyne_proto.limits import REKEY_RECORDS
from alpyne_proto.messages.control import Ping
from alpyne_proto.noise import CipherState
from alpyne_proto.noise_suites import parse_protocol_name
from alpyne_proto.preface import NOISE_NAME
from alpyne_proto.record import RecordWriter

COMMENT = (
    "One direction of a connection whose first key is `key`. counter: records sealed before "
    "this one in the direction. key: in force for it, after as many REKEYs as `rekeys`. nonce: "
    "as the AEAD gets it. header: the associated data. record: header, ciphertext, tag."
)

KEY = hashlib.sha256(b"alpyne vectors: key of one direction").digest()
PING = encode(Ping(token=1))
PLAIN = {
    "one frame": pack(FrameType.PING, 0, 0, PING),
    "two frames": pack(FrameType.PING, 0, 0, PING) + pack(FrameType.PAD, 0, 0, b"", 3) + bytes(3),
}


def record_vectors() -> dict[str, Any]:
    """Return the content of records.json."""
    return {"comment": COMMENT, "key": KEY.hex(), "records": list(_records())}


def cipher_at(key: bytes, counter: int) -> CipherState:
    """Return the cipher of a direction that has sealed ``counter`` records since ``key``."""
    cipher = CipherState(parse_protocol_name(NOISE_NAME), key)
    for _ in range(counter // REKEY_RECORDS):
        cipher.rekey()
    cipher.nonce = counter
    return cipher


def _records() -> Iterator[dict[str, Any]]:
    around = (REKEY_RECORDS - 1, REKEY_RECORDS, 2 * REKEY_RECORDS - 1, 2 * REKEY_RECORDS)
    for counter in (0, 1, 2, *around):
        for name, plain in PLAIN.items():
            cipher = cipher_at(KEY, counter)
            key, nonce = cipher.key or b"", cipher.suite.nonce.pack(counter)
            record = bytes(RecordWriter(cipher).seal([plain]))
            yield {
                "name": f"{name}, counter {counter}",
                "counter": counter,
                "rekeys": counter // REKEY_RECORDS,
                "key": key.hex(),
                "nonce": nonce.hex(),
                "header": record[:4].hex(),
                "plain": plain.hex(),
                "record": record.hex(),
            }
