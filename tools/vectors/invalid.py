"""spec/vectors/invalid.json: bytes that must be refused, each with the error that names why."""

from collections.abc import Iterator
from typing import Any

import msgpack
from alpyne_grid.tools.vectors.access import (
    invalid_addresses,
    invalid_certificates,
    invalid_names,
    invalid_tickets,
)
from alpyne_grid.tools.vectors.connections import invalid_connections
from alpyne_grid.tools.vectors.frames import zstd_payload
from alpyne_grid.tools.vectors.records import KEY, PLAIN, cipher_at

from alpyne_proto import limits
from alpyne_proto.errors import ErrorCode
from alpyne_proto.frame import FrameType, pack
from alpyne_proto.messages.compute import JobRow, JobSpec, JobState, OutputRow
from alpyne_proto.messages.control import Error, Ping
from alpyne_proto.messages.data import GetObject
from alpyne_proto.preface import Preface
from alpyne_proto.record import RecordType, RecordWriter

COMMENT = (
    "Bytes that must be refused, and the error code that names why. Whatever the first byte "
    "that cannot be right, a receiver may refuse there or later, but hands nothing of the unit "
    "on. prefaces: `answered` says whether the acceptor sends its own preface. meta: `as` is "
    "the message that is expected, `lenient` whether the state is OPEN. rows: `allowed` are the "
    "codes that the body may hold. records: sent in order under `key`, the last is refused. "
    "connections: `to` is a side that has done the handshake of session.json, been brought to "
    "`state` and has sent `requests`; it gets one record for each of `frames`, and the last "
    "ends the connection with `error`; null: nothing ends it."
)
Case = dict[str, Any]


def invalid_vectors() -> dict[str, Any]:
    """Return the content of invalid.json."""
    return {
        "comment": COMMENT,
        "prefaces": list(_prefaces()),
        "handshake_records": list(_handshake_records()),
        "records": {"key": KEY.hex(), "cases": list(_records())},
        "frames": list(_frames()),
        "meta": list(_meta()),
        "rows": list(_rows()),
        "compressed": list(_compressed()),
        "certificates": list(invalid_certificates()),
        "tickets": list(invalid_tickets()),
        "addresses": list(invalid_addresses()),
        "names": list(invalid_names()),
        "connections": list(invalid_connections()),
    }


def _case(name: str, data: bytes, error: ErrorCode, **more: Any) -> Case:
    return {"name": name, **more, "bytes": data.hex(), "error": error.name}


# ---- preface, records ----


def _prefaces() -> Iterator[Case]:
    good = Preface().encode()
    texts = {
        "another protocol": b"GET / HTTP/1",
        "LF alone": b"ALPYNE\n\n" + good[8:],
        "lower case": good.lower()[:8] + good[8:],
        "version 0": good[:8] + b"\0" + good[9:],
        "version 2": good[:8] + b"\2" + good[9:],
        "suite 2": good[:9] + b"\2" + good[10:],
        "pattern 2": good[:10] + b"\2" + good[11:],
        "a flag": good[:11] + b"\1",
    }
    for name, data in texts.items():
        answers = data.startswith(good[:8])
        yield _case(name, data, ErrorCode.HANDSHAKE_FAILED, answered=answers)


def _handshake_records() -> Iterator[Case]:
    def header(kind: int, size: int) -> bytes:
        return (kind << 24 | size).to_bytes(4, "big")

    over = limits.HANDSHAKE_RECORD_MAX + 1
    yield _case("no bytes", header(RecordType.HANDSHAKE, 0), ErrorCode.RECORD_ERROR)
    yield _case("too long", header(RecordType.HANDSHAKE, over), ErrorCode.RECORD_ERROR)
    yield _case("a sealed record", header(RecordType.SEALED, 48), ErrorCode.RECORD_ERROR)
    yield _case("type 0", header(0, 48), ErrorCode.RECORD_ERROR)


def _records() -> Iterator[Case]:
    plain = PLAIN["one frame"]

    def sealed(counter: int, key: bytes = KEY) -> bytes:
        return bytes(RecordWriter(cipher_at(key, counter)).seal([plain]))

    first, second, third = (sealed(counter) for counter in range(3))
    flipped = first[:-1] + bytes((first[-1] ^ 1,))
    other = sealed(0, bytes(32))
    cases: dict[str, list[bytes]] = {
        "a flipped bit of the tag": [flipped],
        "a flipped bit of the text": [first[:4] + bytes((first[4] ^ 128,)) + first[5:]],
        "replayed": [first, first],
        "left out": [second],
        "exchanged": [first, third],
        "of another key": [other],
        "type 1": [b"\1" + first[1:]],
        "type 3": [b"\3" + first[1:]],
        "a length of the tag alone": [bytes.fromhex("02000010") + bytes(16)],
        "a length over RECORD_MAX": [bytes.fromhex("02010000")],
    }
    for name, parts in cases.items():
        data = [part.hex() for part in parts]
        yield {"name": name, "records": data, "error": ErrorCode.RECORD_ERROR.name}


