"""What every back end of compute nodes must do. Subclass it and say how to make one.

    class TestMyBackend(BackendContract):
        @asynccontextmanager
        async def opened(self, setup):  # yields a back end that has reaped and started
            ...

A coroutine test runner must be at work (see conftest.py).
"""

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from alpyne_grid.nodes.compute.backends.base import LIMIT_NAMES, Backend, BackendSetup
from compute_bench import (
    ALICE,
    BOB,
    Bench,
    ObjectRoom,
    Objects,
    Run,
    arguments,
    call,
    function_row,
    is_dead,
    marked,
    named,
    wait_gone,
)

from alpyne_proto import plain
from alpyne_proto.codec import encode_row
from alpyne_proto.errors import AlpyneError
from alpyne_proto.jobobject import JobObject, from_plain
from alpyne_proto.messages import program as p
from alpyne_proto.messages.compute import Cause, JobForm, JobState, ResultCodec

DONE = (JobState.DONE, Cause.NONE)
FAILED, LIMIT = JobState.FAILED, JobState.LIMIT
MIB = 1 << 20

# Functions of this file travel by value: a worker has no tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class BackendBench:
    """Makes the bench; the parts of the contract inherit it."""

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        """Yield a back end that has reaped and started."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def bench(self, folder: Path) -> AsyncIterator[Bench]:
        """Yield a bench with a back end in ``folder``."""
        room = ObjectRoom()
        async with self.opened(BackendSetup(folder / "backend", os.urandom(16), room)) as backend:
            yield Bench(backend, folder, room)
        assert room.is_closed
        assert room.objects.open_executions == []


class CallContract(BackendBench):
    """Calls and maps: values, failures, codecs."""

    async def test_backend_says_what_it_is(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            assert bench.backend.name
            assert bench.backend.level in (0, 1, 2)
            assert set(bench.backend.limits) <= set(LIMIT_NAMES)
            assert bench.backend.pythons

    async def test_call_returns_its_value(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda a, b: {"sum": a + b}, 20, 22)
            assert run.how == DONE
            assert run.started == 1
            assert run.value() == {"sum": 42}
            assert run.end.usage.peak_memory_bytes > MIB

    async def test_call_fails_with_type_text_and_traceback_when_it_raises(
        self, tmp_path: Path
    ) -> None:
        def outer(value: int) -> float:
            return 1 / value

        async with self.bench(tmp_path) as bench:
            run = await bench.call(outer, 0)
            failure = run.failure()
            assert run.how == (FAILED, Cause.EXCEPTION)
            assert run.end.text == "ZeroDivisionError: division by zero"
            assert (failure.type, failure.text) == ("ZeroDivisionError", "division by zero")
            assert "in outer" in failure.traceback
            assert "worker" not in failure.traceback
            raised = cloudpickle.loads(run.rows()[0][1])
            assert isinstance(raised, ZeroDivisionError)

    async def test_call_tells_the_failure_when_the_exception_does_not_pickle(
        self, tmp_path: Path
    ) -> None:
        def work() -> None:
            class Odd(Exception):
                def __init__(self, one: int, two: int) -> None:
                    super().__init__(f"{one} and {two}")

            raise Odd(1, 2)

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert run.failure().text == "1 and 2"
            assert run.rows()[0][1] == b""

    @pytest.mark.parametrize("status", [0, 7])
    async def test_call_is_a_crash_when_the_interpreter_ends(
        self, tmp_path: Path, status: int
    ) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: os._exit(status))
            assert run.how == (FAILED, Cause.CRASH)
            assert f"status {status}" in run.end.text
            assert run.failure().text == run.end.text
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_call_is_a_crash_naming_the_signal_when_it_segfaults(
        self, tmp_path: Path
    ) -> None:
        def work() -> None:
            import ctypes

            ctypes.string_at(0)

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert run.how == (FAILED, Cause.CRASH)
            assert "SIGSEGV (signal 11)" in run.end.text
            assert run.end.exit_status == 256 + 11
            assert "Segmentation fault" in run.written(2)
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_call_is_a_crash_when_it_calls_sys_exit(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: sys.exit("enough"))
            assert run.how == (FAILED, Cause.CRASH)
            assert run.end.text == "the program called sys.exit('enough')"

    async def test_call_names_the_type_when_its_result_does_not_pickle(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: (n for n in ()))
            assert run.how == (FAILED, Cause.UNPICKLABLE_RESULT)
            assert run.end.text.startswith("the result, generator, cannot be pickled")

    async def test_plain_call_returns_plain_values(self, tmp_path: Path) -> None:
        value = {"a": [1, 2.5, None, True], "b": (b"x", {3}), 4: 2**80}
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: value, codec=ResultCodec.PLAIN)
            ((row, data),) = run.rows()
            assert row == p.Value()
            assert plain.decode(data) == value

    async def test_plain_call_names_type_and_path_when_its_result_is_not_plain(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: {"a": [1, range(3)]}, codec=ResultCodec.PLAIN)
            assert run.how == (FAILED, Cause.UNSAFE_RESULT)
            assert run.end.text.startswith("result['a'][1] is range")
            assert run.rows()[0][1] == b""

    async def test_plain_call_carries_no_pickle_when_it_raises(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: {}[0], codec=ResultCodec.PLAIN)
            assert run.failure().type == "KeyError"
            assert run.rows()[0][1] == b""

    async def test_call_returns_instances_of_the_main_scripts_classes(self, tmp_path: Path) -> None:
        class Point:
            def __init__(self, x: int) -> None:
                self.x = x

        async with self.bench(tmp_path) as bench:
            assert (await bench.value(lambda: Point(3))).x == 3

    async def test_call_says_which_module_is_missing(self, tmp_path: Path) -> None:
        program = encode_row(p.Function(), b"cno_such_module\nwork\n.") + arguments()
        async with self.bench(tmp_path) as bench:
            run = await bench.ended(bench.start(program))
            assert run.how == (FAILED, Cause.MISSING_FILE)
            assert "no_such_module" in run.end.text

    @pytest.mark.parametrize(
        ("program", "cause"),
        [
            (b"", Cause.BAD_PROGRAM),
            (b"\x00\x01\x00", Cause.BAD_PROGRAM),
            (arguments(), Cause.BAD_PROGRAM),
            (encode_row(p.Function(), b"not a pickle") + arguments(), Cause.BAD_PROGRAM),
            (function_row(abs), Cause.BAD_PROGRAM),
            (function_row(abs) + encode_row(p.Arguments(), b"\xff"), Cause.BAD_ARGUMENTS),
            (function_row(abs) + encode_row(p.Arguments(3), b"\xff"), Cause.BAD_PROGRAM),
        ],
    )
    async def test_call_fails_clearly_when_its_program_is_damaged(
        self, tmp_path: Path, program: bytes, cause: Cause
    ) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.ended(bench.start(program))
            assert run.how == (FAILED, cause)
            assert run.end.text

    async def test_map_has_one_outcome_per_item_when_some_raise(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.map(lambda n: 10 // n, [(1,), (2,), (0,), (5,)])
            assert run.how == DONE
            rows = run.rows()
            assert [row for row, _ in rows[:2]] == [p.Values(100, 2), p.Values(103, 1)]
            assert [cloudpickle.loads(data) for _, data in rows[:2]] == [[10, 5], [2]]
            failed = rows[2][0]
            assert isinstance(failed, p.ItemFailed)
            assert (failed.index, failed.type) == (102, "ZeroDivisionError")
            assert isinstance(cloudpickle.loads(rows[2][1]), ZeroDivisionError)

    async def test_map_fails_only_the_items_whose_values_do_not_pickle(
        self, tmp_path: Path
    ) -> None:
        def work(n: int) -> Any:
            return (i for i in ()) if n in (1, 6) else n

        async with self.bench(tmp_path) as bench:
            rows = (await bench.map(work, [(n,) for n in range(8)])).rows()
            values = {
                row.first + at: value
                for row, data in rows
                if isinstance(row, p.Values)
                for at, value in enumerate(cloudpickle.loads(data))
            }
            failed = [row for row, _ in rows if isinstance(row, p.ItemFailed)]
            assert values == {100 + n: n for n in (0, 2, 3, 4, 5, 7)}
            assert [row.index for row in failed] == [101, 106]
            assert {row.cause for row in failed} == {Cause.UNPICKLABLE_RESULT}
            assert "generator" in failed[0].text

    async def test_bundle_brings_modules_and_another_one_replaces_them(
        self, tmp_path: Path
    ) -> None:
        def work() -> int:
            import beside

            found: int = beside.answer()
            return found

        async with self.bench(tmp_path) as bench:
            one = bench.bundle(beside="def answer(): return 1")
            two = bench.bundle(beside="def answer(): return 2")
            assert await bench.value(work, bundle=one) == 1
            assert await bench.value(work, bundle=two) == 2
            run = await bench.call(work)
            assert run.failure().type == "ModuleNotFoundError"

    async def test_large_program_and_result_go_through_files(self, tmp_path: Path) -> None:
        data = os.urandom(3 * MIB)
        async with self.bench(tmp_path) as bench:
            program = tmp_path / "program"
            program.write_bytes(call(lambda value: value[::-1], data))
            run = await bench.ended(bench.start(program))
            assert isinstance(run.end.result, Path)
            assert run.value() == data[::-1]
            assert program.exists()

    async def test_result_of_buffers_comes_back_whole(self, tmp_path: Path) -> None:
        def work() -> list[Any]:
            import pickle

            return [pickle.PickleBuffer(bytearray(b"x" * 100_000)) for _ in range(3)]

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert [row for row, _ in run.rows()] == [p.Value(3), *[p.Buffer()] * 3]
            assert [bytes(part) for part in run.value()] == [b"x" * 100_000] * 3


class ProgramContract(BackendBench):
    """Sources and commands."""

    async def test_source_runs_main_with_its_arguments(self, tmp_path: Path) -> None:
        text = """
