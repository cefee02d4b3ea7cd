"""Records: round trips in any split, tampering, rekeying, and the bound on memory."""

import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpyne_proto.errors import LocalProtocolError, RecordError
from alpyne_proto.limits import HANDSHAKE_RECORD_MAX, RECORD_MAX, RECORD_PLAIN_MAX, REKEY_RECORDS
from alpyne_proto.noise import CipherState
from alpyne_proto.noise_suites import parse_protocol_name
from alpyne_proto.record import RecordReader, RecordWriter, encode_handshake, take_handshake

AESGCM = parse_protocol_name(b"Noise_XK_25519_AESGCM_SHA256")
CHACHA = parse_protocol_name(b"Noise_XK_25519_ChaChaPoly_SHA256")
KEY = bytes(range(32))
SEALED = 2


def cipher(nonce: int = 0, key: bytes = KEY) -> CipherState:
    state = CipherState(AESGCM, key)
    state.nonce = nonce
    return state


def seal_all(plaintexts: list[bytes]) -> list[bytes]:
    writer = RecordWriter(cipher())
    return [bytes(writer.seal((plaintext,))) for plaintext in plaintexts]


def test_record_has_clear_header_and_noise_ciphertext_when_sealed() -> None:
    record = RecordWriter(cipher()).seal((b"some", b"", memoryview(b" frames")))
    header = bytes((SEALED, 0, 0, 11 + 16))
    assert record == header + cipher().encrypt_with_ad(header, b"some frames")


def test_writer_and_reader_count_on_from_the_ciphers_nonce() -> None:
    record = RecordWriter(cipher(nonce=7)).seal((b"x",))
    header = bytes(record[:4])
    assert record[4:] == cipher(nonce=7).encrypt_with_ad(header, b"x")
    assert list(RecordReader(cipher(nonce=7)).feed(record)) == [b"x"]


def test_records_work_with_the_other_noise_cipher() -> None:
    record = RecordWriter(CipherState(CHACHA, KEY)).seal((b"x",))
    assert list(RecordReader(CipherState(CHACHA, KEY)).feed(record)) == [b"x"]


