"""A whole compute node in this process: the protocol at one end, workers at the other."""

import asyncio
import hashlib
import os
import pickle
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.wire import Connection

from alpyne_proto.codec import encode_row, read_rows
from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.limits import RESULT_INLINE_MAX
from alpyne_proto.messages.access import GetStatus, NodeStatus
from alpyne_proto.messages.compute import (
    SUBSCRIBE_JOBS,
    SUBSCRIBE_LOAD,
    CancelJobs,
    Cause,
    GetResult,
    JobAnswer,
    JobForm,
    JobRow,
    JobState,
    ListJobs,
    PutBlob,
    ReadOutput,
    ResultFollows,
    SettleJobs,
    SettleRow,
    SubmitJobs,
    Subscribe,
    Verdict,
)
from alpyne_proto.messages.program import CommandLine, InputFile, OutputFile, Value

NodeOf = Callable[..., AbstractAsyncContextManager[Any]]

SLEEP = "import time\ndef main(): time.sleep(600)"
SLOW_LINES = """
    import sys, time
    def main():
        for n in range(5):
            print("line", n, flush=True)
            time.sleep(0.05)
        print("oops", file=sys.stderr, flush=True)
        time.sleep(0.3)
"""


async def code_of(connection: Connection, message: Any, body: bytes = b"") -> ErrorCode:
    with pytest.raises(RequestFailed) as caught:
        await connection.call(message, body)
    return caught.value.code


