"""Runs a page as its reader would: one shell, an empty home, the page's commands in their order."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from docs_pages import Command, File, Page

TIMEOUT_S = 60.0
# What the reader has on his path, beside the system's own.
_TOOLS = {
    "python": 'exec "{python}" "$@"',
    "alpyne": 'exec "{python}" -P -m alpyne_grid "$@"',
    # The keys and the pool that `docs/tutorial.md` leaves its reader with.
    "tutorial-pool": 'mkdir -p ~/.config && cp -r "{pool}" ~/.config/alpyne',
    # Between the machines of a page, which are folders here.
    "scp": (
        'for place do\ncase "$place" in *:*) place="{machines}/${{place%%:*}}/${{place#*:}}"\n'
        "esac\n"
        'set -- "$@" "$place"; shift; done; exec cp -r "$@"'
    ),
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of one command."""

    command: Command
    output: str
    status: int | None  # None: the page did not get so far

    def problem(self) -> str:
        """Return what is wrong, or ""."""
        where = f"line {self.command.line}: {self.command.text}"
        if self.status is None:
            return f"{where}\n  was not reached"
        if self.status != self.command.status:
            return (
                f"{where}\n  ended with {self.status}, expected {self.command.status}; "
                f"it printed:\n{self.output}"
            )
        if self.command.output and not fits(self.command.output, self.output):
            return f"{where}\n  should print:\n{self.command.output}\n  printed:\n{self.output}"
        return ""


def fits(wanted: str, printed: str) -> bool:
    """Say whether ``printed`` is what a page shows; "..." there is anything, blanks are alike."""
    parts = [re.escape(" ".join(part.split())) for part in wanted.split("...")]
    pattern = ".*".join(parts).replace(r"\ ", " ")
    return re.fullmatch(rf"\s*{pattern}\s*", " ".join(printed.split()), re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class Site:
    """What pages take as given beside the commands on their reader's path.

    ``pool``: an ALPYNE_HOME with a pool of the nodes worker, disk-1 and disk-2. ``words``: words of
    pages and what stands for them here. ``variables``: more of the environment.
    """

    pool: Path = Path("/none")
    words: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def run_page(page: Page, folder: Path, site: Site = Site()) -> list[Ran]:
    """Run a page with all its state below ``folder``; nothing it started is left."""
    machines = folder / "machines"
    for machine in ("you", *page.machines):
        (machines / machine).mkdir(parents=True)
    script = folder / "page.sh"
    script.write_text(_script(page, machines, folder, site.words))
    with open(folder / "shell.log", "wb") as log:
        shell = subprocess.Popen(
            ["bash", str(script)],
            env=_environment(folder, machines, site),
            cwd=machines / "you",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(TIMEOUT_S)
        finally:
            _end(shell)
    commands = [step for step in page.steps if isinstance(step, Command)]
    return [_ran(folder, number, command) for number, command in enumerate(commands)]


def _end(shell: "subprocess.Popen[bytes]") -> None:
    """End whatever the page's session still holds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()


def _environment(folder: Path, machines: Path, site: Site) -> dict[str, str]:
    tools = folder / "tools"
    tools.mkdir()
    for name, text in _TOOLS.items():
        tool = tools / name
        text = text.format(python=sys.executable, machines=machines, pool=site.pool)
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ALPYNE")}
    kept.pop("XDG_STATE_HOME", None)
    kept["ALPYNE_DOCS_ROOT"] = str(Path(__file__).resolve().parents[2])
    path = f"{tools}:{os.environ['PATH']}"
    return {**kept, "HOME": str(machines / "you"), "PATH": path, **site.variables}


def _script(page: Page, machines: Path, folder: Path, words: Mapping[str, str]) -> str:
    """Return the shell script of a page: its files and commands, in order."""
    parts = [f"export PYTHONUNBUFFERED=1\nEND() {{ kill $(jobs -p) 2>/dev/null; wait; }}\n{_AT}"]
    # Any of 127.0.0.0/8 is this machine; pages that run side by side do not meet.
    addresses = {f"{machine}.example.org": _loopback() for machine in page.machines}
    number = 0
    for step in page.steps:
        if isinstance(step, File):
            parts.append(
                f"AT '{machines}/you'\ncat > '{step.name}' <<'END OF FILE'\n{step.text}END OF FILE"
            )
        elif isinstance(step, Command):
            text = step.text
            for word, meant in {**addresses, **words}.items():
                text = text.replace(word, meant)
            place = machines / (step.machine or "you")
            parts.append(
                f"AT '{place}'\n{{\n{text}\n}} >'{folder}/{number}.out' 2>&1\n"
                f"status=$?; echo $status >'{folder}/{number}.status'\n"
                f"[ $status = {step.status} ] || {{ END; exit 1; }}"
            )
            number += 1
    return "\n".join([*parts, "END\n"])


# Each machine has a home and, for its user, a current folder of its own.
_AT = """declare -A WERE_IN
AT() {
    if [ "$HOME" != "$1" ]; then
        WERE_IN[$HOME]=$PWD
        export HOME=$1
        cd "${WERE_IN[$HOME]:-$1}"
    fi
}"""


def _loopback() -> str:
    return ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(3))])


def _ran(folder: Path, number: int, command: Command) -> Ran:
    status = folder / f"{number}.status"
    output = folder / f"{number}.out"
    return Ran(
        command,
        output.read_text(errors="replace") if output.exists() else "",
        int(status.read_text()) if status.exists() else None,
    )
