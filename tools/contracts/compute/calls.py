"""Calls and maps: values, failures, codecs."""

import os
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from alpyne_grid.nodes.compute.backends.base import LIMIT_NAMES
from alpyne_grid.tools.contracts.compute.bench import BackendBench, arguments, call, function_row
from alpyne_grid.tools.contracts.compute.recorder import DONE, FAILED

from alpyne_proto import plain
from alpyne_proto.codec import encode_row
from alpyne_proto.messages import program as p
from alpyne_proto.messages.compute import Cause, ResultCodec

MIB = 1 << 20


class CallContract(BackendBench):
    """Calls and maps: values, failures, codecs."""

    async def test_backend_says_what_it_is(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            assert bench.backend.name
            assert bench.backend.level in (0, 1, 2)
            assert set(bench.backend.limits) <= set(LIMIT_NAMES)
            assert bench.backend.pythons
            assert bench.backend.suspends in ("none", "signals", "kernel")
            assert isinstance(bench.backend.images, tuple)
            assert isinstance(bench.backend.networks, tuple)

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
            run = await bench.call(lambda: (n for n in range(3)))
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
            run = await bench.call(lambda: {1: 2}[0], codec=ResultCodec.PLAIN)
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
            return (i for i in range(3)) if n in (1, 6) else n

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
            import beside  # type: ignore[import-not-found]

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