def _frames() -> Iterator[Case]:
    ping = PLAIN["one frame"]
    cut = pack(FrameType.PING, 0, 0, b"")[:11]
    yield _case("a header cut short", cut, ErrorCode.FRAME_ERROR)
    yield _case("bytes behind the last frame", ping + b"\0", ErrorCode.FRAME_ERROR)
    missing = pack(FrameType.PAD, 0, 0, b"", 5) + bytes(4)
    yield _case("a payload cut short", missing, ErrorCode.FRAME_ERROR)
    yield _case("meta cut short", ping[:-1], ErrorCode.FRAME_ERROR)
    most = limits.META_MAX + 1
    long = pack(FrameType.PING, 0, 0)[:2] + most.to_bytes(2, "big") + bytes(8)
    yield _case("a meta length over META_MAX", long, ErrorCode.FRAME_ERROR)
    huge = pack(FrameType.DATA, 0, 1, b"", (1 << 32) - 1)
    yield _case("a payload of 4 GiB announced", huge, ErrorCode.FRAME_ERROR)


# ---- meta ----


def _meta() -> Iterator[Case]:
    for name, text in _MALFORMED.items():
        yield _case(
            name, bytes.fromhex(text), ErrorCode.CODEC_ERROR, **{"as": "Ping"}, lenient=True
        )
    for name, plain in _ILL_SHAPED.items():
        meta = msgpack.packb(plain)
        yield _case(name, meta, ErrorCode.CODEC_ERROR, **{"as": "Ping"}, lenient=True)
    for name, of, lenient, plain in _requests():
        meta = msgpack.packb(plain)
        yield _case(name, meta, ErrorCode.CODEC_ERROR, **{"as": of}, lenient=lenient)


_MALFORMED = {
    "no bytes": "",
    "cut short": "8102",
    "bytes behind the map": "810201c0",
    "key 2 twice": "8202010202",
    "keys that fall": "8203010201",
    "a key below 0": "82ff010201",
    "a text as a key": "820201a16101",
    "a text as the only key": "81a13201",
    "true as a key": "81c301",
    "a float as a key": "81cb400000000000000001",
    "an array as a key": "81910201",
    "an extension": "8102d40100",
    "a timestamp": "8102d6ff00000000",
    "65 keys announced": "de00410201",
    "2^32-1 keys announced": "dfffffffff0201",
    "a text of 4 GiB announced": "8102dbffffffff",
    "a type that msgpack has not": "8102c1",
    "a text that is no UTF-8": "8102a1ff",
    "an array": "920201",
    "a number": "07",
    "nested 9 deep": "8102" + "91" * 7 + "80",
}
_ILL_SHAPED: dict[str, Any] = {
    "no token": {},
    "a token below 0": {2: -1},
    "a token of 64 bits as a float": {2: 1.0},
    "a token that is true": {2: True},
    "a token that is nil": {2: None},
    "an unknown even key": {2: 1, 4: 1},
    "65 keys": dict.fromkeys(range(2, 67), 1),
}


