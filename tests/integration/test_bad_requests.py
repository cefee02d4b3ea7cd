"""Bad requests at real daemons: foreign and unknown ids, extremes, rows, names, lost peers."""

import asyncio
import dataclasses
import hashlib
import io
import json
import os
import pickle
import socket
import struct
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgpack
import pytest
from alpyne_grid.wire import Connection
from rude_peer import (  # type: ignore[import-not-found]
    MARK,
    RudePeer,
    Site,
    command,
    frame,
    refusal,
    request,
)

from alpyne_proto import limits
from alpyne_proto.address import Address
from alpyne_proto.codec import encode, encode_row, join_row, read_rows
from alpyne_proto.container import container_id
from alpyne_proto.errors import AlpyneError, ErrorCode, Outcome, RequestFailed
from alpyne_proto.fields import Blob, Choice, Flag, ListOf, Text, Uint
from alpyne_proto.frame import FrameType
from alpyne_proto.messages import access, compute, data
from alpyne_proto.messages.compute import Cause, JobForm, JobState
from alpyne_proto.messages.control import BodyDigest
from alpyne_proto.messages.program import Arguments, OutputFile, SourceFile
from alpyne_proto.registry import MESSAGES, Message, Role, Shape, State

pytestmark = pytest.mark.integration

E = ErrorCode
T = FrameType
Run = Callable[[Awaitable[Any]], Any]
UNKNOWN_ID = b"u" * 16
WRITER = bytes(16)


@pytest.fixture(autouse=True)
def unharmed(site: Site) -> Iterator[None]:
    with site.unharmed():
        yield


# --- ids of others --------------------------------------------------------------------------------

COMPUTE_VERBS: dict[str, Callable[[bytes], Message]] = {
    "get result": compute.GetResult,
    "read output": compute.ReadOutput,
    "follow output": lambda job: compute.ReadOutput(job, follow=True),
    "list": lambda job: compute.ListJobs(job_id=job),
}
DATA_VERBS: dict[str, Callable[[bytes], Message]] = {
    "get container": data.GetContainer,
    "get": lambda box: data.GetObject(box, "good"),
    "get a version": lambda box: data.GetObject(box, "good", 1, WRITER),
    "stat": lambda box: data.StatObject(box, "good"),
    "list": data.ListObjects,
    "delete": lambda box: data.DeleteObject(box, "good", 9, WRITER),
    "put": lambda box: data.PutObject(box, "good", 9, WRITER, 4),
    "put where absent": lambda box: data.PutObject(
        box, "good", 9, WRITER, 4, expect=data.Expect.ABSENT
    ),
}


async def said(connection: Connection, message: Message, own_id: bytes) -> Any:
    """Return everything that an answer tells, without the id that was asked for."""
    body = b"data" if isinstance(message, data.PutObject) else b""
    digest = BodyDigest(hashlib.sha256(body).digest())
    trailer = (lambda: digest) if body else None
    try:
        answer = await connection.call(message, body, trailer=trailer)
        return answer.message, await answer.body.read(1 << 20)
    except RequestFailed as error:
        text = str(error).replace(own_id.hex(), "ID")
        return error.code, text, error.outcome, error.retryable, error.retry_after_ms


@pytest.mark.parametrize("verb", COMPUTE_VERBS)
def test_compute_node_tells_nothing_of_others_jobs(site: Site, run: Run, verb: str) -> None:
    async def scene() -> None:
        row, _ = await site.run_job(command("true"))
        guest = await site.guest.dial(site.compute)
        foreign = await said(guest, COMPUTE_VERBS[verb](row.job_id), row.job_id)
        unknown = await said(guest, COMPUTE_VERBS[verb](UNKNOWN_ID), UNKNOWN_ID)
        assert foreign == unknown
        assert foreign[0] is E.NOT_FOUND or foreign[1] == b""
        await guest.close()

    run(scene())