@given(
    plaintexts=st.lists(st.binary(min_size=1, max_size=60), max_size=8),
    cuts=st.lists(st.integers(0, 700), max_size=30),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_reader_gives_same_plaintexts_for_any_split(
    plaintexts: list[bytes], cuts: list[int], kind: Callable[[bytes], bytes]
) -> None:
    stream = b"".join(seal_all(plaintexts))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = RecordReader(cipher())
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert [text for piece in pieces for text in reader.feed(kind(piece))] == plaintexts
    assert reader.pending_bytes == 0


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_reader_gives_same_plaintexts_when_fed_few_bytes_at_a_time(step: int) -> None:
    plaintexts = [b"a", b"bc" * 20, bytes(300)]
    stream = b"".join(seal_all(plaintexts))
    reader = RecordReader(cipher())
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    assert [text for piece in pieces for text in reader.feed(piece)] == plaintexts


def test_reader_may_reuse_the_callers_buffer_after_feed() -> None:
    record = seal_all([b"text"])[0]
    buffer = bytearray(record[:9])
    reader = RecordReader(cipher())
    assert list(reader.feed(buffer)) == []
    buffer[:] = bytes(9)
    assert list(reader.feed(record[9:])) == [b"text"]


def test_reader_takes_record_of_the_maximum_size() -> None:
    plaintext = bytes(RECORD_PLAIN_MAX)
    record = seal_all([plaintext])[0]
    assert len(record) == 4 + RECORD_MAX
    assert list(RecordReader(cipher()).feed(record)) == [plaintext]


@pytest.mark.parametrize("parts", [(), (b"",), (b"", b""), (bytes(RECORD_PLAIN_MAX), b"x")])
def test_writer_refuses_no_bytes_and_too_many(parts: tuple[bytes, ...]) -> None:
    writer = RecordWriter(cipher())
    with pytest.raises(LocalProtocolError, match="65519"):
        writer.seal(parts)
    assert list(RecordReader(cipher()).feed(writer.seal((b"next",)))) == [b"next"]


@pytest.mark.parametrize(
    "header",
    [
        bytes((0, 0, 0, 17)),
        bytes((1, 0, 0, 17)),
        bytes((3, 0, 0, 17)),
        bytes((255, 255, 255, 255)),
        bytes((SEALED, 0, 0, 0)),
        bytes((SEALED, 0, 0, 16)),
        bytes((SEALED, 1, 0, 0)),
        bytes((SEALED, 255, 255, 255)),
        b"ALPY",
    ],
    ids=bytes.hex,
)
@pytest.mark.parametrize("split", [0, 2])
def test_reader_refuses_header_before_the_body_comes(header: bytes, split: int) -> None:
    reader = RecordReader(cipher())
    assert list(reader.feed(header[:split])) == []
    with pytest.raises(RecordError, match="expected type 2 and 17 to 65535 bytes"):
        list(reader.feed(header[split:]))


def test_reader_holds_only_bytes_that_came_when_a_length_is_announced() -> None:
    reader = RecordReader(cipher(), record_max=1 << 20)
    tracemalloc.start()
    assert list(reader.feed(bytes((SEALED, 15, 0, 0)) + b"x")) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4096
    assert reader.pending_bytes == 5


Tamper = Callable[[list[bytes]], list[bytes]]
TAMPERINGS: dict[str, Tamper] = {
    "replayed": lambda r: [r[0], r[0], r[1], r[2]],
    "reordered": lambda r: [r[1], r[0], r[2]],
    "dropped": lambda r: [r[0], r[2]],
    "replayed later": lambda r: [r[0], r[1], r[0]],
    "cut and closed up": lambda r: [r[0][:-1], r[1], r[2]],
    "lengthened": lambda r: [r[0][:3] + bytes((r[0][3] + 1,)) + r[0][4:] + b"x", r[1]],
    "shortened": lambda r: [r[0][:3] + bytes((r[0][3] - 1,)) + r[0][4:-1], r[1]],
    "bodies exchanged": lambda r: [r[0][:4] + r[1][4:], r[1][:4] + r[0][4:]],
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_reader_fails_and_stays_dead_when_records_are(tamper: Tamper) -> None:
    texts = [b"one", b"two", b"six"]
    reader = RecordReader(cipher())
    delivered = []
    with pytest.raises(RecordError):
        for text in reader.feed(b"".join(tamper(seal_all(texts)))):
            delivered.append(text)
    assert delivered == texts[: len(delivered)]
    with pytest.raises(RecordError):
        list(reader.feed(seal_all(texts)[len(delivered)]))


def test_reader_fails_when_any_bit_of_a_record_is_flipped() -> None:
    record = seal_all([b"text"])[0]
    for bit in range(8 * len(record)):
        changed = bytearray(record)
        changed[bit // 8] ^= 1 << bit % 8
        reader = RecordReader(cipher())
        with pytest.raises(RecordError):  # after it, what a longer length waits for
            list(reader.feed(bytes(changed) + bytes(RECORD_MAX)))


def test_reader_fails_when_a_record_is_reflected() -> None:
    here, there = KEY, bytes(32)  # one key per direction
    sent = RecordWriter(cipher(key=here)).seal((b"text",))
    with pytest.raises(RecordError):
        list(RecordReader(cipher(key=there)).feed(sent))


def test_reader_tells_a_truncated_stream_from_a_complete_one() -> None:
    record = seal_all([b"text"])[0]
    for end in range(1, len(record)):
        reader = RecordReader(cipher())
        assert list(reader.feed(record[:end])) == []
        assert reader.pending_bytes == end


def test_reader_is_dead_when_feed_was_not_read_to_its_end() -> None:
    reader = RecordReader(cipher())
    next(iter(reader.feed(b"".join(seal_all([b"one", b"two"])))))
    with pytest.raises(RecordError):
        list(reader.feed(b""))


@given(data=st.binary(max_size=200), prefix=st.sampled_from([b"", bytes((SEALED, 0, 0, 17))]))
def test_reader_raises_only_record_error_for_any_bytes(data: bytes, prefix: bytes) -> None:
    reader = RecordReader(cipher())
    try:
        assert list(reader.feed(prefix + data)) == []
    except RecordError:
        return
    assert reader.pending_bytes == len(prefix + data)


def test_both_sides_rekey_after_every_65536_records() -> None:
    assert REKEY_RECORDS == 65_536
    writer, reader = RecordWriter(cipher()), RecordReader(cipher())
    second, third = cipher(), cipher()
    second.rekey()
    third.rekey()
    third.rekey()
    keys = {65_535: cipher(), 65_536: second, 65_537: second, 131_071: second, 131_072: third}
    for number in range(131_073):
        record = writer.seal((b"x",))
        if state := keys.get(number):
            state.nonce = number
            assert record[4:] == state.encrypt_with_ad(bytes(record[:4]), b"x")
        assert list(reader.feed(record)) == [b"x"]


@pytest.mark.parametrize("number", [65_535, 65_536])
def test_reader_fails_when_record_beside_the_rekey_has_the_other_key(number: int) -> None:
    writer, reader = RecordWriter(cipher()), RecordReader(cipher())
    stream = b"".join(writer.seal((b"x",)) for _ in range(number))
    assert sum(len(text) for text in reader.feed(stream)) == number
    other = cipher()
    if number < REKEY_RECORDS:
        other.rekey()
    other.nonce = number
    header = bytes((SEALED, 0, 0, 17))
    with pytest.raises(RecordError):
        list(reader.feed(header + other.encrypt_with_ad(header, b"x")))


def test_record_layer_refuses_cipher_without_key() -> None:
    for side in (RecordWriter, RecordReader):
        with pytest.raises(LocalProtocolError):
            side(CipherState(AESGCM))


@pytest.mark.parametrize("size", [1, HANDSHAKE_RECORD_MAX])
def test_handshake_record_is_taken_when_complete(size: int) -> None:
    buffer = bytearray()
    for byte in encode_handshake(bytes(size)):
        assert take_handshake(buffer) is None
        buffer.append(byte)
    buffer += b"rest"
    assert take_handshake(buffer) == bytes(size)
    assert buffer == b"rest"


@pytest.mark.parametrize("size", [0, HANDSHAKE_RECORD_MAX + 1])
def test_handshake_record_is_refused_when_size_is_out_of_bounds(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        encode_handshake(bytes(size))
    with pytest.raises(RecordError, match=f"{size} bytes"):
        take_handshake(bytearray((1, *size.to_bytes(3))))


@settings(max_examples=200)
@given(st.binary(max_size=40))
def test_handshake_record_raises_only_record_error_for_any_bytes(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        message = take_handshake(buffer)
    except RecordError:
        return
    assert data == (encode_handshake(message) if message else b"") + buffer
