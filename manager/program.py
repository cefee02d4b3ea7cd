"""Programs: what a job's payload holds (rows of alpyne_proto.messages.program).

Functions, arguments and items are pickled by cloudpickle: what is defined in ``__main__``, in a
notebook or in a module that nodes cannot have goes by value, the rest by reference. Large buffers
(arrays, bytes views) travel out of band (pickle protocol 5). While pickling, the JobObjects that a
job refers to are noted: they decide its tickets and where it is placed.
"""

import io
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import FunctionType
from typing import Any

import cloudpickle
from alpyne_grid.manager.bundle import send_by_value
from alpyne_grid.manager.errors import ProgramError

from alpyne_proto import limits
from alpyne_proto.codec import encode, encode_row, join_row
from alpyne_proto.container import check_path
from alpyne_proto.errors import AlpyneError, LocalProtocolError
from alpyne_proto.jobobject import JobObject
from alpyne_proto.messages import program as rows
from alpyne_proto.messages.compute import JobForm

BUFFER_MIN = 32 * 1024  # smaller buffers stay in the pickle
_PLAIN = frozenset({bool, bytes, float, int, str, type(None)})
_NO_BUFFERS = encode(rows.Arguments(0))
_NAMED_ROWS_MAX = 256
_named_rows: dict[tuple[str, str], bytes] = {}  # by module and name
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(slots=True)
class Program:
    """A job's program, ready to be sent.

    ``payload``: its rows. ``python``: the version that it needs, or "". ``objects``: the objects
    that it refers to. ``kind``: names what it runs; jobs of a kind take about as long.
    """

    form: JobForm
    payload: bytes
    kind: str
    python: str = ""
    objects: list[JobObject] = field(default_factory=list)
    into: bytes = b""  # container that it writes its values to
    first: int = 0  # of a MAP: index of its first item
    items: int = 0


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Notes JobObjects, and hands the rest to cloudpickle."""

    def __init__(self, file: io.BytesIO, found: list[JobObject], buffers: list[Any] | None):
        callback = None if buffers is None else _taking_large(buffers)
        super().__init__(file, protocol=5, buffer_callback=callback)
        self._found = found

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is JobObject:
            self._found.append(obj)
            return obj.__reduce__()
        return super().reducer_override(obj)


def _taking_large(buffers: list[Any]) -> Callable[[pickle.PickleBuffer], bool]:
    def take(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if len(raw) < BUFFER_MIN:
                return True  # in band
        buffers.append(buffer)
        return False

    return take


def dump(value: Any, found: list[JobObject], buffers: list[Any] | None, what: str) -> bytes:
    """Pickle ``value``; add its JobObjects to ``found`` and its large buffers to ``buffers``.

    ``buffers`` None: they stay in the pickle. ``what``: names the value in the error. Raises
    ProgramError for what cannot be pickled.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, found, buffers).dump(value)
    except AlpyneError:
        raise
    except Exception as error:
        raise ProgramError(
            f"{what} cannot be sent: {type(error).__name__}: {error}; a job takes what pickles: no "
            "open files, sockets, locks, running generators, or a Manager"
        ) from error
    return file.getvalue()


def _rows_with_buffers(row: Any, pickled: bytes, buffers: Sequence[Any]) -> list[bytes]:
    try:
        parts = [encode_row(row, pickled)]
        parts += [encode_row(rows.Buffer(), buffer.raw()) for buffer in buffers]
    except LocalProtocolError as error:
        raise ProgramError(
            f"{error}; put large data into a container and pass its object"
        ) from None
    return parts


def _finish(parts: Iterable[bytes], name: str) -> bytes:
    payload = b"".join(parts)
    if len(payload) > limits.BLOB_MAX:
        raise ProgramError(
            f"{name}: {len(payload)} bytes of program, at most {limits.BLOB_MAX}; put large data "
            "into a container and pass its object"
        )
    return payload


def name_of(function: Callable[..., Any]) -> str:
    """Return a function's name for lists, at most 120 characters."""
    inner = getattr(function, "func", None)  # functools.partial
    named = inner if callable(inner) and not hasattr(function, "__qualname__") else function
    name = getattr(named, "__qualname__", None) or type(named).__name__
    return str(name)[:120]


def function_row(function: Callable[..., Any], found: list[JobObject]) -> bytes:
    """Return the Function row of ``function``; the objects that it refers to go into ``found``."""
    if not callable(function):
        raise ProgramError(f"expected a function to run, got {type(function).__name__}")
    send_by_value(getattr(function, "__module__", None))
    row = _named_row(function)
    if row is None:
        pickled = dump(function, found, None, f"function {name_of(function)}")
        row = _rows_with_buffers(rows.Function(), pickled, ())[0]
    return row