def test_compute_node_lets_nobody_cancel_or_settle_others_jobs(site: Site, run: Run) -> None:
    async def scene() -> None:
        job = b"foreign." + os.urandom(8)
        owner, guest = await site.owner.dial(site.compute), await site.guest.dial(site.compute)
        spec = compute.JobSpec(job, 1, JobForm.COMMAND, compute.ResultCodec.PLAIN)
        answer = await owner.call(compute.SubmitJobs(1), encode_row(spec, command("sleep", "0.5")))
        await answer.body.read(1 << 20)
        await guest.interrupt(compute.CancelJobs((job, UNKNOWN_ID)))
        for row in (compute.SettleRow(job, 1, 1), compute.SettleRow(UNKNOWN_ID, 1, 1)):
            await guest.call(compute.SettleJobs(1), encode_row(row))
        ended, _ = await site.ended(owner, job)
        await guest.call(compute.SettleJobs(1), encode_row(compute.SettleRow(job, 1, 1)))
        ended, _ = await site.ended(owner, job)
        assert (ended.state, ended.settled) == (JobState.DONE, False)
        await owner.close()
        await guest.close()

    run(scene())


def test_compute_node_pushes_nothing_of_others_journals(site: Site, run: Run) -> None:
    with RudePeer(site.compute).greet(site.guest) as peer:
        peer.say(request(compute.Subscribe(compute.SUBSCRIBE_JOBS)))
        peer.next(T.RESPONSE, 1)
        run(site.run_job(command("true")))
        peer.say(request(access.GetStatus(), 3))
        types = []
        for got in peer.frames():
            types.append(got.type)
            if (got.type, got.stream_id) == (T.RESPONSE, 3):
                break
        assert T.DATA not in types


@pytest.mark.parametrize("verb", DATA_VERBS)
def test_data_node_tells_nothing_of_others_containers(site: Site, run: Run, verb: str) -> None:
    async def scene() -> None:
        guest = await site.guest.dial(site.data)
        foreign = await said(guest, DATA_VERBS[verb](site.box), site.box)
        unknown = await said(guest, DATA_VERBS[verb](UNKNOWN_ID), UNKNOWN_ID)
        assert foreign == unknown
        assert foreign[0] is E.NOT_FOUND
        await guest.close()

    run(scene())


def test_data_node_lets_nobody_make_others_containers(site: Site, run: Run) -> None:
    async def scene() -> None:
        guest = await site.guest.dial(site.data)
        key = Address.parse(site.data.address).key
        message = data.PutContainer(site.box, "box", 1, (key,), 9, WRITER)
        assert (await refusal(guest, message)).code is E.BAD_REQUEST
        await guest.close()

    run(scene())


# --- extremes, from the registry ------------------------------------------------------------------

LEFT_OUT = {"RevokeAccount", "RevokeDevice"}  # their subjects are tested elsewhere


def _requests() -> list[type[Message]]:
    return [
        spec.cls
        for spec in MESSAGES.values()
        if spec.shape is Shape.REQUEST
        and spec.senders & Role.MANAGER
        and State.OPEN in spec.states
        and spec.name not in LEFT_OUT
    ]


def _value(kind: Any, *, most: bool) -> Any:
    if isinstance(kind, Uint):
        return (1 << kind.bits) - 1 if most else 0
    if isinstance(kind, Text):
        return "x" * kind.most if most else ""
    if isinstance(kind, Blob):
        return b"\xff" * (kind.most if most else kind.least)
    if isinstance(kind, Choice):
        return max(kind.enum) if most else min(kind.enum)
    if isinstance(kind, Flag):
        return False  # following an output, for instance, has no end
    if isinstance(kind, ListOf):
        return tuple(_value(kind.item, most=most) for _ in range(kind.most if most else 0))
    return kind.mask if most else 0


def _with(cls: type[Message], only: str, *, most: bool) -> Message | None:
    values = {
        spec.name: _value(spec.kind, most=most and only in (spec.name, "all"))
        for spec in cls.SPEC.fields
        if spec.required or only in (spec.name, "all")
    }
    return cls(**values)


