"""A job's program out of its rows, and functions kept between jobs."""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from struct import Struct
from typing import Any

from alpyne_proto import codec, limits
from alpyne_proto.errors import CodecError
from alpyne_proto.messages.job_terms import Cause
from alpyne_proto.messages.program import Arguments, Buffer, Function, Items
from alpyne_proto.registry import Message, Shape

from .failures import ProgramFailed
from .values import Piece, load

FUNCTIONS_KEPT = 64
FUNCTION_BYTES_KEPT = 32 << 20
_ROW = Struct(">HI")


def rows(body: Piece) -> Iterator[tuple[Message, memoryview]]:
    """Yield the rows of a program without copying their payloads.

    Raises ProgramFailed, cause BAD_PROGRAM, for what is no sequence of rows.
    """
    view = memoryview(body)
    at = 0
    try:
        while at < len(view):
            if len(view) - at < limits.ROW_HEADER:
                raise CodecError(f"{len(view) - at} bytes after the last whole row")
            meta_size, payload_size = _ROW.unpack_from(view, at)
            at += limits.ROW_HEADER
            end = at + meta_size + payload_size
            if end > len(view):
                raise CodecError(f"a row of {end - at} bytes in {len(view) - at}")
            yield _row(bytes(view[at : at + meta_size])), view[at + meta_size : end]
            at = end
    except CodecError as error:
        raise ProgramFailed(Cause.BAD_PROGRAM, f"the job's program is damaged: {error}") from None


@lru_cache(maxsize=256)
def _row(meta: bytes) -> Message:
    """Decode a row; most rows of most jobs have the same few bytes."""
    return codec.decode(meta, (Shape.ROW,), lenient=False)


def expect(source: Iterator[tuple[Message, memoryview]], kind: type[Message]) -> Any:
    """Return (row, payload) of the next row, which must be a ``kind``; else ProgramFailed."""
    found = next(source, None)
    if found is None or not isinstance(found[0], kind):
        got = "nothing" if found is None else type(found[0]).__name__
        raise ProgramFailed(
            Cause.BAD_PROGRAM, f"the job's program: expected {kind.__name__}, got {got}"
        )
    return found


def arguments(
    row: Arguments | Items, payload: Piece, source: Iterator[tuple[Message, memoryview]]
) -> Any:
    """Return what was pickled in ``payload`` and the Buffer rows that follow it.

    Raises ProgramFailed: MISSING_FILE where a module is not there, else BAD_ARGUMENTS.
    """
    buffers = [expect(source, Buffer)[1] for _ in range(row.buffers)]
    try:
        return load(payload, buffers)
    except ImportError as error:
        raise missing_module(error) from None
    except BaseException as error:  # unpickling runs the program's own code
        raise ProgramFailed(
            Cause.BAD_ARGUMENTS,
            f"the arguments do not unpickle here: {type(error).__name__}: {error}",
            error,
        ) from None


def missing_module(error: ImportError) -> ProgramFailed:
    """Return the failure for a module that the program names and this node does not have."""
    return ProgramFailed(
        Cause.MISSING_FILE,
        f"{error}; install it on the node, or keep it beside the main script, from where it is "
        "sent along",
        error,
    )


class Functions:
    """Functions by their pickled bytes, the last ones used kept.

    A map sends the same bytes with each chunk; what the function's module or closure holds is
    then loaded once. Another bundle means other modules, so a change of bundle empties it.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()
        self._size = 0

    def clear(self) -> None:
        """Forget all functions."""
        self._kept.clear()
        self._size = 0

    def load(self, payload: Piece) -> Callable[..., Any]:
        """Return the function; ProgramFailed, MISSING_FILE or BAD_PROGRAM, where there is none."""
        key = bytes(payload)
        function = self._kept.get(key)
        if function is not None:
            self._kept.move_to_end(key)
            return function
        function = _unpickle(key)
        self._kept[key] = function
        self._size += len(key)
        while len(self._kept) > FUNCTIONS_KEPT or self._size > FUNCTION_BYTES_KEPT:
            self._size -= len(self._kept.popitem(last=False)[0])
        return function


def _unpickle(data: bytes) -> Callable[..., Any]:
    try:
        function: Callable[..., Any] = pickle.loads(data)
    except ImportError as error:
        raise missing_module(error) from None
    except BaseException as error:  # unpickling runs the program's own code
        raise ProgramFailed(
            Cause.BAD_PROGRAM,
            f"the function does not unpickle here: {type(error).__name__}: {error}",
            error,
        ) from None
    if not callable(function):
        raise ProgramFailed(
            Cause.BAD_PROGRAM, f"expected a function, got {type(function).__name__}"
        )
    return function


def function_of(
    source: Iterator[tuple[Message, memoryview]], known: Functions
) -> Callable[..., Any]:
    """Return the program's function, which stands first in it."""
    found: Callable[..., Any] = known.load(expect(source, Function)[1])
    return found
