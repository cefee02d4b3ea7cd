"""Command: a command as a function, for maps and reductions over it.

    for lines in grid.map(Command(["wc", "-l"]), corpus.glob("*.txt")):
        ...

What travels is the command and the functions here that run it, by value: a worker lacks this
package.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
from alpyne_grid.manager.errors import ProgramError

from alpyne_proto.container import check_path


class Command:
    """A command, to be given where a map or reduce takes a function.

    ``argv``: the program and its first words. Each argument of a call becomes one more word: text
    and numbers as they are; bytes and JobObjects as the name of a file that holds them. The value
    of a call is what the command wrote to its standard output, in bytes; with ``outputs`` (patterns
    of files in its folder) it is those files, name -> content. A status other than 0 raises
    ``subprocess.CalledProcessError``; as the predicate of ``filter``, it means no.
    ``environment``: variables to add. Raises ProgramError for an empty ``argv``.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        outputs: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(argv, str) or not argv:
            raise ProgramError(f"Command: expected a list of a program and its words, got {argv!r}")
        for pattern in outputs:
            check_path(pattern)
        self._argv = tuple(map(str, argv))
        self._outputs = tuple(outputs)
        self._environment = dict(environment or {})
        self._asks_status = False
        self.__name__ = self.__qualname__ = Path(self._argv[0]).name

    def __repr__(self) -> str:
        return f"Command({list(self._argv)!r})"

    def __call__(self, *args: Any) -> Any:
        """Run the command here."""
        return self._partial()(*args)

    def __reduce__(self) -> Any:
        return self._partial().__reduce__()

    def predicate(self) -> "Command":
        """Return the command as a question: whether it ends with status 0."""
        asked = Command(self._argv, environment=self._environment)
        asked._asks_status = True
        return asked

    def _partial(self) -> "partial[Any]":
        return partial(
            _run_command, self._argv, self._outputs, self._environment, self._asks_status
        )


def _run_command(
    argv: tuple[str, ...],
    outputs: tuple[str, ...],
    environment: dict[str, str],
    asks_status: bool,
    /,
    *args: Any,
) -> Any:
    """Run a command in an empty folder below the job's own."""
    import os
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory(prefix="command-", dir=os.getcwd()) as folder:
        words = [*argv, *(_word(folder, at, value) for at, value in enumerate(args))]
        done = subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
        if asks_status:
            return done.returncode == 0
        done.check_returncode()
        return _files(folder, outputs) if outputs else done.stdout


def _word(folder: str, at: int, value: Any) -> str:
    """Return the word for an argument; what is bytes is written to a file first."""
    import os
    import shutil

    from alpyne_proto.jobobject import JobObject

    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        name = f"part-{at}"
        with open(os.path.join(folder, name), "wb") as file:
            file.write(value)
        return name
    if isinstance(value, JobObject):
        name = f"{at}/{value.path.rpartition('/')[2]}"
        os.mkdir(os.path.join(folder, str(at)))
        with value.open() as source, open(os.path.join(folder, name), "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        return name
    raise TypeError(
        f"a command takes text, numbers, bytes and objects of a container, got "
        f"{type(value).__name__}; turn it into one of these first"
    )


def _files(folder: str, outputs: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files below ``folder`` that match; links lead outside, and are left out."""
    from pathlib import Path

    base = Path(folder).resolve()
    found: dict[str, bytes] = {}
    for pattern in outputs:
        for path in sorted(base.glob(pattern)):
            if path.is_file() and path.resolve() == path:
                found[path.relative_to(base).as_posix()] = path.read_bytes()
    return found


cloudpickle.register_pickle_by_value(sys.modules[__name__])
