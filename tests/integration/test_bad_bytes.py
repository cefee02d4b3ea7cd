"""Bad bytes at real daemons: before, in and after the handshake. spec/PROTOCOL.md, "Errors"."""

import asyncio
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import zstandard
from alpyne_grid.wire import DialFailed
from rude_peer import (  # type: ignore[import-not-found]
    HALF_OPEN_SOURCES,
    MARK,
    RudePeer,
    Site,
    frame,
    request,
)

from alpyne_proto import limits
from alpyne_proto.address import Address
from alpyne_proto.codec import decode_as, encode
from alpyne_proto.errors import ErrorCode
from alpyne_proto.frame import Flags, FrameType, pack
from alpyne_proto.messages import access, compute, data, program
from alpyne_proto.messages.control import AccountRole, Close, Done, MaxData, Ping, Settings
from alpyne_proto.messages.hello import DiallerHello
from alpyne_proto.preface import Preface
from alpyne_proto.registry import State

pytestmark = pytest.mark.integration

T = FrameType
E = ErrorCode
BOX = bytes(16)
JOB = b"j" * 16
PEAK = 24 << 20  # a daemon's memory may grow so much for what one connection may have in flight


@pytest.fixture(autouse=True)
def unharmed(site: Site) -> Iterator[None]:
    with site.unharmed():
        yield


# --- before the handshake -------------------------------------------------------------------------

GARBAGE = {
    "http": b"GET /" + MARK + b" HTTP/1.1\r\nHost: node\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(400),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n" + MARK,
    "zeros": bytes(1 << 20),
    "noise": random.Random(1).randbytes(100_000),
    "newlines": b"\r\n" * 1000,
    "almost": b"ALPYNE\r\r\x01\x01\x01\x00",
    "lower case": b"alpyne\r\n\x01\x01\x01\x00",
}


@pytest.mark.parametrize("kind", ["compute", "data"])
@pytest.mark.parametrize("name", GARBAGE)
def test_daemon_hangs_up_without_a_word_on_garbage(site: Site, kind: str, name: str) -> None:
    with RudePeer(getattr(site, kind)) as peer:
        peer.send(GARBAGE[name])
        assert peer.rest() == b""


@pytest.mark.parametrize("at", [8, 9, 10, 11])
def test_daemon_answers_another_preface_with_its_own(site: Site, at: int) -> None:
    preface = bytearray(Preface().encode())
    preface[at] ^= 0x55
    with RudePeer(site.data) as peer:
        peer.send(bytes(preface) + MARK)
        assert peer.rest() == Preface().encode()