def _named_row(function: Callable[..., Any]) -> bytes | None:
    """Return the row of a function that workers import by its name, None for any other.

    cloudpickle would make the same bytes in ten times the time; they say no more than the name.
    """
    module = getattr(function, "__module__", None)
    if type(function) is not FunctionType or module in (None, "__main__"):
        return None
    by_value = cloudpickle.list_registry_pickle_by_value()
    if by_value and not by_value.isdisjoint(accumulate(module.split("."), "{}.{}".format)):
        return None
    name = function.__qualname__
    row = _named_rows.get((module, name))
    if row is not None and getattr(sys.modules.get(module), name, None) is function:
        return row
    try:
        pickled = pickle.dumps(function, 5)
    except (pickle.PicklingError, AttributeError, ImportError):
        return None  # made within another function, or hidden behind a decorated one
    if len(_named_rows) >= _NAMED_ROWS_MAX:
        _named_rows.clear()
    row = _named_rows[module, name] = _rows_with_buffers(rows.Function(), pickled, ())[0]
    return row


def call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Program:
    """Return the program of one call. Raises ProgramError."""
    found: list[JobObject] = []
    name = name_of(function)
    parts = [function_row(function, found), *_arguments(args, kwargs, found, name)]
    return Program(JobForm.CALL, _finish(parts, name), name, PYTHON, found)


def _arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], found: list[JobObject], name: str
) -> list[bytes]:
    buffers: list[Any] = []
    values = (args, dict(kwargs))
    if _PLAIN.issuperset(map(type, (*args, *kwargs.values()))):
        pickled = pickle.dumps(values, 5)  # no object to note, and no class to send along
    else:
        pickled = dump(values, found, buffers, f"the arguments of {name}")
    if not buffers and len(pickled) <= rows.Arguments.SPEC.payload_max:
        return [join_row(_NO_BUFFERS, pickled)]
    return _rows_with_buffers(rows.Arguments(len(buffers)), pickled, buffers)


def chunk(
    function: bytes,
    objects: Sequence[JobObject],
    items: Sequence[tuple[Any, ...]],
    *,
    name: str,
    first: int,
    into: bytes = b"",
    into_prefix: str = "",
    copies: int = 0,
    load: bool = False,
) -> Program:
    """Return the program of a map's chunk.

    ``function``, ``objects``: of ``function_row``, which a map makes once. ``items``: argument
    tuples. ``first``: index of the first in its map. ``into``, ``into_prefix``, ``copies``: where
    values go, instead of coming back. ``load``: value objects among the arguments are loaded first.
    """
    found = list(objects)
    buffers: list[Any] = []
    pickled = dump(list(items), found, buffers, f"items {first} to {first + len(items) - 1}")
    row = rows.Items(first, len(items), len(buffers), into, into_prefix, load, copies)
    parts = [function, *_rows_with_buffers(row, pickled, buffers)]
    program = Program(JobForm.MAP, _finish(parts, name), name, PYTHON, found)
    program.into, program.first, program.items = into, first, len(items)
    return program


def source(
    file: str | Path, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> Program:
    """Return the program of a .py file, whose ``main`` is called with the arguments."""
    path = Path(file)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read ({error.strerror})") from None
    found: list[JobObject] = []
    head = _rows_with_buffers(rows.SourceFile(path.name), text, ())
    parts = [*head, *_arguments(args, kwargs or {}, found, path.name)]
    return Program(JobForm.SOURCE, _finish(parts, path.name), path.name, objects=found)


def command(
    argv: Sequence[str],
    *,
    inputs: Mapping[str, str | Path | bytes] | Iterable[str | Path] = (),
    outputs: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Program:
    """Return the program of a command, run in an empty folder with its input files.

    ``inputs``: files, which keep their names, or name in the folder -> file or content.
    ``outputs``: patterns of the files to bring back. ``environment``: added to a bare one.
    """
    if not argv:
        raise ProgramError("command: expected a program and its arguments, got none")
    settings = tuple(f"{name}={value}" for name, value in (environment or {}).items())
    line = rows.CommandLine(tuple(map(str, argv)), settings, tuple(outputs))
    parts = _rows_with_buffers(line, b"", ())
    for name, content in _named_files(inputs):
        parts += _rows_with_buffers(rows.InputFile(name, content[1]), content[0], ())
    kind = Path(argv[0]).name[:120]
    return Program(JobForm.COMMAND, _finish(parts, kind), kind)


def _named_files(
    inputs: Mapping[str, str | Path | bytes] | Iterable[str | Path],
) -> Iterator[tuple[str, tuple[bytes, bool]]]:
    named: Mapping[str, str | Path | bytes]
    named = inputs if isinstance(inputs, Mapping) else {Path(file).name: file for file in inputs}
    for name, given in named.items():
        check_path(name)
        if isinstance(given, bytes):
            yield name, (given, False)
            continue
        try:
            yield name, (Path(given).read_bytes(), os.access(given, os.X_OK))
        except OSError as error:
            raise ProgramError(f"input {given}: cannot be read ({error.strerror})") from None


def value_rows(value: Any) -> bytes:
    """Return the rows of a value object (see alpyne_proto.jobobject) that holds ``value``."""
    buffers: list[Any] = []
    pickled = dump(value, [], buffers, f"the value, {type(value).__name__},")
    return b"".join(_rows_with_buffers(rows.Value(len(buffers)), pickled, buffers))