def test_node_runs_a_program_and_pushes_its_value(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            job = await manager.submit("def main(): return 6 * 7")
            assert await manager.value(job) == 42
            event = manager.events[job.job_id][-1]
            assert (event.allocation, event.attempt, event.isolation) == (1, 1, 0)

    asyncio.run(main())


def test_node_answers_each_job_of_a_batch(
    node_of: NodeOf, manager: Any, program: Callable[[str], bytes]
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            good, bad = manager.spec(), manager.spec(cpus=500)
            answers = await manager.send(
                (good, program("def main(): pass")), (bad, b""), (good, b"")
            )
            assert [answer.verdict for answer in answers] == [
                Verdict.ACCEPTED,
                Verdict.REFUSED,
                Verdict.DUPLICATE,
            ]

    asyncio.run(main())


def test_node_runs_many_more_jobs_than_it_has_slots(
    node_of: NodeOf, manager: Any, program: Callable[[str], bytes]
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            jobs = [manager.spec() for _ in range(200)]
            text = program("def main(): return 'x'")
            await manager.send(*((job, text) for job in jobs))
            assert [await manager.value(job) for job in jobs] == ["x"] * 200

    asyncio.run(main())


def test_node_kills_a_cancelled_job_and_tells_the_receipt(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager, slots=1) as node:
            await manager.dial(node)
            running, waiting = await manager.submit(SLEEP), await manager.submit(SLEEP)
            await manager.until(running, JobState.RUNNING)
            ids = (running.job_id, waiting.job_id, os.urandom(16))
            await manager.connection.interrupt(CancelJobs(ids))
            event = await manager.until(running)
            assert (event.state, event.cause) == (JobState.KILLED, Cause.CANCELLED)
            assert event.ended >= 1
            assert event.left == 0
            assert (await manager.until(waiting)).state is JobState.KILLED
            assert await manager.value(await manager.submit("def main(): return 1")) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "more", "state", "cause"),
    [
        (SLEEP, {"timeout_ms": 200}, JobState.TIMEOUT, Cause.WALL_TIME),
        (
            "def main():\n while True: print('x' * 1000)",
            {"output_bytes": 50_000},
            JobState.LIMIT,
            Cause.OUTPUT,
        ),
        (
            "def main(): return b'x' * 500_000",
            {"result_bytes": 100_000},
            JobState.LIMIT,
            Cause.OUTPUT,
        ),
        ("def main(): 1 / 0", {}, JobState.FAILED, Cause.EXCEPTION),
        ("def no_main(): pass", {}, JobState.FAILED, Cause.BAD_PROGRAM),
        ("import os\ndef main(): os._exit(3)", {}, JobState.FAILED, Cause.CRASH),
    ],
)
def test_node_names_why_a_job_has_not_ended_well(
    node_of: NodeOf, manager: Any, text: str, more: Any, state: JobState, cause: Cause
) -> None:
    async def main() -> None:
        async with node_of(manager, slots=1) as node:
            await manager.dial(node)
            event = await manager.until(await manager.submit(text, **more))
            assert (event.state, event.cause) == (state, cause)
            assert event.text
            assert await manager.value(await manager.submit("def main(): return 1")) == 1

    asyncio.run(main())


def test_node_keeps_output_up_to_its_limit(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            text = "def main():\n while True: print('x' * 999)"
            job = await manager.submit(text, output_bytes=50_000)
            await manager.until(job)
            kept = b"".join([data async for _, data in manager.output(job)])
            assert kept == (b"x" * 999 + b"\n") * 50

    asyncio.run(main())


def test_node_shows_a_line_within_half_a_second_and_all_lines_once(
    node_of: NodeOf, manager: Any
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            job = await manager.submit(SLOW_LINES)
            seen: list[tuple[int, bytes]] = []
            first_s = ended_s = 0.0
            async for row, data in manager.output(job, follow=True):
                first_s = first_s or time.monotonic()
                seen.append((row.descriptor, data))
            ended_s = time.monotonic()
            out = b"".join(data for descriptor, data in seen if descriptor == 1)
            error = b"".join(data for descriptor, data in seen if descriptor == 2)
            assert out == b"".join(b"line %d\n" % n for n in range(5))
            assert error == b"oops\n"
            assert ended_s - first_s > 0.3  # it came while the job ran
            again = [data async for _, data in manager.output(job)]
            assert b"".join(again) == b"".join(data for _, data in seen)
            part = [data async for _, data in manager.output(job, offset=9)]
            assert b"".join(part) == b"".join(again)[9:]

    asyncio.run(main())


@pytest.mark.parametrize("size", [RESULT_INLINE_MAX - 100, RESULT_INLINE_MAX, 3_000_000])
def test_node_gives_results_of_any_size_whole_and_from_an_offset(
    node_of: NodeOf, manager: Any, size: int
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            job = await manager.submit(f"def main(): return bytes({size})")
            event = await manager.until(job)
            assert event.inline is (event.result_bytes <= RESULT_INLINE_MAX)
            answer = await manager.connection.call(GetResult(job.job_id))
            body = await answer.body.read(1 << 23)
            assert isinstance(answer.message, ResultFollows)
            assert answer.message.sha256 == event.sha256 == hashlib.sha256(body).digest()
            ((_, pickled),) = read_rows(body, (Value.SPEC.code,))
            assert pickle.loads(pickled) == bytes(size)
            tail = await manager.connection.call(GetResult(job.job_id, offset=len(body) - 7))
            assert await tail.body.read() == body[-7:]
            beyond = GetResult(job.job_id, offset=len(body) + 1)
            assert await code_of(manager.connection, beyond) is ErrorCode.BAD_REQUEST

    asyncio.run(main())


def test_node_asks_for_a_large_program_and_then_runs_it(
    node_of: NodeOf, manager: Any, program: Callable[[str], bytes]
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            blob = program("def main(): return 5  # " + "x" * 2_000_000)
            sha256 = hashlib.sha256(blob).digest()
            job = manager.spec(payload_sha256=sha256)
            (answer,) = await manager.send((job, b""))
            assert (answer.verdict, answer.missing) == (Verdict.NEED_BLOB, (sha256,))
            await manager.connection.call(PutBlob(sha256, len(blob)), blob)
            (answer,) = await manager.send((job, b""))
            assert answer.verdict is Verdict.ACCEPTED
            assert await manager.value(job) == 5

    asyncio.run(main())


def test_node_takes_submissions_and_gives_answers_that_fill_many_frames(
    node_of: NodeOf, manager: Any, program: Callable[[str], bytes]
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            text = program("def main(): return 2  # " + "x" * 20_000)
            jobs = [manager.spec() for _ in range(128)]
            answers = await manager.send(*((job, text) for job in jobs))
            assert {answer.verdict for answer in answers} == {Verdict.ACCEPTED}
            assert [await manager.value(job) for job in jobs] == [2] * 128
            lacking = [manager.spec(python="2.7") for _ in range(256)]
            answers = await manager.send(*((job, b"") for job in lacking))
            assert {answer.verdict for answer in answers} == {Verdict.REFUSED}
            assert sum(len(answer.text) for answer in answers) > 30_000
            body = b"".join(encode_row(manager.spec(), bytes(1 << 20)) for _ in range(33))
            code = await code_of(manager.connection, SubmitJobs(33), body)
            assert code is ErrorCode.BAD_REQUEST
            rows = b"".join(encode_row(SettleRow(job.job_id, 1, 1)) for job in jobs)
            await manager.connection.call(SettleJobs(128), _in_pieces(rows))
            settled = await manager.rows(ListJobs(), kind=JobRow)
            assert all(row.settled for row in settled)
            assert len(settled) == 128

    asyncio.run(main())


async def _in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


def test_node_lists_the_jobs_that_are_asked_for(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            group = os.urandom(16)
            one = await manager.submit("def main(): return 1", tags=("a",), name="first")
            two = await manager.submit("def main(): 1 / 0", group=group, index=7)
            for job in (one, two):
                await manager.until(job)

            async def ids(**asked: Any) -> list[bytes]:
                rows = await manager.rows(ListJobs(**asked), kind=JobRow)
                return [row.job_id for row in rows]

            assert await ids() == [one.job_id, two.job_id]
            assert await ids(tag="a") == await ids(states=1 << JobState.DONE) == [one.job_id]
            assert await ids(group=group) == await ids(limit=1) == [two.job_id]
            assert await ids(journal=manager.journal) == [one.job_id, two.job_id]
            assert await ids(journal=b"someones") == await ids(job_id=bytes(16)) == []
            (row,) = await manager.rows(ListJobs(job_id=two.job_id), kind=JobRow)
            assert (row.state, row.cause, row.index) == (JobState.FAILED, Cause.EXCEPTION, 7)
            assert "division by zero" in row.text

    asyncio.run(main())


def test_node_marks_settled_results(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            job = await manager.submit("def main(): return 1")
            await manager.until(job)
            await manager.connection.call(SettleJobs(1), encode_row(SettleRow(job.job_id, 1, 1)))
            (row,) = await manager.rows(ListJobs(), kind=JobRow)
            assert row.settled

    asyncio.run(main())


def test_node_answers_foreign_ids_exactly_like_unknown_ones(
    node_of: NodeOf, manager: Any, another: Callable[..., Any]
) -> None:
    async def main() -> None:
        other = another()
        async with node_of(manager, other) as node:
            await manager.dial(node)
            await other.dial(node)
            job = await manager.submit("def main(): return 1")
            await manager.until(job)
            said = []
            for job_id in (job.job_id, os.urandom(16)):
                for message in (GetResult(job_id), ReadOutput(job_id), ReadOutput(job_id, 0, True)):
                    with pytest.raises(RequestFailed) as caught:
                        await other.connection.call(message)
                    said.append((caught.value.code, str(caught.value)))
                await other.connection.interrupt(CancelJobs((job_id,)))
                await other.connection.call(SettleJobs(1), encode_row(SettleRow(job_id, 1, 1)))
                assert await other.rows(ListJobs(job_id=job_id), kind=JobRow) == []
            assert said[:3] == said[3:]
            assert {code for code, _ in said} == {ErrorCode.NOT_FOUND}
            (row,) = await manager.rows(ListJobs(), kind=JobRow)
            assert (row.state, row.settled) == (JobState.DONE, False)
            assert other.events == {}

    asyncio.run(main())


def test_node_takes_nothing_from_foreign_jobs_when_their_ids_and_hashes_are_named(
    node_of: NodeOf, manager: Any, another: Callable[..., Any], program: Callable[[str], bytes]
) -> None:
    async def main() -> None:
        other = another()
        async with node_of(manager, other) as node:
            await manager.dial(node)
            await other.dial(node)
            blob = program("def main(): return 'theirs'  # " + "x" * 2_000_000)
            sha256 = hashlib.sha256(blob).digest()
            await manager.connection.call(PutBlob(sha256, len(blob)), blob)
            theirs = manager.spec(payload_sha256=sha256)
            await manager.send((theirs, b""))
            assert await manager.value(theirs) == "theirs"
            for name in (sha256, os.urandom(32)):  # a foreign program is asked for as any other
                (answer,) = await other.send((other.spec(payload_sha256=name), b""))
                assert (answer.verdict, answer.missing) == (Verdict.NEED_BLOB, (name,))
            mine = replace(theirs, payload_sha256=b"")  # and a foreign id is free
            (answer,) = await other.send((mine, program("def main(): return 'mine'")))
            assert answer.verdict is Verdict.ACCEPTED
            assert await other.value(mine) == "mine"
            assert await manager.value(theirs) == "theirs"
            listed = await manager.rows(ListJobs(journal=manager.journal), kind=JobRow)
            assert [row.job_id for row in listed] == [theirs.job_id]

    asyncio.run(main())


def test_node_refuses_bad_submissions_and_serves_the_next_one(
    node_of: NodeOf, manager: Any, program: Callable[[str], bytes]
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            row = encode_row(manager.spec(), program("def main(): pass"))
            bad = [
                (SubmitJobs(2), row),
                (SubmitJobs(0), b""),
                (SubmitJobs(1), row[:-1]),
                (SubmitJobs(1), b"\xff" * 100),
                (SubmitJobs(1), encode_row(JobAnswer(bytes(16), Verdict.ACCEPTED))),
                (SubmitJobs(300), row * 300),
            ]
            for message, body in bad:
                code = await code_of(manager.connection, message, body)
                assert code in (ErrorCode.CODEC_ERROR, ErrorCode.BAD_REQUEST)
            assert await manager.rows(ListJobs(), kind=JobRow) == []
            assert await manager.value(await manager.submit("def main(): return 1")) == 1

    asyncio.run(main())


def test_node_kills_the_jobs_of_an_account_when_it_is_revoked(
    node_of: NodeOf, manager: Any, another: Callable[..., Any]
) -> None:
    async def main() -> None:
        other = another()
        async with node_of(manager, other, slots=1) as node:
            await manager.dial(node)
            await other.dial(node)
            running, waiting = await other.submit(SLEEP), await other.submit(SLEEP)
            await other.until(running, JobState.RUNNING)
            node._host.hooks.account_revoked(other.account.public)
            for job in (running, waiting):
                event = await other.until(job)
                assert (event.state, event.cause) == (JobState.KILLED, Cause.REVOKED)
            assert await manager.value(await manager.submit("def main(): return 1")) == 1

    asyncio.run(main())


def test_node_says_what_it_is_and_has(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager, slots=3) as node:
            await manager.dial(node)
            answer = await manager.connection.call(GetStatus())
            status = answer.message
            assert isinstance(status, NodeStatus)
            assert (status.slots, status.busy_slots, status.score_estimated) == (3, 0, True)
            assert status.score > 0
            shown = {attribute.name: attribute.value for attribute in status.attributes}
            assert shown["os"] == "linux"
            assert shown["isolation"] == "0"
            assert shown["limit.memory"] == "sampled"
            assert status.disk_free > 0
            assert status.memory_free > 0

    asyncio.run(main())


def test_node_tells_a_new_subscriber_what_is_newer_than_it_knows(
    node_of: NodeOf, manager: Any, another: Callable[..., Any]
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            one = await manager.submit("def main(): return 1")
            after = (await manager.until(one)).sequence
            two = await manager.submit("def main(): return 2")
            await manager.until(two)
            again = another(manager.account)
            await again.dial(node, subscribe=False)
            await again.connection.call(Subscribe(SUBSCRIBE_JOBS | SUBSCRIBE_LOAD, after=after))
            assert await again.value(two) == 2
            assert one.job_id not in again.events

    asyncio.run(main())


def test_restarted_node_runs_no_job_of_an_account_that_is_no_owner_any_more(
    tmp_path: Path, manager: Any, another: Callable[..., Any], node_of: NodeOf
) -> None:
    ran, owner = tmp_path / "ran", another()
    text = f"def main(): open({str(ran)!r}, 'w').close()"

    async def scene() -> None:
        async with node_of(manager, owner, slots=1) as node:
            await manager.dial(node)
            await manager.submit(SLEEP)
            await manager.submit(text)
        async with node_of(owner, slots=2) as node:
            await owner.dial(node)
            assert await owner.value(await owner.submit("def main(): return 1")) == 1
            assert node._parts.table.idle
        assert not ran.exists()
        async with node_of(manager, owner) as node:
            await manager.dial(node)
            rows = await manager.rows(ListJobs(), kind=JobRow)
            assert [(row.state, row.cause) for row in rows] == [
                (JobState.KILLED, Cause.REVOKED)
            ] * 2

    asyncio.run(scene())


def test_restarted_node_has_no_files_of_commands_that_were_killed_with_it(
    tmp_path: Path, manager: Any, node_of: NodeOf
) -> None:
    left = tmp_path / "node" / "work" / "1.1"
    left.mkdir(parents=True)
    (left / "large").write_bytes(b"data")

    async def scene() -> None:
        async with node_of(manager):
            assert not left.parent.exists()

    asyncio.run(scene())


def test_restarted_node_has_results_and_output_and_runs_what_was_interrupted(
    node_of: NodeOf, manager: Any, another: Callable[..., Any], tmp_path: Path
) -> None:
    flag = tmp_path / "second"
    text = f"""
        import os, time
        def main():
            print("attempt", flush=True)
            if not os.path.exists({str(flag)!r}):
                time.sleep(600)
            return "second attempt"
    """

    async def main() -> None:
        async with node_of(manager, slots=1) as node:
            await manager.dial(node)
            done = await manager.submit("def main(): print('kept'); return 'first'")
            await manager.until(done)
            interrupted = await manager.submit(text)
            await manager.until(interrupted, JobState.RUNNING)
            waiting = await manager.submit("def main(): return 'waited'")
        flag.touch()
        again = another(manager.account)
        async with node_of(manager, slots=1) as node:
            await again.dial(node)
            assert await again.value(done) == "first"
            assert b"".join([data async for _, data in again.output(done)]) == b"kept\n"
            assert await again.value(interrupted) == "second attempt"
            assert again.events[interrupted.job_id][-1].attempt == 2
            output = b"".join([data async for _, data in again.output(interrupted)])
            assert output == b"attempt\n"  # of the attempt that counts, and of no other
            assert await again.value(waiting) == "waited"
            first, last = again.events[done.job_id][-1], again.events[waiting.job_id][-1]
            assert last.sequence > first.sequence

    asyncio.run(main())


def test_node_lets_a_higher_allocation_replace_a_running_one(
    node_of: NodeOf, manager: Any, program: Callable[[str], bytes]
) -> None:
    async def main() -> None:
        async with node_of(manager, slots=1) as node:
            await manager.dial(node)
            job = await manager.submit(SLEEP)
            await manager.until(job, JobState.RUNNING)
            text = program("def main(): return 'second'")
            (answer,) = await manager.send((replace(job, allocation=2), text))
            assert answer.verdict is Verdict.ACCEPTED
            assert await manager.value(job) == "second"
            (answer,) = await manager.send((job, text))
            assert answer.verdict is Verdict.FENCED

    asyncio.run(main())


def test_node_runs_a_command_with_its_files(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            job = manager.spec(JobForm.COMMAND)
            text = encode_row(
                CommandLine(("sh", "-c", "tr a-z A-Z < in.txt > out.txt"), outputs=("*.txt",))
            )
            text += encode_row(InputFile("in.txt"), b"hello")
            await manager.send((job, text))
            event = await manager.until(job)
            assert (event.state, event.exit_status) == (JobState.DONE, 0), event
            files = read_rows(manager.payloads[job.job_id], (OutputFile.SPEC.code,))
            assert b"HELLO" in [data for _, data in files]

    asyncio.run(main())