@pytest.mark.parametrize("cls", _requests(), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("kind", ["compute", "data"])
def test_daemon_answers_any_legal_value_without_a_defect(
    site: Site, run: Run, kind: str, cls: type[Message]
) -> None:
    names = ["none", "all", *(spec.name for spec in cls.SPEC.fields)]

    async def scene() -> None:
        connection = await site.owner.dial(getattr(site, kind))
        for name in names:
            for most in (False, True):
                message = _with(cls, name, most=most)
                if message is None or (cls.__name__ == "CreateInvitation" and not most):
                    continue
                try:
                    answer = await connection.call(message, timeout_s=5.0)
                    answer.body.cancel()
                except RequestFailed as error:
                    assert error.code is not E.INTERNAL, f"{message}: {error}"
        assert connection.is_open
        await connection.close()

    run(scene())


@pytest.mark.parametrize("cls", _requests(), ids=lambda cls: cls.__name__)
def test_compute_node_answers_real_jobs_extremes_without_a_defect(
    site: Site, run: Run, cls: type[Message]
) -> None:
    if "job_id" not in cls.SPEC.cls.__dataclass_fields__:  # type: ignore[attr-defined]
        return

    async def scene() -> None:
        row, _ = await site.run_job(command("echo", "hello"))
        connection = await site.owner.dial(site.compute)
        for spec in cls.SPEC.fields:
            message = _with(cls, spec.name, most=True)
            assert message is not None
            message = dataclasses.replace(message, job_id=row.job_id)  # type: ignore[type-var]
            try:
                answer = await connection.call(message, timeout_s=5.0)
                await answer.body.read(1 << 20)
            except RequestFailed as error:
                assert error.code is not E.INTERNAL, f"{message}: {error}"
        await connection.close()

    run(scene())


EXTREME_SPECS: dict[str, dict[str, Any]] = {
    spec.name: {spec.name: _value(spec.kind, most=True)}
    for spec in compute.JobSpec.SPEC.fields
    if spec.name not in ("job_id", "form", "codec", "requirements")
}


@pytest.mark.parametrize("name", EXTREME_SPECS)
def test_compute_node_takes_or_refuses_a_job_of_extremes(site: Site, run: Run, name: str) -> None:
    async def scene() -> None:
        connection = await site.owner.dial(site.compute)
        values: dict[str, Any] = {"allocation": 1, **EXTREME_SPECS[name]}
        job = b"extreme." + os.urandom(8)
        for of in ("tickets", "data_nodes"):  # one less of the longest still fits into a row
            values[of] = values.get(of, ())[:-1]
        spec = compute.JobSpec(job, form=JobForm.COMMAND, **values)
        payload = b"" if name == "payload_sha256" else command("true")
        answer = await connection.call(compute.SubmitJobs(1), encode_row(spec, payload))
        [(got, _)] = read_rows(await answer.body.read(1 << 20), (0x23,))
        assert isinstance(got, compute.JobAnswer)
        if got.verdict is compute.Verdict.ACCEPTED:
            await site.ended(connection, job)
        else:
            assert got.code is not E.INTERNAL
        await connection.close()

    run(scene())


# --- rows -----------------------------------------------------------------------------------------

SPEC = compute.JobSpec(UNKNOWN_ID, 1, JobForm.COMMAND)
ROW = encode_row(SPEC, command("true"))
BAD_ROWS: dict[str, tuple[int, bytes, ErrorCode]] = {
    "none": (1, b"", E.CODEC_ERROR),
    "none announced": (0, b"", E.CODEC_ERROR),
    "more than announced": (1, ROW + ROW, E.CODEC_ERROR),
    "fewer than announced": (2, ROW, E.CODEC_ERROR),
    "too many": (257, ROW * 257, E.CODEC_ERROR),
    "too many, long": (300, encode_row(SPEC, bytes(50_000)) * 300, E.BAD_REQUEST),
    "cut": (1, ROW[:-1], E.CODEC_ERROR),
    "half a header": (1, ROW + b"\x00\x00", E.CODEC_ERROR),
    "noise": (1, MARK * 100, E.CODEC_ERROR),
    "meta of 64 KiB": (1, b"\xff\xff\x00\x00\x00\x00" + bytes(70_000), E.CODEC_ERROR),
    "payload of 4 GiB": (1, b"\x00\x01\xff\xff\xff\xff\x80", E.CODEC_ERROR),
    "payload over its bound": (
        1, join_row(encode(SPEC), bytes(limits.JOB_PAYLOAD_INLINE + 1)), E.CODEC_ERROR,
    ),
    "another row": (1, encode_row(compute.SettleRow(UNKNOWN_ID, 1, 1)), E.CODEC_ERROR),
    "no row": (1, join_row(encode(compute.GetResult(UNKNOWN_ID))), E.CODEC_ERROR),
    "deep meta": (1, join_row(b"\x81\x00" + b"\x91" * 4000 + b"\x00"), E.CODEC_ERROR),
    "unknown form": (
        1, join_row(msgpack.packb({0: 0x21, 2: UNKNOWN_ID, 4: 1, 6: 99})), E.CODEC_ERROR,
    ),
    "wrong type": (1, join_row(msgpack.packb({0: 0x21, 2: "text", 4: 1, 6: 1})), E.CODEC_ERROR),
    "unknown even key": (
        1, join_row(msgpack.packb({0: 0x21, 2: UNKNOWN_ID, 4: 1, 6: 1, 98: 0})), E.CODEC_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_compute_node_refuses_bad_rows_and_the_connection_goes_on(
    site: Site, run: Run, name: str
) -> None:
    count, body, code = BAD_ROWS[name]

    async def scene() -> None:
        connection = await site.owner.dial(site.compute)
        with site.bounded(site.compute, 24 << 20):
            assert (await refusal(connection, compute.SubmitJobs(count), body)).code is code
        await connection.call(access.GetStatus())
        answer = await connection.call(compute.ListJobs(job_id=UNKNOWN_ID))
        assert await answer.body.read(1000) == b""
        await connection.close()

    run(scene())


# --- names ----------------------------------------------------------------------------------------

BAD_PATHS = {
    "empty": "",
    "dots": "..",
    "up": "../" * 12 + "escaped",
    "inner up": "a/../../escaped",
    "dot": "./a",
    "trailing up": "a/..",
    "absolute": "/tmp/escaped",
    "double slash": "a//b",
    "slash": "/",
    "trailing slash": "a/",
    "NUL": "a\0escaped",
    "newline": "a\nescaped",
    "escape": "\x1b[2J\x1b]0;escaped\x07",
    "C1": "a\x9bescaped",
    "DEL": "a\x7f",
}
ODD_PATHS = [
    "..a", "a..", "...", "~", "~root/x", "-rf", "$HOME", "%2e%2e/x", "..\\..\\x", "C:\\x", "CON",
    "a:b", "*?[x]", "\u202egpj", "\uff0e\uff0e/x", "a" * 1024, "\U0001f600",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_PATHS)
def test_data_node_refuses_a_bad_path_in_every_verb(site: Site, run: Run, name: str) -> None:
    path = BAD_PATHS[name]

    async def scene() -> None:
        connection = await site.owner.dial(site.data)
        digest = BodyDigest(hashlib.sha256(b"x").digest())
        put = data.PutObject(site.box, path, 1, WRITER, 1)
        answers = [
            await refusal(connection, put, b"x", trailer=lambda: digest),
            await refusal(connection, data.GetObject(site.box, path)),
            await refusal(connection, data.StatObject(site.box, path)),
            await refusal(connection, data.DeleteObject(site.box, path, 1, WRITER)),
        ]
        assert [each.code for each in answers] == [E.BAD_REQUEST] * 4
        assert all(each.outcome is Outcome.NOT_STARTED for each in answers)
        assert all(str(each).isprintable() for each in answers)
        await connection.close()

    run(scene())
    assert "escaped" not in site.inside()


def test_data_node_keeps_odd_paths_as_names_and_never_as_files(site: Site, run: Run) -> None:
    async def scene() -> None:
        connection = await site.owner.dial(site.data)
        counter = int(time.time())
        for path in ODD_PATHS:
            await site.put(connection, path, MARK, counter)
            got = await connection.call(data.GetObject(site.box, path))
            assert await got.body.read(100) == MARK
            await connection.call(data.DeleteObject(site.box, path, counter + 1, WRITER))
        await connection.close()

    run(scene())
    names = site.inside()
    assert not any(part in names for path in ODD_PATHS for part in path.split("/") if len(part) > 4)


LONG_NAMES = {
    "5,000 characters": msgpack.packb("p" * 5000),
    "1,025 bytes": msgpack.packb("p" * 1025),
    "1,026 bytes of UTF-8": msgpack.packb("\u00e9" * 513),
    "lone surrogate": b"\xa6a\xed\xa0\x80/b",
    "broken UTF-8": b"\xa3\xff\xfe\xfd",
    "overlong slash": b"\xa4..\xc0\xaf",
    "bytes": msgpack.packb(b"path"),
}


@pytest.mark.parametrize("name", LONG_NAMES)
@pytest.mark.parametrize("code", [0x45, 0x48, 0x49, 0x4A, 0x4C, 0x40])
def test_data_node_closes_on_a_name_that_is_no_text_within_bounds(
    site: Site, name: str, code: int
) -> None:
    with RudePeer(site.data).greet(site.owner) as peer:
        meta = b"\x83\x00" + bytes([code]) + b"\x02\xc4\x10" + site.box + b"\x04" + LONG_NAMES[name]
        peer.say(frame(T.REQUEST, 1, flags=1, meta=meta))
        assert peer.closed_with() is E.CODEC_ERROR


BAD_BOXES = ["", "a\0b", "a\x1b[2J", "a\nb", "\x7f"]


@pytest.mark.parametrize("name", BAD_BOXES)
def test_data_node_refuses_a_bad_container_name(site: Site, run: Run, name: str) -> None:
    async def scene() -> None:
        connection = await site.owner.dial(site.data)
        key = Address.parse(site.data.address).key
        message = data.PutContainer(UNKNOWN_ID, name, 1, (key,), 1, WRITER)
        assert (await refusal(connection, message)).code is E.BAD_REQUEST
        await connection.close()

    run(scene())


@pytest.mark.parametrize("name", ["..", "../../escaped", "/escaped", "a/b", "x" * 255])
def test_data_node_takes_a_container_name_as_a_name_only(site: Site, run: Run, name: str) -> None:
    async def scene() -> None:
        connection = await site.owner.dial(site.data)
        key = Address.parse(site.data.address).key
        box = container_id(site.owner.key, name)
        await connection.call(data.PutContainer(box, name, 1, (key,), int(time.time()), WRITER))
        await connection.close()

    run(scene())
    assert "escaped" not in site.inside()


# --- jobs that would leave their folder -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n for n in BAD_PATHS if n not in ("newline", "escape", "C1", "DEL")]
)
@pytest.mark.parametrize("as_output", [False, True])
def test_job_with_a_bad_file_name_fails_and_writes_nothing(
    site: Site, run: Run, name: str, as_output: bool
) -> None:
    path = BAD_PATHS[name].replace("/tmp", str(site.folder))
    payload = (
        command("true", outputs=(path,)) if as_output else command("true", inputs={path: MARK})
    )
    row, _ = run(site.run_job(payload))
    assert (row.state, row.cause) == (JobState.FAILED, Cause.BAD_PROGRAM)


def test_job_cannot_hand_out_files_through_links(site: Site, run: Run) -> None:
    secret = str(site.cluster.home / "account.pub")
    assert os.path.isfile(secret)
    for script in (
        f"ln -s {secret} out",
        f"ln -s {os.path.dirname(secret)} folder; mkdir -p x",
        "mkfifo out",
        "ln -s /dev/zero out",
    ):
        outputs = ("folder/*",) if "folder" in script else ("out",)
        row, result = run(site.run_job(command("sh", "-c", script, outputs=outputs)))
        assert (row.state, row.cause) == (JobState.FAILED, Cause.MISSING_FILE), script
        assert b"ssh-ed25519" not in result


def test_job_gives_only_files_of_its_folder_for_wide_patterns(site: Site, run: Run) -> None:
    payload = command("sh", "-c", "echo in > one; ln -s / up", outputs=("one", "*n*"))
    row, result = run(site.run_job(payload))
    assert row.state is JobState.DONE
    files = [got for got, _ in read_rows(result, (OutputFile.SPEC.code,))]
    assert files == [OutputFile("one", False)]


DAMAGED_PROGRAMS = {
    "nothing": b"",
    "noise": MARK * 50,
    "cut": command("true")[:-1],
    "no program": encode_row(OutputFile("x")),
    "empty argv": command(),
    "empty program": command(""),
    "NUL in argv": command("true", "a\0b"),
    "payload of 4 GiB": b"\x00\x01\xff\xff\xff\xff\x80",
}


@pytest.mark.parametrize("name", DAMAGED_PROGRAMS)
@pytest.mark.parametrize("form", [JobForm.COMMAND, JobForm.CALL, JobForm.MAP, JobForm.SOURCE])
def test_job_of_a_damaged_program_fails_as_such(
    site: Site, run: Run, name: str, form: JobForm
) -> None:
    row, _ = run(site.run_job(DAMAGED_PROGRAMS[name], form))
    assert (row.state, row.cause) == (JobState.FAILED, Cause.BAD_PROGRAM)


def _bundle(names: list[str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in names:
            file.writestr(name, "VALUE = 7\n")
    return made.getvalue()


BUNDLES = {
    "escaping names": _bundle(
        ["../../../escaped.py", "/escaped.py", "a\\..\\escaped.py", "good.py"]
    ),
    "noise": MARK * 100,
    "empty": b"",
    "cut": _bundle(["good.py"])[:-30],
}


@pytest.mark.parametrize("name", BUNDLES)
def test_bundle_is_never_unpacked_outside(site: Site, run: Run, name: str) -> None:
    bundle = BUNDLES[name]
    sha256 = hashlib.sha256(bundle).digest()
    source = "def main():\n    import good\n    return good.VALUE\n"
    payload = encode_row(SourceFile("../../escaped.py"), source.encode()) + encode_row(
        Arguments(), pickle.dumps(((), {}))
    )

    async def scene() -> Any:
        connection = await site.owner.dial(site.compute)
        await connection.call(compute.PutBlob(sha256, len(bundle)), bundle)
        await connection.close()
        return await site.run_job(payload, JobForm.SOURCE, bundle=sha256)

    row, _ = run(scene())
    expected = JobState.DONE if name == "escaping names" else JobState.FAILED
    assert row.state is expected
    assert "escaped" not in site.inside()


# --- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "body", "code"),
    [
        (5, b"four", E.BAD_REQUEST),
        (3, b"four", E.BAD_REQUEST),
        (4, b"four", E.DIGEST_MISMATCH),
        (limits.BLOB_MAX + 1, b"four", E.BAD_REQUEST),
        ((1 << 64) - 1, b"", E.BAD_REQUEST),
    ],
)
def test_daemons_refuse_a_body_that_is_not_what_was_announced(
    site: Site, run: Run, size: int, body: bytes, code: ErrorCode
) -> None:
    async def scene() -> None:
        node = await site.owner.dial(site.compute)
        assert (await refusal(node, compute.PutBlob(b"h" * 32, size), body)).code is code
        store = await site.owner.dial(site.data)
        if size <= limits.BLOB_MAX:
            digest = BodyDigest(b"h" * 32)
            message = data.PutObject(site.box, "liar", 1, WRITER, size)
            answer = await refusal(store, message, body, trailer=lambda: digest)
            assert answer.code is code
            answer = await refusal(store, message, body)
            assert answer.code is E.BAD_REQUEST
        info = (await store.call(data.StatObject(site.box, "liar"))).message
        assert info.counter == 0
        await node.close()
        await store.close()

    run(scene())


# --- lost peers -----------------------------------------------------------------------------------


def _hang_up(peer: Any) -> None:
    """Close so that the daemon gets a reset instead of an end."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()


def _used(site: Site, kind: str) -> int:
    async def ask() -> int:
        connection = await site.owner.dial(getattr(site, kind))
        status = (await connection.call(access.GetStatus())).message
        await connection.close()
        assert isinstance(status, access.NodeStatus)
        return status.used_bytes

    return asyncio.run(ask())


def _files(site: Site) -> set[str]:
    return {str(path) for path in site.data.state.rglob("*") if path.is_file()}


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("abruptly", [False, True])
def test_data_node_forgets_puts_of_peers_that_are_lost(site: Site, abruptly: bool) -> None:
    before = _used(site, "data")
    files = _files(site)
    peers = []
    for n in range(10):
        peers.append(RudePeer(site.data).greet(site.owner))
        message = data.PutObject(site.box, f"lost-{n}", 1, WRITER, 1 << 21)
        peers[n].say(request(message, 1, end=False))
        for at in range(0, 1_500_000, 50_000):  # the first MiB goes to the disk
            if at == 1_000_000:
                peers[n].next(T.MAX_STREAM_DATA, 1)
            peers[n].say(frame(T.DATA, 1, at.to_bytes(8, "big") + os.urandom(50_000)))
    _wait_for(lambda: len(_files(site)) >= len(files) + len(peers))
    for peer in peers:
        if abruptly:
            _hang_up(peer)
        else:
            peer.socket.close()
    _wait_for(lambda: _used(site, "data") == before and _files(site) == files)

    async def absent() -> None:
        connection = await site.owner.dial(site.data)
        for n in range(10):
            info = (await connection.call(data.StatObject(site.box, f"lost-{n}"))).message
            assert info.counter == 0
        await connection.close()

    asyncio.run(absent())


def test_data_node_forgets_gets_of_peers_that_are_lost(site: Site, run: Run) -> None:
    async def large() -> None:
        connection = await site.owner.dial(site.data)
        await site.put(connection, "large", os.urandom(8 << 20), int(time.time()))
        await connection.close()

    run(large())
    with site.bounded(site.data, 48 << 20):
        for _ in range(10):
            peer = RudePeer(site.data).greet(site.owner)
            peer.say(request(data.GetObject(site.box, "large")))
            peer.next(T.DATA, 1)
            _hang_up(peer)


def test_compute_node_forgets_submissions_and_blobs_of_peers_that_are_lost(site: Site) -> None:
    before = _used(site, "compute")
    for n in range(10):
        peer = RudePeer(site.compute).greet(site.owner)
        peer.say(request(compute.SubmitJobs(1), 1, ROW[:-1], end=False))
        peer.say(request(compute.PutBlob(bytes([n]) * 32, 1 << 20), 3, bytes(30_000), end=False))
        peer.say(request(compute.Subscribe(3), 5))
        _hang_up(peer)
    _wait_for(lambda: _used(site, "compute") == before)


def test_compute_node_runs_the_job_of_a_peer_that_is_lost_before_the_answer(
    site: Site, run: Run
) -> None:
    job = b"orphaned" + os.urandom(8)
    spec = compute.JobSpec(job, 1, JobForm.COMMAND, compute.ResultCodec.PLAIN)
    peer = RudePeer(site.compute).greet(site.owner)
    peer.next(T.SETTINGS)
    peer.say(request(compute.SubmitJobs(1), 1, encode_row(spec, command("true"))))
    peer.socket.close()

    async def ended() -> Any:
        connection = await site.owner.dial(site.compute)
        for _ in range(200):
            answer = await connection.call(compute.ListJobs(job_id=job))
            if await answer.body.read(1 << 20):
                break
            await asyncio.sleep(0.01)
        got = await site.ended(connection, job)
        await connection.close()
        return got

    assert run(ended())[0].state is JobState.DONE


def test_logs_of_the_daemons_are_lines_of_json(site: Site) -> None:
    for daemon in site.daemons:
        for line in daemon.log.splitlines():
            assert isinstance(json.loads(line), dict)


def test_daemons_answer_many_rude_peers_and_a_good_one_at_once(site: Site, run: Run) -> None:
    async def rude(n: int) -> None:
        connection = await site.guest.dial(site.data)
        for _ in range(20):
            try:
                await connection.call(data.GetObject(site.box, "../" * n))
            except AlpyneError:
                continue
        await connection.close()

    async def scene() -> None:
        await asyncio.gather(*(rude(n) for n in range(6)), site.serves())

    run(scene())
