"""Pages of the documents as something that can be run: their blocks, and what stands before each.

A fenced block of a page is run unless an HTML comment says otherwise, so that none is left out by
accident. The comment stands directly before the block:

    <!-- file: NAME -->             the block is written to the file NAME
    <!-- exit: N -->                its last command ends with N instead of 0
    <!-- not run: REASON -->        it cannot be run here; the reason is said

A ``console`` block is commands behind a prompt, ``$ `` or the name of a machine as ``lab$ ``, with
``> `` before lines that go on; other lines are output that must appear, where ``...`` stands for
anything. A ``python`` block is a program. ``text`` and
``mermaid`` blocks are for reading and hold no prompt; one in another language is a file, or says
why it is not run. A comment

    <!-- behind the scenes
    commands
    -->

is run too, unseen by the reader: what a page takes as given. ``<!-- machines: lab -->`` names the
machines that a page speaks of: each is played by an address of this one. ``<!-- parts: docker -->``
names the parts of `./dev parts` that it needs: docker, mongodb, bubblewrap. The engine and the
images of this machine then stand for those that the page names (`test_documents.py`), and
`$DOCS_URI_FILE` is a file with the URI of a replica set.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READ_ONLY = ("text", "mermaid")
_COMMENT = re.compile(r"<!--\s*(?P<text>.*?)\s*-->", re.DOTALL)
_PROMPT = re.compile(r"(?P<machine>[a-z][a-z0-9-]*)?\$ (?P<command>.*)")
_FENCE = re.compile(r"```(?P<language>\w*)")
_DIRECTIVE = re.compile(
    r"(?P<name>file|exit|not run|machines|parts|behind the scenes)(?::\s+|\s*\n|$)"
)


class PageError(Exception):
    """A page breaks the conventions of this module."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page, the machine that it is for ("": the reader's), and what it prints."""

    text: str
    line: int
    machine: str = ""
    output: str = ""
    status: int = 0


@dataclass(frozen=True, slots=True)
class File:
    """A block that the reader saves under a name, or a program that is run."""

    name: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class NotRun:
    """A block that is not run, and why."""

    reason: str
    line: int


Step = Command | File | NotRun


@dataclass(frozen=True, slots=True)
class Page:
    """A page: what to do, in order; the machines beside the reader's, and the parts it needs."""

    path: Path
    steps: tuple[Step, ...]
    machines: tuple[str, ...]
    parts: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether anything of it is run."""
        return any(isinstance(step, Command) for step in self.steps)


def read_page(path: Path) -> Page:
    """Return the steps of a Markdown file. Raises PageError naming file and line."""
    reader = _Reader(path)
    reader.read()
    return Page(path, tuple(reader.steps), reader.machines, reader.parts)


class _Reader:
    def __init__(self, path: Path) -> None:
        self.steps: list[Step] = []
        self.machines: tuple[str, ...] = ()
        self.parts: tuple[str, ...] = ()
        self._path = path
        self._lines = path.read_text().splitlines()
        self._at = 0
        self._said: tuple[str, str] | None = None  # the directive before the next block

    def read(self) -> None:
        while self._at < len(self._lines):
            line = self._lines[self._at].strip()
            if fence := _FENCE.match(line):
                self._block(fence["language"])
            elif line.startswith("<!--"):
                self._comment()
            elif line and self._said is not None:
                raise self._error(f"{self._said[0]!r} stands before no block")
            self._at += 1

    def _error(self, text: str) -> PageError:
        return PageError(f"{self._path}:{self._at + 1}: {text}")

    def _comment(self) -> None:
        first = self._at
        while "-->" not in self._lines[self._at]:
            self._at += 1
        text = "\n".join(self._lines[first : self._at + 1]).strip()
        match = _COMMENT.fullmatch(text)
        directive = _DIRECTIVE.match(match["text"]) if match else None
        if match is None or directive is None:
            return
        name, value = directive["name"], match["text"][directive.end() :].strip()
        if not value:
            raise self._error(f"{name!r}: nothing follows it")
        if name == "behind the scenes":
            self.steps.append(Command(value, first + 1))
        elif name == "machines":
            self.machines = tuple(value.split())
        elif name == "parts":
            self.parts = tuple(value.split())
        else:
            self._said = (name, value)

    def _block(self, language: str) -> None:
        said, self._said = self._said, None
        indent = len(self._lines[self._at]) - len(self._lines[self._at].lstrip())
        first = self._at + 1
        self._at += 1
        while self._at < len(self._lines) and self._lines[self._at].strip() != "```":
            self._at += 1
        if self._at == len(self._lines):
            raise self._error(f"the block that begins on line {first} does not end")
        body = [line[indent:] for line in self._lines[first : self._at]]
        name, value = said or ("", "")
        if name == "not run":
            self.steps.append(NotRun(value, first + 1))
        elif name == "file":
            self.steps.append(File(value, "\n".join(body) + "\n", first + 1))
        elif language == "console":
            self._commands(body, first + 1, int(value) if name == "exit" else 0)
        elif language == "python":
            program = f"block-{first}.py"
            self.steps.append(File(program, "\n".join(body) + "\n", first + 1))
            status = int(value) if name == "exit" else 0
            self.steps.append(Command(f"python {program}", first + 1, status=status))
        elif language not in READ_ONLY:
            raise self._error(f"a block in {language!r} needs 'file' or 'not run' before it")
        elif any(_PROMPT.match(line) for line in body):
            raise self._error("a block to read holds a command; its language is console")

    def _commands(self, body: list[str], first: int, status: int) -> None:
        """Divide a console block; only its last command may end with ``status``."""
        found: list[Command] = []
        for number, line in enumerate(body, first):
            match = _PROMPT.match(line)
            last = found[-1] if found else None
            if match is not None:
                found.append(Command(match["command"], number, match["machine"] or ""))
            elif last is None:
                raise self._error("a console block begins with a prompt")
            elif line.startswith("> ") and not last.output:
                text = f"{last.text}\n{line[2:]}"
                found[-1] = Command(text, last.line, last.machine)
            else:
                output = f"{last.output}{line}\n"
                found[-1] = Command(last.text, last.line, last.machine, output)
        if not found:
            raise self._error("an empty console block")
        last = found[-1]
        found[-1] = Command(last.text, last.line, last.machine, last.output, status)
        self.steps += found


def pages_below(root: Path) -> Iterator[Path]:
    """Return the documents of the project that this module's conventions hold for."""
    yield root / "README.md"
    yield root / "CONTRIBUTING.md"
    yield root / "examples" / "README.md"
    yield root / "examples" / "backends" / "README.md"
    for path in sorted((root / "docs").rglob("*.md")):
        if path.name not in ("cli.md", "figures.md"):  # these have tests of their own
            yield path
