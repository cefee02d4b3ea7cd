"""The form COMMAND: argv in an empty folder, input files, output patterns."""

import glob
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from alpyne_proto.messages.job_terms import Cause
from alpyne_proto.messages.program import CommandLine, InputFile, OutputFile
from alpyne_proto.registry import Message

from .exits import SIGNALLED, signal_name
from .failures import ProgramFailed
from .program import expect
from .removal import remove_tree
from .values import Body

FILES_MAX = 10_000  # that one command may leave for its patterns
READ_SIZE = 1 << 20
_WILD = "*?["
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def run_command(
    source: Iterator[tuple[Message, memoryview]], name: str, mark: dict[str, str]
) -> Body:
    """Run a command in the folder ``name``, which is made here, and return its OutputFile rows.

    ``mark``: variables that the environment of every process of a job carries.
    Raises ProgramFailed: BAD_PROGRAM for paths that leave the folder, MISSING_FILE for a program
    or an output that is not there, EXIT_STATUS or CRASH for any status but 0.
    """
    row, _ = expect(source, CommandLine)
    if not row.argv or not row.argv[0]:
        raise ProgramFailed(Cause.BAD_PROGRAM, "the command is empty: expected a program to run")
    for pattern in row.outputs:
        _check_path(pattern, "output pattern")
    folder = Path(name)
    folder.mkdir(mode=0o700, parents=True)
    for file, payload in source:
        if not isinstance(file, InputFile):
            raise ProgramFailed(
                Cause.BAD_PROGRAM, f"a command: expected InputFile, got {type(file).__name__}"
            )
        _write_input(folder, file, payload)
    _check_status(row.argv[0], _run(row, folder, mark))
    return _outputs(folder, row.outputs)


def remove_folder(name: str) -> None:
    """Remove the folder of a command that has ended."""
    remove_tree(name)


def _check_path(path: str, what: str) -> None:
    """Refuse what is no plain relative path below the folder."""
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ProgramFailed(
            Cause.BAD_PROGRAM,
            f"{what} {path!r:.200}: expected a relative path without empty, `.` or `..` segments",
        )


def _write_input(folder: Path, file: InputFile, payload: memoryview) -> None:
    _check_path(file.path, "input file")
    target = folder / file.path
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(target, flags, 0o700 if file.executable else 0o600), "wb") as handle:
            handle.write(payload)
    except OSError as error:
        raise ProgramFailed(
            Cause.BAD_PROGRAM, f"input file {file.path!r:.200}: {error.strerror}", error
        ) from None


def _run(row: CommandLine, folder: Path, mark: dict[str, str]) -> int:
    given = dict(pair.split("=", 1) for pair in row.environment if "=" in pair)
    environment = {**os.environ, **given, **mark}
    try:
        return subprocess.run(
            row.argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=False
        ).returncode
    except FileNotFoundError:
        raise ProgramFailed(
            Cause.MISSING_FILE,
            f"program {row.argv[0]!r:.200} is not on this node; install it there, or send it as an "
            "executable input file and call it ./NAME",
        ) from None
    except PermissionError:
        raise ProgramFailed(
            Cause.MISSING_FILE,
            f"program {row.argv[0]!r:.200} may not be executed here; send it as executable",
        ) from None
    except (OSError, ValueError) as error:
        raise ProgramFailed(Cause.BAD_PROGRAM, f"the command cannot be run: {error}") from None


def _check_status(program: str, code: int) -> None:
    if code < 0:
        text = f"{program:.200} was ended by {signal_name(-code)}"
        raise ProgramFailed(Cause.CRASH, text, status=SIGNALLED - code)
    if code:
        text = f"{program:.200} ended with status {code}"
        raise ProgramFailed(Cause.EXIT_STATUS, text, status=code)


def _outputs(folder: Path, patterns: tuple[str, ...]) -> Body:
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = sorted(glob.glob(pattern, root_dir=folder, recursive=True, include_hidden=True))
        if not matches and not any(sign in pattern for sign in _WILD):
            raise ProgramFailed(
                Cause.MISSING_FILE, f"the command left no file {pattern!r:.200} in its folder"
            )
        found.update(dict.fromkeys(matches))
    if len(found) > FILES_MAX:
        raise ProgramFailed(
            Cause.OUTPUT, f"the command left {len(found)} files, at most {FILES_MAX}"
        )
    body = Body()
    for path in found:
        _add_output(body, folder, path)
    return body


def _add_output(body: Body, folder: Path, path: str) -> None:
    descriptor = _open_below(folder, path)
    about = os.fstat(descriptor)
    if stat.S_ISDIR(about.st_mode):
        os.close(descriptor)
        return
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        os.close(descriptor)
        raise _refused(path)
    row = OutputFile(path=path, executable=bool(about.st_mode & stat.S_IXUSR))
    os.close(descriptor)
    body.add_streamed(row, _content(folder, path, about.st_size), about.st_size)


def _content(folder: Path, path: str, size: int) -> Iterator[bytes]:
    """Read exactly ``size`` bytes; what is short by now is filled up, the row's length stands."""
    with open(_open_below(folder, path), "rb", buffering=0) as file:
        left = size
        while left:
            data = file.read(min(left, READ_SIZE)) or bytes(min(left, READ_SIZE))
            left -= len(data)
            yield data


def _open_below(folder: Path, path: str) -> int:
    """Open a file by its segments, none of which may be a symbolic link; never block on a FIFO."""
    parts = PurePosixPath(path).parts
    at = os.open(folder, os.O_DIRECTORY | _NO_FOLLOW)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_DIRECTORY | _NO_FOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(parts[-1], _NO_FOLLOW | os.O_NONBLOCK, dir_fd=at)
    except OSError:
        raise _refused(path) from None
    finally:
        os.close(at)


def _refused(path: str) -> ProgramFailed:
    return ProgramFailed(
        Cause.MISSING_FILE,
        f"output {path!r:.200} is a link, a device or something else; only regular files with one "
        "name, reached without symbolic links, are kept",
    )
