"""docs/cli.md as a person reads it: each command of its session, typed in its order, works."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from alpyne_grid.tools.spec.__main__ import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PAGE = ROOT / "docs" / "cli.md"
FENCE = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 150
STOP_S = 10


def shown() -> tuple[str, list[str]]:
    """Return the program that the page shows, and its commands."""
    blocks = FENCE.findall(PAGE.read_text(encoding="utf-8"))
    [program] = [text for kind, text in blocks if kind == "python"]
    lines = [line for kind, text in blocks if kind == "console" for line in text.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return program, [line.removeprefix("$ ") for line in lines]


PROGRAM, COMMANDS = shown()


@dataclass(frozen=True)
class Typed:
    """What one command did."""

    exit_code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Typed]]:
    """Type the whole session into one shell, and return what each command did."""
    folder = tmp_path_factory.mktemp("session")
    kept = tmp_path_factory.mktemp("kept")
    (folder / "squares.py").write_text(PROGRAM)
    (kept / "alpyne").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m alpyne_grid "$@"\n')
    (kept / "alpyne").chmod(0o755)
    lines = [
        f"{{ {command}\n}} >{kept}/{at}.out 2>{kept}/{at}.err\necho $? >{kept}/{at}.code"
        for at, command in enumerate(COMMANDS)
    ]
    environment = {**os.environ, "ALPYNE_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{kept}:{environment['PATH']}"
    (kept / "session.sh").write_text("\n".join(lines))
    shell = subprocess.Popen(
        ["bash", str(kept / "session.sh")],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a process group of its own, which its nodes belong to
    )
    try:
        shell.wait(TIMEOUT_S)
        yield {command: read(kept, at) for at, command in enumerate(COMMANDS)}
    finally:
        end_group(shell)


def read(folder: Path, at: int) -> Typed:
    out, err, code = ((folder / f"{at}.{name}").read_text() for name in ("out", "err", "code"))
    return Typed(int(code), out, err)


def end_group(shell: "subprocess.Popen[bytes]") -> None:
    """End the shell and the nodes that it left in the background, and wait for all of them."""
    deadline = time.monotonic() + STOP_S
    number = signal.SIGTERM
    while True:
        try:
            os.killpg(shell.pid, number)
        except ProcessLookupError:
            return
        shell.poll()
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        else:
            number = signal.Signals(number) if number is signal.SIGKILL else signal.SIGCONT
        time.sleep(0.05)


@pytest.mark.parametrize("command", COMMANDS)
def test_page_shows_a_command_that_works(command: str, session: dict[str, Typed]) -> None:
    typed = session[command]
    assert typed.exit_code == 0, f"{typed.out}\n{typed.err}"
    assert "Traceback" not in typed.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("alpyne nodes", "worker"),
        ("alpyne nodes --long worker", "isolation"),
        ("alpyne run squares.py 1 10", "square of 10\n385\n"),
        ("alpyne run -- uname -s", "Linux"),
        ("cat lines.txt", "squares.py"),
        ("alpyne jobs --tag nightly", "nightly"),
        ('alpyne output -f "$job"', "square of 5\n"),
        ('alpyne wait "$job"', "55\n"),
        ('alpyne suspend "$slow"', "suspended\n"),
        ('alpyne resume "$slow"', "running\n"),
        ('alpyne cancel "$slow"', "killed: "),
        ("alpyne jobs --all", "killed (cancelled)"),
        ("alpyne ls", "programs"),
        ("alpyne ls programs:", "project/notes/today.txt\n"),
        ("alpyne get programs:project/notes/today.txt -", "to do\n"),
        ("alpyne accounts disk-1", "owner"),
        ("alpyne revoke friend/account.pub --pool", "revoked"),
        ("ALPYNE_HOME=laptop-home alpyne nodes", "disk-2"),
        ("alpyne device list", "laptop"),
    ],
)
def test_command_of_the_page_prints_what_it_is_for(
    command: str, said: str, session: dict[str, Typed]
) -> None:
    assert said in session[command].out
