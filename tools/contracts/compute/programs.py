"""Sources and commands."""

from pathlib import Path

import pytest
from alpyne_grid.tools.contracts.compute.bench import BackendBench, vanishes
from alpyne_grid.tools.contracts.compute.recorder import DONE, FAILED

from alpyne_proto.messages.compute import Cause


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
            assert await vanishes(run.task.folder)

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
            "ln -s /etc out; touch -a out || :",
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