def _requests() -> Iterator[tuple[str, str, bool, dict[int, Any]]]:
    code = GetObject.SPEC.code
    good: dict[int, Any] = {0: code, 2: bytes(16), 4: "a"}
    known = {**good, 18: bytes(16)}
    yield "an unknown odd key where the state is not OPEN", "GetObject", False, {**known, 19: 1}
    yield "an unknown even key", "GetObject", True, {**known, 20: 1}
    yield "key 1, unknown, where the state is not OPEN", "Error", False, {0: 11, 1: 0, 2: 34}
    yield "an unknown code", "GetObject", True, {**good, 0: 0x7F}
    yield "no code", "GetObject", True, {2: bytes(16), 4: "a"}
    yield "a response's code", "GetObject", True, {0: Error.SPEC.code, 2: 34}
    yield "a control message's code", "GetObject", True, {0: Ping.SPEC.code, 2: 1}
    yield "an id of 15 bytes", "GetObject", True, {**good, 2: bytes(15)}
    yield "an id that is a text", "GetObject", True, {**good, 2: "a" * 16}
    yield "a path of 1,025 bytes", "GetObject", True, {**good, 4: "a" * 1025}
    yield "a path of 513 letters of 2 bytes", "GetObject", True, {**good, 4: "é" * 513}
    yield "a path that is bytes", "GetObject", True, {**good, 4: b"a"}
    yield "a number that is a text", "GetObject", True, {**good, 6: "1"}
    yield "a load that is NaN", "LoadEvent", True, {0: 0x36, 2: 1, 4: 1, 6: 0, 8: float("nan")}
    yield "an infinite load", "LoadEvent", True, {0: 0x36, 2: 1, 4: 1, 6: 0, 8: float("inf")}
    yield "17 members", "ContainerInfo", True, {**_container(), 8: [bytes(32)] * 17}
    yield "an array in place of bytes", "ContainerInfo", True, {**_container(), 2: [0] * 16}
    yield "an error code that does not exist", "Error", True, {0: 11, 2: 9999}
    yield "an outcome that does not exist", "Error", True, {0: 11, 2: 34, 4: 0}
    yield "a number for a truth value", "Error", True, {0: 11, 2: 34, 7: 1}


def _container() -> dict[int, Any]:
    return {0: 0x41, 2: bytes(16), 4: "a", 6: 1, 8: [bytes(32)], 10: 1, 12: bytes(16)}


# ---- rows, compressed payloads ----


def _rows() -> Iterator[Case]:
    row = msgpack.packb({0: OutputRow.SPEC.code, 2: 1, 4: 0})
    allowed = [OutputRow.SPEC.code]

    def packed(meta: bytes, payload: int) -> bytes:
        return len(meta).to_bytes(2, "big") + payload.to_bytes(4, "big") + meta

    bad = ErrorCode.CODEC_ERROR
    good = packed(row, 1) + b"x"
    yield _case("cut in its lengths", good + b"\0", bad, allowed=allowed)
    yield _case("cut in its payload", packed(row, 2) + b"x", bad, allowed=allowed)
    most = OutputRow.SPEC.payload_max
    yield _case("a payload over its bound", packed(row, most + 1), bad, allowed=allowed)
    long = (limits.META_MAX + 1).to_bytes(2, "big") + bytes(4)
    yield _case("meta over META_MAX", long, bad, allowed=allowed)
    other = msgpack.packb({0: 0x23, 2: bytes(16), 4: 1})
    yield _case("a row that may not stand there", packed(other, 0), bad, allowed=allowed)
    request = msgpack.packb({0: GetObject.SPEC.code, 2: bytes(16), 4: "a"})
    yield _case("a request", packed(request, 0), bad, allowed=allowed)
    job = msgpack.packb(
        {0: JobRow.SPEC.code, 2: bytes(16), 4: int(JobState.LOST) + 1, 6: 1, 8: 1, 10: 1}
    )
    yield _case("a state that does not exist", packed(job, 0), bad, allowed=[JobRow.SPEC.code])
    spec = msgpack.packb({0: JobSpec.SPEC.code, 2: bytes(16), 4: 1, 6: 1, 40: [{2: "os", 4: 1}]})
    yield _case("a requirement without value", packed(spec, 0), bad, allowed=[JobSpec.SPEC.code])


def _compressed() -> Iterator[Case]:
    size, most = 2000, limits.INFLATED_MAX
    good = zstd_payload(b"start", size)
    frames = {
        "no size": b"\0\0\7",
        "nothing behind the size": good[:4],
        "no zstd frame": good[:4] + b"plain",
        "a skippable frame": good[:4] + bytes.fromhex("502a4d1804000000") + b"skip",
        "a size over INFLATED_MAX": zstd_payload(b"start", most + 1),
        "less declared than there is": zstd_payload(b"start", size, declared=size - 1),
        "more declared than there is": zstd_payload(b"start", size, declared=size + 1),
        "no content size": good[:4] + b"\x28\xb5\x2f\xfd\0\x58" + good[13:],
        "a frame cut short": good[:-1],
        "a byte behind the frame": zstd_payload(b"start", size, tail=b"\0"),
        "a second frame": zstd_payload(b"start", size, tail=good[4:]),
        "a window over ZSTD_WINDOW_MAX": zstd_payload(b"start", size, window=24),
    }
    for name, data in frames.items():
        yield _case(name, data, ErrorCode.COMPRESSION_ERROR)