def _record(kind: int, size: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", kind << 24 | size) + body


BAD_RECORDS = {
    "longest length": _record(1, 0xFFFFFF),
    "one over the bound": _record(1, limits.HANDSHAKE_RECORD_MAX + 1),
    "no length": _record(1, 0),
    "sealed": _record(2, 48, bytes(48)),
    "unknown type": _record(0x77, 48, bytes(48)),
    "short message": _record(1, 31, MARK[:1] * 31),
    "zero key": _record(1, 48, bytes(48)),
    "payload": _record(1, 64, os.urandom(64)),
    "full of nothing": _record(1, 4096, bytes(4096)),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_daemon_hangs_up_without_a_word_on_a_bad_message_1(site: Site, name: str) -> None:
    with RudePeer(site.data) as peer, site.bounded(site.data, 1 << 20):
        began = time.monotonic()
        peer.send(Preface().encode() + BAD_RECORDS[name])
        assert peer.rest() == b""
        assert time.monotonic() - began < limits.PREFACE_TIMEOUT_S  # it did not wait for the rest


@pytest.mark.parametrize("at", [-1, -17, -48, -33])
def test_daemon_hangs_up_without_a_word_on_a_flipped_message_1(site: Site, at: int) -> None:
    with RudePeer(site.compute) as peer:
        sent = bytearray(peer.begin())
        sent[at] ^= 1
        peer.send(bytes(sent))
        assert peer.rest() == b""


HELLO = DiallerHello(1, bytes(16), b"")
BAD_HELLOS: dict[str, bytes] = {
    "nothing": b"",
    "no map": msgpack.packb([1, 2, 3]),
    "marked": MARK * 20,
    "another message": encode(data.GetContainer(BOX)),
    "no role": encode(HELLO).replace(b"\x02\x01\x04", b"\x02\x00\x04", 1),
    "unknown role": encode(HELLO).replace(b"\x02\x01\x04", b"\x02\x09\x04", 1),
    "unknown key": encode(HELLO)[:1].replace(b"\x84", b"\x85") + encode(HELLO)[1:] + b"\x63\x01",
    "trailing byte": encode(HELLO) + b"\x00",
    "long certificate": msgpack.packb({0: 2, 2: 1, 4: bytes(16), 6: bytes(3000)}),
    "map of 2^32": b"\xdf\xff\xff\xff\xff" + encode(HELLO),
    "string of 2^32": b"\x81\x00\xdb\xff\xff\xff\xff",
    "deep": b"\x81\x00" + b"\x91" * 2000 + b"\x00",
}


@pytest.mark.parametrize("name", BAD_HELLOS)
def test_daemon_hangs_up_without_a_word_on_a_bad_hello(site: Site, name: str) -> None:
    with RudePeer(site.data) as peer:
        peer.send(peer.begin())
        peer.send(peer.message_3(BAD_HELLOS[name]))
        assert peer.rest() == b""


@pytest.mark.parametrize("at", [4, 40, 60, -1])
def test_daemon_hangs_up_without_a_word_on_a_flipped_message_3(site: Site, at: int) -> None:
    with RudePeer(site.compute) as peer:
        peer.send(peer.begin())
        last = bytearray(peer.message_3(encode(HELLO)))
        last[at] ^= 0x80
        peer.send(bytes(last))
        assert peer.rest() == b""


@pytest.mark.parametrize("kind", ["flipped", "garbage", "cut"])
def test_daemon_refuses_a_bad_certificate(site: Site, kind: str) -> None:
    good = site.owner.certificate().encode()
    bad = {"flipped": good[:-1] + bytes([good[-1] ^ 1]), "garbage": MARK * 10, "cut": good[:-1]}
    with RudePeer(site.data).greet(site.owner, certificate=bad[kind]) as peer:
        assert peer.closed_with() is E.CERTIFICATE_INVALID


def test_half_open_connections_run_out_of_time_and_keep_no_account_out(site: Site) -> None:
    sources = [f"127.0.1.{n + 1}" for n in range(HALF_OPEN_SOURCES - 4)]
    sent = [b"", b"ALP", Preface().encode(), Preface().encode() + b"\x01\x00\x00\x30half"]
    with site.bounded(site.data, PEAK):
        peers = []
        for source in sources:
            for n in range(limits.HALF_OPEN_PER_SOURCE):
                peers.append(RudePeer(site.data, source=source))
                peers[-1].send(sent[n % len(sent)])
        asyncio.run(site.serves())
        began = time.monotonic()
        assert all(peer.rest() == b"" for peer in peers)
        assert time.monotonic() - began < limits.HANDSHAKE_TIMEOUT_S + 1.0
        for peer in peers:
            peer.socket.close()


def test_thousands_of_connections_are_refused_in_words_or_dropped(site: Site) -> None:
    address = Address.parse(site.data.address)
    with site.bounded(site.data, PEAK):
        held = []
        for n in range(3000):
            try:
                made = socket.create_connection(
                    address.routes[0], 2.0, source_address=(f"127.0.2.{n % 250 + 1}", 0)
                )
            except OSError:
                continue
            made.sendall(b"ALPYNE")
            held.append(made)
            if len(held) > 300:
                held.pop(0).close()
        for each in held:
            each.close()
        deadline = time.monotonic() + limits.PREFACE_TIMEOUT_S
        while True:
            try:
                asyncio.run(site.serves())
                break
            except DialFailed:  # it has not seen yet that those are gone
                assert time.monotonic() < deadline


# --- records --------------------------------------------------------------------------------------


def _flip(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


BAD_SEALED: dict[str, Callable[[bytes, bytes], bytes]] = {
    "flipped tag": lambda one, two: _flip(one),
    "flipped body": lambda one, two: one[:8] + bytes([one[8] ^ 1]) + one[9:],
    "flipped length": lambda one, two: one[:3] + bytes([one[3] ^ 1]) + one[4:] + bytes(99),
    "another type": lambda one, two: b"\x01" + one[1:],
    "replayed": lambda one, two: one + one,
    "out of order": lambda one, two: two + one,
    "longest length": lambda one, two: b"\x02\xff\xff\xff" + MARK,
    "one over the bound": lambda one, two: b"\x02\x01\x00\x00" + MARK,
    "shorter than a tag": lambda one, two: b"\x02\x00\x00\x0f" + bytes(15),
    "clear text": lambda one, two: frame(T.PING, message=Ping(1)) + MARK * 40,
}


@pytest.mark.parametrize("name", BAD_SEALED)
def test_daemon_hangs_up_without_a_word_on_a_bad_record(site: Site, name: str) -> None:
    with RudePeer(site.compute).greet(site.owner) as peer:
        peer.next(T.SETTINGS)
        ping = frame(T.PING, message=Ping(1))
        one, two = bytes(peer.writer.seal([ping])), bytes(peer.writer.seal([ping]))
        peer.send(BAD_SEALED[name](one, two))
        assert peer.closed_with() is None


@pytest.mark.parametrize("cut", [1, 4, 20, -1])
def test_daemon_forgets_a_peer_that_is_lost_inside_a_record(site: Site, cut: int) -> None:
    with RudePeer(site.data).greet(site.owner) as peer:
        record = bytes(peer.writer.seal([frame(T.PING, message=Ping(1))]))
        peer.send(record[:cut])
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.closed_with() is None


# --- frames ---------------------------------------------------------------------------------------

GET = data.GetContainer(BOX)
STATUS = access.GetStatus()
BAD_FRAMES: dict[str, tuple[ErrorCode, list[bytes]]] = {
    "half a header": (E.FRAME_ERROR, [b"\x04\x00\x00"]),
    "payload beyond the record": (E.FRAME_ERROR, [pack(T.REQUEST, 1, 1, encode(GET), 1 << 31)]),
    "payload of 4 GiB": (E.FRAME_ERROR, [pack(T.DATA, 0, 1, b"", 0xFFFFFFFF)]),
    "long meta": (E.FRAME_ERROR, [frame(T.REQUEST, 1, flags=1, meta=bytes(limits.META_MAX + 1))]),
    "bytes behind": (E.FRAME_ERROR, [frame(T.PING, message=Ping(1)) + b"xx"]),
    "unknown even type": (E.FRAME_ERROR, [frame(0x40, 0, MARK)]),
    "reserved RESUME": (E.FRAME_ERROR, [frame(T.RESUME)]),
    "reserved PRIORITY": (E.FRAME_ERROR, [frame(T.PRIORITY, 1)]),
    "SETTINGS of a dialler": (E.FRAME_ERROR, [frame(T.SETTINGS, message=Settings(State.OPEN))]),
    "unknown flag": (E.FRAME_ERROR, [frame(T.PING, flags=0x80, message=Ping(1))]),
    "flag of others": (E.FRAME_ERROR, [frame(T.PING, flags=Flags.END, message=Ping(1))]),
    "zstd on PING": (E.FRAME_ERROR, [frame(T.PING, flags=Flags.ZSTD, message=Ping(1))]),
    "PING with payload": (E.FRAME_ERROR, [frame(T.PING, 0, MARK, message=Ping(1))]),
    "PING with id": (E.FRAME_ERROR, [frame(T.PING, 7, message=Ping(1))]),
    "PAD with meta": (E.FRAME_ERROR, [frame(T.PAD, 0, meta=b"\x80")]),
    "answer to no PING": (E.FRAME_ERROR, [frame(T.PING, flags=Flags.ACK, message=Ping(9))]),
    "DATA of no stream": (E.FRAME_ERROR, [frame(T.DATA, 1, bytes(8) + MARK)]),
    "DATA of a stream to come": (E.FRAME_ERROR, [request(STATUS), frame(T.DATA, 99, bytes(9))]),
    "DATA without offset": (E.FRAME_ERROR, [frame(T.DATA, 1, b"x")]),
    "even stream": (E.FRAME_ERROR, [request(STATUS, 2)]),
    "stream 0": (E.FRAME_ERROR, [request(STATUS, 0)]),
    "stream left out": (E.FRAME_ERROR, [request(STATUS, 3)]),
    "stream again": (E.FRAME_ERROR, [request(STATUS, 1), request(STATUS, 1)]),
    "no END": (E.FRAME_ERROR, [request(STATUS, 1, end=False)]),
    "body where none is": (E.FRAME_ERROR, [request(STATUS, 1, MARK)]),
    "answer to nothing": (E.FRAME_ERROR, [frame(T.RESPONSE, 2, flags=1, message=Done())]),
    "REQ_ACK of nothing": (E.FRAME_ERROR, [frame(T.REQ_ACK, 2)]),
    "INTERRUPT_ACK of nothing": (E.FRAME_ERROR, [frame(T.INTERRUPT_ACK, 1)]),
    "RESET of nothing": (E.FRAME_ERROR, [frame(T.RESET, 7, meta=b"\x81\x02\x20")]),
    "credit of nothing": (E.FRAME_ERROR, [frame(T.MAX_STREAM_DATA, 1, message=MaxData(1))]),
    "wrong offset": (
        E.FRAME_ERROR,
        [
            request(compute.PutBlob(bytes(32), 100), 1, end=False),
            frame(T.DATA, 1, b"\xff" * 8 + b"x"),
        ],
    ),
    "DATA behind END": (
        E.FRAME_ERROR,
        [request(STATUS), frame(T.DATA, 1, bytes(8) + b"x", flags=1)] * 1,
    ),
    "interrupt of 1025 bytes": (
        E.FRAME_ERROR,
        [frame(T.INTERRUPT, 1, meta=encode(compute.CancelJobs((JOB,) * 32)) + bytes(600))],
    ),
    "PING without token": (E.CODEC_ERROR, [frame(T.PING, meta=b"\x80")]),
    "CLOSE with an unknown code": (E.CODEC_ERROR, [frame(T.CLOSE, meta=b"\x81\x02\xcd\xff\xff")]),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_daemon_closes_with_the_error_of_a_bad_frame(site: Site, name: str) -> None:
    code, frames = BAD_FRAMES[name]
    with RudePeer(site.compute).greet(site.owner) as peer, site.bounded(site.compute, PEAK):
        peer.say(*frames)
        assert peer.closed_with() is code


def _map(pairs: bytes, count: int) -> bytes:
    return bytes([0x80 | count]) + pairs


HEAD = b"\x00\x29"  # code: GetResult
ID = b"\x02\xc4\x10" + JOB
BAD_META: dict[str, tuple[ErrorCode, bytes]] = {
    "empty": (E.CODEC_ERROR, b""),
    "no msgpack": (E.CODEC_ERROR, b"\xc1" + MARK),
    "array": (E.CODEC_ERROR, msgpack.packb([0x29, JOB])),
    "text keys": (E.CODEC_ERROR, msgpack.packb({"0": 0x29})),
    "key twice": (E.CODEC_ERROR, _map(HEAD + ID + ID, 3)),
    "keys falling": (E.CODEC_ERROR, _map(ID + HEAD, 2)),
    "negative key": (E.CODEC_ERROR, _map(b"\xff\x01" + HEAD, 2)),
    "extension": (E.CODEC_ERROR, _map(HEAD + b"\x02\xd4\x01\x00", 2)),
    "timestamp": (E.CODEC_ERROR, _map(HEAD + b"\x02\xd6\xff\x00\x00\x00\x00", 2)),
    "bytes behind": (E.CODEC_ERROR, _map(HEAD + ID, 2) + b"\x00"),
    "map of 2^32": (E.CODEC_ERROR, b"\xdf\xff\xff\xff\xff" + HEAD + ID),
    "list of 2^32": (E.CODEC_ERROR, _map(HEAD + b"\x02\xdd\xff\xff\xff\xff", 2)),
    "bytes of 2^32": (E.CODEC_ERROR, _map(HEAD + b"\x02\xc6\xff\xff\xff\xff", 2)),
    "65 keys": (E.CODEC_ERROR, msgpack.packb(dict.fromkeys(range(65), 0))),
    "9 deep": (E.CODEC_ERROR, _map(HEAD + b"\x02" + b"\x91" * 9 + b"\x00", 2)),
    "5000 deep": (E.CODEC_ERROR, _map(HEAD + b"\x02" + b"\x91" * 5000 + b"\x00", 2)),
    "code is text": (E.CODEC_ERROR, msgpack.packb({0: "GetResult"})),
    "code is a float": (E.CODEC_ERROR, msgpack.packb({0: float(0x29), 2: JOB})),
    "code is true": (E.CODEC_ERROR, msgpack.packb({0: True, 2: JOB})),
    "no code": (E.CODEC_ERROR, _map(ID, 1)),
    "unknown even code": (E.CODEC_ERROR, msgpack.packb({0: 0x7F0})),
    "unknown odd code": (E.CODEC_ERROR, msgpack.packb({0: 0x7F1})),
    "an answer": (E.CODEC_ERROR, msgpack.packb({0: 0x0A})),
    "a row": (E.CODEC_ERROR, encode(compute.SettleRow(JOB, 1, 1))),
    "a program's row": (E.CODEC_ERROR, encode(program.Function())),
    "an interrupt": (E.CODEC_ERROR, encode(compute.CancelJobs((JOB,)))),
    "a hello": (E.CODEC_ERROR, encode(HELLO)),
    "a node's message": (E.PROTOCOL_ERROR, encode(compute.PushEvents(1))),
    "a worker's message": (E.CODEC_ERROR, msgpack.packb({0: 0x65})),
    "field missing": (E.CODEC_ERROR, _map(HEAD, 1)),
    "id too short": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: JOB[:15]})),
    "id too long": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: JOB + b"x"})),
    "id is text": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: "j" * 16})),
    "id is a number": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: 7})),
    "id is null": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: None})),
    "number is negative": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: JOB, 4: -1})),
    "number is a float": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: JOB, 4: 1.0})),
    "number is a flag": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: JOB, 4: True})),
    "unknown even key": (E.CODEC_ERROR, msgpack.packb({0: 0x29, 2: JOB, 98: 1})),
    "count over 16 bits": (E.CODEC_ERROR, msgpack.packb({0: 0x20, 2: 1 << 16})),
    "unknown bits": (E.CODEC_ERROR, msgpack.packb({0: 0x32, 2: 0x80})),
    "broken UTF-8": (E.CODEC_ERROR, _map(b"\x00\x2d\x06\xa3\xed\xa0\x80", 2)),
    "long tag": (E.CODEC_ERROR, msgpack.packb({0: 0x2D, 6: "t" * 65})),
    "unknown enumeration": (E.CODEC_ERROR, msgpack.packb({0: 0x45, 2: JOB, 4: "p", 12: 77})),
}