import math
def main(a, b=2):
    return math.prod((a, b))
if __name__ == "__main__":
    raise AssertionError("not as a script")
"""
        async with self.bench(tmp_path) as bench:
            assert (await bench.source(text, 21)).value() == 42

    async def test_source_returns_instances_of_its_own_classes(self, tmp_path: Path) -> None:
        text = "class Point:\n    x = 5\ndef main(): return Point()"
        async with self.bench(tmp_path) as bench:
            assert (await bench.source(text)).value().x == 5

    @pytest.mark.parametrize(
        ("text", "cause", "said"),
        [
            ("x = 1", Cause.BAD_PROGRAM, "bad program format: job.py has no function main"),
            ("main = 3", Cause.BAD_PROGRAM, "bad program format"),
            ("def f():\n  return (", Cause.BAD_PROGRAM, "job.py, line 2"),
            ("\0", Cause.BAD_PROGRAM, "bad program format"),
            ("import no_such_module\ndef main(): 0", Cause.MISSING_FILE, "no_such_module"),
            ("raise ValueError('at the top')\ndef main(): 0", Cause.EXCEPTION, "at the top"),
            ("def main():\n  raise KeyError('k')", Cause.EXCEPTION, "KeyError"),
        ],
    )
    async def test_source_fails_clearly_when_it_is_no_program(
        self, tmp_path: Path, text: str, cause: Cause, said: str
    ) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.source(text)
            assert run.how == (FAILED, cause)
            assert said in run.end.text

    async def test_source_failure_shows_its_lines(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.source("def main():\n    return {}['gone']  # here")
            assert "return {}['gone']  # here" in run.failure().traceback

    async def test_command_gets_files_and_leaves_files(self, tmp_path: Path) -> None:
        script = b"#!/bin/sh\ncat in/data.txt > copy.txt; mkdir deep; echo $WORD > deep/word.txt"
        async with self.bench(tmp_path) as bench:
            run = await bench.command(
                ["./run.sh"],
                [("run.sh", script, True), ("in/data.txt", b"data", False)],
                ["copy.txt", "**/*.txt", "none-*"],
                ["WORD=hello"],
            )
            assert run.how == DONE
            files = {row.path: data for row, data in run.rows()}  # type: ignore[attr-defined]
            assert files == {
                "copy.txt": b"data", "in/data.txt": b"data", "deep/word.txt": b"hello\n",
            }  # fmt: skip
            assert not run.task.folder.exists() or await _vanishes(run.task.folder)

    @pytest.mark.parametrize(
        ("argv", "cause", "said"),
        [
            (["sh", "-c", "exit 3"], Cause.EXIT_STATUS, "status 3"),
            (["sh", "-c", "kill -SEGV $$"], Cause.CRASH, "SIGSEGV (signal 11)"),
            (["no-such-program"], Cause.MISSING_FILE, "'no-such-program' is not on this node"),
            ([""], Cause.BAD_PROGRAM, "empty"),
        ],
    )
    async def test_command_fails_clearly_when_it_does_not_end_well(
        self, tmp_path: Path, argv: list[str], cause: Cause, said: str
    ) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.command(argv)
            assert run.how == (FAILED, cause)
            assert said in run.end.text
            assert run.end.exit_status == {"status 3": 3, "SIGSEGV (signal 11)": 267}.get(said, 0)

    @pytest.mark.parametrize("path", ["../out", "/tmp/out", "a/../../out", "a//b", ".", "x\0y"])
    async def test_command_refuses_paths_that_leave_its_folder(
        self, tmp_path: Path, path: str
    ) -> None:
        async with self.bench(tmp_path) as bench:
            written = await bench.command(["true"], [(path, b"data", False)])
            kept = await bench.command(["true"], (), [path])
            assert written.how == kept.how == (FAILED, Cause.BAD_PROGRAM)
            assert "relative path" in written.end.text

    @pytest.mark.parametrize(
        "trick",
        [
            "ln -s /etc/passwd out",
            "mkfifo out",
            "echo x > a; ln a out",
            "ln -s /etc out; touch -a out",
        ],
    )
    async def test_command_keeps_no_links_and_no_devices(self, tmp_path: Path, trick: str) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.command(["sh", "-c", trick], (), ["out"])
            assert run.how == (FAILED, Cause.MISSING_FILE)
            assert "only regular files" in run.end.text

    async def test_command_keeps_nothing_behind_a_linked_folder(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.command(["sh", "-c", "ln -s /etc sub"], (), ["sub/passwd"])
            assert run.how == (FAILED, Cause.MISSING_FILE)
            assert run.rows()[0][1] == b""

    async def test_command_names_an_output_that_is_missing(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.command(["true"], (), ["report.txt"])
            assert run.how == (FAILED, Cause.MISSING_FILE)
            assert "'report.txt'" in run.end.text


class OutputContract(BackendBench):
    """Standard output and error."""

    async def test_output_is_seen_while_the_job_runs(self, tmp_path: Path) -> None:
        def work() -> None:
            import time

            print("now", time.time())
            time.sleep(30)

        async with self.bench(tmp_path) as bench:
            await bench.value(abs, 1)  # a worker is warm
            run = bench.start_call(work)
            begun = asyncio.get_running_loop().time()
            assert (await bench.line(run)).startswith("now")
            assert run.output[0][0] - begun < 0.5
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)

    async def test_output_of_a_started_python_is_seen_at_once_too(self, tmp_path: Path) -> None:
        def work() -> None:
            import subprocess
            import sys

            code = "import time; print('child'); time.sleep(30)"
            subprocess.run([sys.executable, "-c", code], check=True)

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(work)
            assert await bench.line(run) == "child"
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)

    async def test_output_comes_whole_and_in_order_before_the_end(self, tmp_path: Path) -> None:
        def work(count: int) -> None:
            import os
            import subprocess
            import sys

            for n in range(count):
                print("line", n)
                if n % 1000 == 0:
                    os.write(2, b"raw %d\n" % n)
            subprocess.run(["sh", "-c", "echo from the shell; echo error >&2"], check=True)
            sys.stdout.write("no newline")

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work, 20_000)
            expected = "".join(f"line {n}\n" for n in range(20_000))
            assert run.written(1) == expected + "from the shell\nno newline"
            assert (
                run.written(2) == "".join(f"raw {n}\n" for n in range(0, 20_000, 1000)) + "error\n"
            )

    async def test_output_of_a_job_stays_its_own(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            runs = [await bench.call(lambda n=n: print("job", n)) for n in range(5)]
            assert [run.written() for run in runs] == [f"job {n}\n" for n in range(5)]

    async def test_endless_output_ends_with_cancel(self, tmp_path: Path) -> None:
        def work() -> None:
            while True:
                print("x" * 1000)

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(work)
            await bench.until(lambda: len(run.output) > 200)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert await bench.value(lambda: "goes on") == "goes on"


class LimitContract(BackendBench):
    """Limits, and what is metered."""

    async def test_memory_over_its_limit_ends_the_job(self, tmp_path: Path) -> None:
        def work() -> None:
            import time

            hog = bytearray(300 << 20)
            time.sleep(30)
            del hog

        async with self.bench(tmp_path) as bench:
            if bench.backend.limits.get("memory", "none") == "none":
                pytest.skip("the back end enforces no memory limit")
            run = await bench.call(work, memory_bytes=150 << 20)
            assert run.how == (LIMIT, Cause.MEMORY)
            assert "memory" in run.end.text
            assert run.end.usage.peak_memory_bytes > 150 << 20
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_memory_of_started_processes_counts(self, tmp_path: Path) -> None:
        def work() -> None:
            import subprocess
            import sys

            code = "hog = bytearray(300 << 20); import time; time.sleep(30)"
            subprocess.run([sys.executable, "-c", code], check=False)

        async with self.bench(tmp_path) as bench:
            if bench.backend.limits.get("memory", "none") == "none":
                pytest.skip("the back end enforces no memory limit")
            run = await bench.call(work, memory_bytes=150 << 20)
            assert run.how == (LIMIT, Cause.MEMORY)
            assert run.end.ended >= 2

    async def test_result_over_its_limit_ends_as_limit(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: b"x" * 100_000, result_bytes=50_000)
            assert run.how == (LIMIT, Cause.OUTPUT)
            assert "50000" in run.end.text
            assert run.end.result == b""

    async def test_usage_says_what_was_used(self, tmp_path: Path) -> None:
        def work() -> int:
            import time

            hog = bytearray(64 << 20)
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
            return len(hog)

        async with self.bench(tmp_path) as bench:
            await bench.value(work)
            small = (await bench.call(abs, 1)).end.usage
            usage = (await bench.call(work)).end.usage
            assert 300 <= usage.cpu_ms < 2000
            assert usage.wall_ms >= 300
            assert 64 << 20 < usage.peak_memory_bytes < 200 << 20
            assert small.cpu_ms < 100
            assert small.peak_memory_bytes < 64 << 20


class KillContract(BackendBench):
    """Kill means dead."""

    async def test_cancel_ends_all_that_double_forked_and_ignores_signals(
        self, tmp_path: Path
    ) -> None:
        token = f"3600.{uuid.uuid4().int}"

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(_escape, token)
            mark = await bench.line(run)
            assert len(marked(mark)) >= 3
            assert len(named(token)) == 2
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert (marked(mark), named(token)) == ([], [])
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert (run.end.ended, run.end.left) == (5, 0)
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_cancel_ends_a_process_that_keeps_forking(self, tmp_path: Path) -> None:
        def work() -> None:
            import os
            import time

            print(os.environ["ALPYNE_JOB_MARK"])
            for _ in range(4):
                if os.fork() == 0:
                    while True:  # each one forks its successor and ends
                        if os.fork():
                            os._exit(0)
            time.sleep(30)

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(work)
            mark = await bench.line(run)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert marked(mark) == []
            assert run.end.left == 0

    async def test_cancel_ends_a_command(self, tmp_path: Path) -> None:
        token = f"3600.{uuid.uuid4().int}"
        async with self.bench(tmp_path) as bench:
            run = bench.start_command(["sh", "-c", f"trap '' TERM; echo up; sleep {token}; :"])
            assert await bench.line(run) == "up"
            assert run.task.folder.exists()
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert named(token) == []
            assert run.end.ended >= 2
            while run.task.folder.exists():
                await asyncio.sleep(0.01)

    async def test_cancel_ends_a_job_before_it_began(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = bench.start_call(print, "never")
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert run.output == []

    async def test_cancel_does_nothing_when_the_job_has_ended(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(abs, -1)
            bench.backend.cancel(run.task.execution)
            assert await bench.value(abs, -2) == 2
            assert run.how == DONE

    async def test_cancel_twice_ends_the_job_once(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = bench.start_call(_sleep)
            await bench.line(run)
            bench.backend.cancel(run.task.execution)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert await bench.value(abs, -2) == 2
            assert len(run.ends) == 1

    async def test_job_leaves_no_process_behind_when_it_returns(self, tmp_path: Path) -> None:
        def work(token: str) -> str:
            import os
            import subprocess

            subprocess.Popen(
                ["setsid", "sh", "-c", f"trap '' TERM HUP; sleep {token} & sleep {token}"]
            )
            while len(os.popen(f"pgrep -f 'sleep {token}'").read().split()) < 3:
                pass
            return os.environ["ALPYNE_JOB_MARK"]

        token = f"3600.{uuid.uuid4().int}"
        async with self.bench(tmp_path) as bench:
            run = await bench.call(work, token)
            assert (marked(run.value()), named(token)) == ([], [])
            assert run.how == DONE
            assert run.end.ended >= 2
            assert run.end.left == 0

    async def test_job_that_waited_for_its_processes_has_none_ended(self, tmp_path: Path) -> None:
        def work() -> None:
            import subprocess

            subprocess.run(["true"], check=True)
            subprocess.Popen(["true"]).wait()

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert (run.end.ended, run.end.left) == (0, 0)

    async def test_job_that_forks_and_returns_twice_ends_once(self, tmp_path: Path) -> None:
        def work() -> int:
            import os

            return os.fork()

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert run.value() > 0
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_close_ends_running_and_waiting_jobs(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            running = bench.start_call(_sleep)
            mark = await bench.line(running)
            waiting = bench.start_call(_sleep)
            await bench.backend.close()
            assert running.end.state is JobState.KILLED
            assert waiting.end.state is JobState.KILLED
            assert marked(mark) == []


class IsolationContract(BackendBench):
    """What one job sees of another, and of the daemon."""

    async def test_accounts_never_share_a_worker(self, tmp_path: Path) -> None:
        def work() -> tuple[int, list[str]]:
            import os
            import sys

            seen: list[str] = sys.__dict__.setdefault("seen_by", [])
            seen.append("job")
            return os.getpid(), list(seen)

        async with self.bench(tmp_path) as bench:
            alice = await bench.value(work)
            bob = await bench.value(work, account=BOB)
            again = await bench.value(work)
            assert bob[1] == ["job"]
            assert again == (alice[0], ["job", "job"])

    async def test_job_finds_a_fresh_interpreter_when_another_changed_it(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            before = await bench.value(_state)
            assert await bench.value(_mess_up) == before["pid"]
            assert await bench.value(_state) == before
            run = await bench.call(print, "printed")
            assert run.written() == "printed\n"

    async def test_job_that_leaves_a_thread_gets_its_worker_replaced(self, tmp_path: Path) -> None:
        def work() -> int:
            import os
            import threading
            import time

            threading.Thread(target=lambda: time.sleep(30), daemon=True).start()
            return os.getpid()

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert run.how == DONE
            assert is_dead(run.value())
            assert run.end.ended == 0
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_job_sees_no_secret_of_the_daemon(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def work() -> tuple[dict[str, str], list[str]]:
            import os

            links = []
            for name in os.listdir("/proc/self/fd"):
                try:
                    links.append(os.readlink(f"/proc/self/fd/{name}"))
                except OSError:
                    continue
            return dict(os.environ), links

        monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
        with (tmp_path / "secret").open("w") as secret:
            os.set_inheritable(secret.fileno(), True)
            async with self.bench(tmp_path) as bench:
                environment, links = await bench.value(work)
        assert "DATABASE_PASSWORD" not in environment
        assert not [link for link in links if "secret" in link]
        assert len([link for link in links if link.startswith("socket:")]) <= 1

    async def test_worker_loads_no_cryptography_no_compression_and_no_event_loop(
        self, tmp_path: Path
    ) -> None:
        def work() -> list[str]:
            import sys

            unwanted = {"cryptography", "zstandard", "asyncio", "ssl", "socket", "alpyne_grid"}
            return sorted(unwanted & set(sys.modules))

        async with self.bench(tmp_path) as bench:
            assert await bench.value(work) == []

    async def test_job_starts_in_an_empty_folder(self, tmp_path: Path) -> None:
        def work() -> list[str]:
            import os
            from pathlib import Path

            found = os.listdir()
            Path("deep/er").mkdir(parents=True)
            Path("deep/er/file").write_text("left")
            Path("link").symlink_to("/etc")
            return found

        async with self.bench(tmp_path) as bench:
            assert [await bench.value(work) for _ in range(3)] == [[]] * 3


class ObjectContract(BackendBench):
    """Objects, which a worker reaches through its daemon only."""

    def _object(self, objects: Objects, path: str, data: bytes) -> JobObject:
        import hashlib

        objects.contents[path] = data
        digest = hashlib.sha256(data).digest()
        return JobObject(b"c" * 16, path, 1, b"w" * 16, len(data), digest, tuple(objects.serving))

    async def test_job_reads_an_object_whole_in_parts_and_as_a_file(self, tmp_path: Path) -> None:
        def work(item: JobObject) -> tuple[bytes, bytes, list[str]]:
            with item.open_text() as file:
                return item.read(), item.read(2, 3), file.read().split()

        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "a.txt", b"one two")
            assert await bench.value(work, item) == (b"one two", b"e t", ["one", "two"])

    async def test_job_reads_an_object_larger_than_one_piece(self, tmp_path: Path) -> None:
        def work(item: JobObject) -> tuple[int, int, bool]:
            pieces = list(item.stream())
            return len(pieces), sum(map(len, pieces)), b"".join(pieces) == item.read()

        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "large", os.urandom(9 * MIB))
            run = await bench.call(work, item)
            assert run.value() == (3, 9 * MIB, True)
            assert run.end.usage.read_bytes > 9 * MIB

    async def test_job_passes_over_a_holder_that_sends_damaged_bytes(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            objects = bench.room.objects
            item = self._object(objects, "a", b"good bytes")
            objects.damaged[objects.serving[0]] = b"evil bytes"
            assert await bench.value(lambda o: o.read(), item) == b"good bytes"
            assert objects.asked[-1].avoid == (objects.serving[0],)  # type: ignore[attr-defined]

    async def test_job_gets_no_damaged_bytes_when_all_holders_have_them(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            objects = bench.room.objects
            item = self._object(objects, "a", b"good bytes")
            objects.damaged = dict.fromkeys(objects.serving, b"evil bytes")
            run = await bench.call(lambda o: o.read(), item)
            assert run.failure().type == "OSError"

    async def test_job_gets_file_not_found_when_an_object_is_missing(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "a", b"data")
            bench.room.objects.contents.clear()
            run = await bench.call(lambda o: o.read(), item)
            assert run.failure().type == "FileNotFoundError"
            assert "no object a" in run.end.text
            assert isinstance(cloudpickle.loads(run.rows()[0][1]), FileNotFoundError)

    @pytest.mark.parametrize("codec", list(ResultCodec))
    async def test_map_into_a_container_writes_values_that_a_later_map_loads(
        self, tmp_path: Path, codec: ResultCodec
    ) -> None:
        async with self.bench(tmp_path) as bench:
            into = {"into": b"c" * 16, "into_prefix": "part/", "codec": codec}
            run = await bench.map(lambda n: [n] * 40_000, [(1,), (2,)], **into)
            ((_, data),) = run.rows()
            plains = cloudpickle.loads(data) if codec == 1 else plain.decode(data)
            items = [from_plain(fields) for fields in plains]
            assert [item.path for item in items] == ["part/000000100", "part/000000101"]
            assert all(item.codec == codec for item in items)
            assert run.end.usage.written_bytes == sum(item.size for item in items)
            pairs = [(items[0], items[1])]
            run = await bench.map(lambda a, b: (len(a), b[0]), pairs, load=True)
            assert cloudpickle.loads(run.rows()[0][1]) == [(40_000, 2)]

    async def test_forked_child_is_refused_objects(self, tmp_path: Path) -> None:
        def work(item: JobObject) -> str:
            import os

            reader, writer = os.pipe()
            if os.fork() == 0:
                try:
                    item.read()
                except AlpyneError as error:
                    os.write(writer, str(error).encode())
                os._exit(0)
            os.close(writer)
            os.wait()
            return os.read(reader, 1000).decode()

        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "a", b"data")
            assert "job's own process" in await bench.value(work, item)

    async def test_threads_of_a_job_read_objects_at_the_same_time(self, tmp_path: Path) -> None:
        def work(items: list[JobObject]) -> list[bytes]:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(4) as pool:
                return list(pool.map(lambda item: item.read(), items))

        async with self.bench(tmp_path) as bench:
            objects = bench.room.objects
            items = [self._object(objects, f"o{n}", b"%d" % n) for n in range(20)]
            assert await bench.value(work, items) == [b"%d" % n for n in range(20)]

    async def test_cancel_ends_a_job_that_waits_for_an_object(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "a", b"data")
            bench.room.objects.read = _never  # type: ignore[method-assign, assignment]
            run = bench.start_call(lambda o: print("reading") or o.read(), item)
            await bench.line(run)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)


class BackendContract(
    CallContract,
    ProgramContract,
    OutputContract,
    LimitContract,
    KillContract,
    IsolationContract,
    ObjectContract,
):
    """The whole contract."""


def _escape(token: str) -> None:
    """Leave processes that do not want to die: in other sessions, orphaned, without the mark."""
    import os
    import signal
    import time

    def deaf() -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    deaf()
    for clean in (False, True):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            deaf()
            environment = {} if clean else dict(os.environ)
            if os.fork() == 0:
                os.execve("/bin/sleep", ["sleep", token], environment)
            time.sleep(3600)
    os.wait()
    os.wait()
    while True:
        found = [p for p in os.listdir("/proc") if p.isdigit() and _is_sleep(p, token)]
        if len(found) == 2:
            break
    print(os.environ["ALPYNE_JOB_MARK"])
    time.sleep(3600)


def _is_sleep(pid: str, token: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return token.encode() in file.read()
    except OSError:
        return False


def _sleep() -> None:
    import os
    import time

    print(os.environ["ALPYNE_JOB_MARK"])
    time.sleep(3600)


def _state() -> dict[str, Any]:
    """Return what a job can change in its interpreter."""
    import gc
    import os
    import signal
    import sys

    mask = os.umask(0)
    os.umask(mask)
    return {
        "pid": os.getpid(),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "argv": list(sys.argv),
        "umask": mask,
        "handlers": [str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGALRM)],
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "recursion": sys.getrecursionlimit(),
        "streams": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
        "hooks": [repr(hook) for hook in sys.meta_path],
        "tracing": [repr(sys.gettrace()), repr(sys.getprofile())],
        "collecting": gc.isenabled(),
        "main": sorted(vars(sys.modules["__main__"])),
    }


def _mess_up() -> int:
    """Change all of it."""
    import gc
    import io
    import os
    import signal
    import sys

    os.environ.clear()
    os.environ["LEFT"] = "behind"
    os.chdir("/")
    os.umask(0o777)
    sys.path[:] = ["/nowhere"]
    sys.argv[:] = ["other"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 100)
    sys.setrecursionlimit(5000)
    os.close(1)
    os.open("/dev/null", os.O_WRONLY)
    sys.stdout.close()
    sys.stdout = io.StringIO()
    sys.stderr = None  # type: ignore[assignment]
    sys.meta_path.insert(0, type("Hook", (), {"find_spec": staticmethod(lambda *_: None)})())
    sys.settrace(lambda *_: None)
    gc.disable()
    vars(sys.modules["__main__"])["left"] = "behind"
    return os.getpid()


async def _never(*_: object) -> Any:
    await asyncio.Event().wait()


async def _vanishes(path: Path) -> bool:
    """Wait for a folder to be removed, which follows the job's end."""
    for _ in range(100):
        if not path.exists():
            return True
        await asyncio.sleep(0.02)
    return False


__all__ = ["ALICE", "BackendBench", "BackendContract", "JobForm", "Run", "wait_gone"]
