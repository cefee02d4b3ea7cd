"""Failures as they are told: bounded, in valid UTF-8, without the runtime's own frames."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from alpyne_grid.nodes.compute.worker import failures
from alpyne_grid.nodes.compute.worker.exits import describe_exit, signal_name
from alpyne_grid.nodes.compute.worker.failures import ProgramFailed, clip
from alpyne_grid.nodes.compute.worker.values import pickle_exception

from alpyne_proto.codec import encode_row
from alpyne_proto.messages.job_terms import Cause


@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize("text", ["short", "x" * 100, "é" * 60, "\U0001f600" * 30, "\ud800" * 40])
def test_text_is_cut_at_a_whole_character(text: str, keep_end: bool) -> None:
    cut = clip(text, 50, keep_end=keep_end)
    assert len(cut.encode()) <= 50
    assert ("..." in cut) == (len(text.encode("utf-8", "backslashreplace")) > 50)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unpicklable(Exception):
    def __reduce__(self) -> str:
        raise SystemExit(3)


def raised_by(error: BaseException, depth: int = 0) -> BaseException:
    """An exception that was raised, below some calls."""
    try:
        if depth:
            raise raised_by(error, depth - 1)
        raise error
    except (Exception, SystemExit) as caught:  # noqa: BLE001
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 10_000),
        ValueError("\ud800 \0 \n lines"),
        Mute(),
        Unpicklable("no"),
        ExceptionGroup("many", [ValueError(str(n)) for n in range(100)]),
        type("T" * 500, (Exception,), {})(),
        ProgramFailed(Cause.BAD_PROGRAM, "x" * 5000),
        SystemExit("x" * 5000),
    ],
    ids=lambda error: type(error).__name__[:20],
)
def test_any_exception_fits_into_its_row(error: BaseException) -> None:
    raised = raised_by(error)
    row, payload = failures.failure_row(raised, pickle_exception)
    assert encode_row(row, payload)
    assert encode_row(*failures.item_failed_row(3, raised, pickle_exception))
    line = failures.line_of(raised)
    assert "\n" not in line
    assert len(line.encode()) <= 1024


def test_traceback_keeps_its_end_when_it_is_long() -> None:
    def recurse(n: int) -> int:
        return recurse(n - 1) if n else 1 // 0

    with pytest.raises(ZeroDivisionError) as caught:
        recurse(300)
    text = failures.traceback_of(caught.value)
    assert text.endswith("ZeroDivisionError: integer division or modulo by zero\n")
    assert len(text.encode()) <= 4096


def test_traceback_survives_a_chain_that_bites_its_tail() -> None:
    one, two = raised_by(ValueError("one")), raised_by(ValueError("two"))
    one.__cause__, two.__cause__ = two, one
    assert "ValueError: one" in failures.traceback_of(one)


def test_exit_is_described_in_words() -> None:
    assert signal_name(9) == "SIGKILL (signal 9)"
    assert signal_name(99) == "signal 99"
    assert "status 3" in describe_exit(3)
    assert "SIGABRT (signal 6)" in describe_exit(256 + 6)
    assert "out of memory" in describe_exit(256 + 9)


def chained(errno_: int) -> BaseException:
    """What a program raises that was refused a write, and hid it."""
    try:
        try:
            raise OSError(errno_, os.strerror(errno_))
        except OSError:
            raise RuntimeError("cannot save") from None
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (chained(errno.ENOSPC), True),
        (ProgramFailed(Cause.BAD_ARGUMENTS, "no", OSError(errno.ENOSPC, "full")), True),
        (OSError(errno.EACCES, "denied"), False),
        (chained(errno.EACCES), False),
        (ValueError("x"), False),
    ],
)
def test_full_disk_is_found_behind_what_was_raised(
    error: BaseException, expected: bool, tmp_path: Path
) -> None:
    assert failures.is_out_of_disk(error, str(tmp_path)) is expected


@pytest.mark.parametrize(
    ("free", "expected"),
    [((0, 10, 5), True), ((7, 10, 0), True), ((7, 10, 5), False), ((7, 0, 0), False)],
)
def test_full_disk_is_found_by_what_is_free(
    monkeypatch: pytest.MonkeyPatch, free: tuple[int, int, int], expected: bool
) -> None:
    blocks, files, free_files = free
    room = SimpleNamespace(f_bavail=blocks, f_files=files, f_favail=free_files)
    monkeypatch.setattr(failures.os, "statvfs", lambda folder: room)
    error = ProgramFailed(Cause.EXIT_STATUS, "sh ended with status 1")
    assert failures.is_out_of_disk(error, "/scratch") is expected


def test_exceptions_that_follow_from_each_other_in_a_circle_are_looked_at_once() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    assert not failures.is_out_of_disk(one, "/nowhere/at/all")