@pytest.mark.parametrize("name", BAD_META)
def test_daemon_closes_with_the_error_of_a_bad_meta(site: Site, name: str) -> None:
    code, meta = BAD_META[name]
    with RudePeer(site.compute).greet(site.owner) as peer, site.bounded(site.compute, PEAK):
        peer.say(frame(T.REQUEST, 1, flags=1, meta=meta))
        assert peer.closed_with() is code


SKIPPED = {
    "unknown odd frame": frame(0x41, 5, MARK, flags=1, meta=b"\x80"),
    "unknown odd key": frame(T.PING, meta=b"\x82\x02\x01\x63\x01"),
    "padding": frame(T.PAD, 0, bytes(40_000)),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_daemon_skips_what_is_unknown_and_odd(site: Site, name: str) -> None:
    with RudePeer(site.data).greet(site.owner) as peer:
        peer.say(SKIPPED[name], request(STATUS))
        peer.next(T.RESPONSE, 1)


FOR_OPEN_ONLY = [
    compute.SubmitJobs(1), compute.ListJobs(), compute.GetResult(JOB), compute.Subscribe(3),
    data.GetObject(BOX, "p"), data.ListContainers(), access.GetStatus(), access.ListAccounts(),
]  # fmt: skip


@pytest.mark.parametrize("message", FOR_OPEN_ONLY, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("kind", ["compute", "data"])
def test_daemon_closes_on_what_a_stranger_may_not_say(
    site: Site, person: Any, kind: str, message: Any
) -> None:
    with RudePeer(getattr(site, kind)).greet(person()) as peer:
        peer.say(request(message))
        assert peer.closed_with() is E.PROTOCOL_ERROR


def test_daemon_closes_when_a_stranger_interrupts(site: Site, person: Any) -> None:
    with RudePeer(site.compute).greet(person()) as peer:
        peer.say(frame(T.INTERRUPT, 1, message=compute.CancelJobs((JOB,))))
        assert peer.closed_with() is E.FRAME_ERROR


def test_daemon_takes_any_padding_without_keeping_it(site: Site) -> None:
    with RudePeer(site.data).greet(site.owner) as peer, site.bounded(site.data, PEAK):
        for _ in range(200):
            peer.say(frame(T.PAD, 0, bytes(60_000)))
        peer.say(request(STATUS))
        peer.next(T.RESPONSE, 1)


# --- credit, rate, bombs --------------------------------------------------------------------------


def _pieces(stream_id: int, size: int, at: int = 0) -> Iterator[bytes]:
    while at < size:
        piece = min(limits.BULK_DATA_MAX - 8, size - at)
        yield frame(T.DATA, stream_id, at.to_bytes(8, "big") + bytes(piece))
        at += piece


def test_daemon_closes_on_more_body_than_credit_was_given_for(site: Site) -> None:
    refused = data.PutObject(site.box, "../" + MARK.decode(), 1, bytes(16), 1 << 30)
    with RudePeer(site.data).greet(site.owner) as peer, site.bounded(site.data, PEAK):
        peer.say(request(refused, 1, end=False))
        peer.next(T.RESPONSE, 1)
        for piece in _pieces(1, 2 * limits.STREAM_WINDOW):
            peer.say(piece)
        assert peer.closed_with() is E.FLOW_CONTROL_ERROR


def test_daemon_closes_on_more_streams_than_credit_was_given_for(site: Site) -> None:
    message = data.PutObject(site.box, "slow", 1, bytes(16), 1 << 30)
    with RudePeer(site.data).greet(site.owner) as peer, site.bounded(site.data, PEAK):
        for n in range(limits.STREAMS_MAX + 1):
            peer.say(request(message, 2 * n + 1, end=False))
        assert peer.closed_with() is E.FLOW_CONTROL_ERROR


def test_daemon_closes_on_interrupts_over_their_rate(site: Site) -> None:
    with RudePeer(site.compute).greet(site.owner) as peer:
        message = compute.CancelJobs((JOB,))
        for n in range(1, 20 * limits.INTERRUPT_BURST):
            peer.say(frame(T.INTERRUPT, n, message=message))
        assert peer.closed_with() is E.TOO_BUSY


def test_daemon_closes_on_pings_whose_answers_nobody_reads(site: Site) -> None:
    with RudePeer(site.compute).greet(site.owner) as peer, site.bounded(site.compute, PEAK):
        peer.next(T.SETTINGS)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.settimeout(5.0)
        pings = b"".join(frame(T.PING, message=Ping(n)) for n in range(4000))
        gone = threading.Event()

        def flood() -> None:
            try:
                for _ in range(400):
                    peer.socket.sendall(bytes(peer.writer.seal([pings[:60_000]])))
            except OSError:
                gone.set()

        thread = threading.Thread(target=flood)
        thread.start()
        thread.join(20.0)
        assert gone.is_set()


HUGE = 1 << 28
SMALL = zstandard.ZstdCompressor().compress(bytes(2000))


def _unsaid(size: int) -> bytes:
    """Return a zstd frame that does not say how much comes out of it."""
    writer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return writer.compress(bytes(size)) + writer.flush()


BOMBS = {
    "256 MiB, as it says": zstandard.ZstdCompressor().compress(bytes(HUGE)),
    "256 MiB, not said": _unsaid(HUGE),
    "just over the cap": zstandard.ZstdCompressor().compress(bytes(limits.INFLATED_MAX + 1)),
    "no zstd": MARK * 100,
    "cut": SMALL[:-3],
    "bytes behind": SMALL + b"x",
    "two frames": SMALL + SMALL,
    "skippable": b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + SMALL,
    "says 2^60 bytes": b"\x28\xb5\x2f\xfd\xe0" + (1 << 60).to_bytes(8, "little") + bytes(20),
    "window of 2 GiB": b"\x28\xb5\x2f\xfd\x00\xa8" + SMALL[6:],
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("as_data", [False, True])
def test_daemon_closes_on_a_payload_that_does_not_inflate_as_declared(
    site: Site, name: str, as_data: bool
) -> None:
    bomb = BOMBS[name]
    message = compute.PutBlob(bytes(32), 1 << 20)
    with RudePeer(site.compute).greet(site.owner) as peer, site.bounded(site.compute, PEAK):
        if as_data:
            peer.say(request(message, 1, end=False))
            peer.say(frame(T.DATA, 1, bytes(8) + bomb, flags=Flags.ZSTD))
        else:
            peer.say(frame(T.REQUEST, 1, bomb, flags=Flags.ZSTD, message=message))
        assert peer.closed_with() is E.COMPRESSION_ERROR


def test_daemon_takes_the_close_of_a_rude_peer(site: Site) -> None:
    with RudePeer(site.compute).greet(site.owner) as peer:
        peer.next(T.SETTINGS)
        peer.say(frame(T.CLOSE, message=Close(E.INTERNAL, MARK.decode())))
        peer.say(request(STATUS))
        assert peer.closed_with() is None


def test_role_in_settings_is_the_owners(site: Site) -> None:
    with RudePeer(site.data).greet(site.owner) as peer:
        settings = decode_as(peer.next(T.SETTINGS).meta, Settings, lenient=True)
        assert settings == Settings(State.OPEN, AccountRole.ADMIN)
