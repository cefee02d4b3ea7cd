"""What went wrong in a program, as it is told to its manager."""

import errno
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from alpyne_proto.messages.job_terms import Cause
from alpyne_proto.messages.program import Failure, ItemFailed

TYPE_MAX, TEXT_MAX, TRACEBACK_MAX, LINE_MAX = 200, 2048, 4096, 1024  # bytes, as in the messages
EXCEPTION_MAX = 256 * 1024  # bytes of a pickled exception; a larger one comes as text only
FRAMES_MAX = 30  # of the traceback; deep recursion repeats itself
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__))


class ProgramFailed(Exception):
    """The program cannot go on: the cause, a text for people, and what was raised, if anything.

    ``status``: of a command, 256 + n after signal n.
    """

    def __init__(
        self, cause: Cause, text: str, raised: BaseException | None = None, *, status: int = 0
    ) -> None:
        super().__init__(text)
        self.status = status
        self.cause = cause
        self.text = text
        self.raised = raised


def clip(text: str, most: int, *, keep_end: bool = False) -> str:
    """Return ``text`` as valid UTF-8 of at most ``most`` bytes; it is cut with an ellipsis."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return data.decode()
    mark = "..."
    part = data[-(most - len(mark)) :] if keep_end else data[: most - len(mark)]
    kept = part.decode("utf-8", "ignore")
    return mark + kept if keep_end else kept + mark


def cause_of(raised: BaseException) -> Cause:
    """Return the cause under which an exception of the program is reported."""
    if isinstance(raised, ProgramFailed):
        return raised.cause
    return Cause.CRASH if isinstance(raised, SystemExit) else Cause.EXCEPTION


def is_out_of_disk(raised: BaseException, folder: str) -> bool:
    """Say whether a failure came from a full disk.

    That is so where a write was refused for it, even if the program then raised something else, and
    where nothing is free in ``folder`` now: a command only tells that it failed.
    """
    for one in _chain(raised):
        if isinstance(one, OSError) and one.errno in _NO_ROOM:
            return True
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail == 0 or (room.f_files > 0 and room.f_favail == 0)


def _chain(raised: BaseException) -> list[BaseException]:
    """Return an exception and all that it followed from, each once."""
    found: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [raised]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in found:
            found[id(one)] = one
            waiting += (one.__cause__, one.__context__, getattr(one, "raised", None))
    return list(found.values())


def line_of(raised: BaseException) -> str:
    """Return a failure in one line of at most 1024 bytes."""
    if isinstance(raised, ProgramFailed):
        return clip(raised.text, LINE_MAX)
    if isinstance(raised, SystemExit):
        return clip(f"the program called sys.exit({_repr(raised.code)})", LINE_MAX)
    text = " ".join(_text(raised).split())
    return clip(f"{type_name(raised)}: {text}" if text else type_name(raised), LINE_MAX)


def failure_row(raised: BaseException, pickle: Callable[[Any], bytes] | None) -> tuple[Any, bytes]:
    """Return the Failure of an exception and its payload (see ``_pickled``)."""
    return Failure(cause=cause_of(raised), **_fields(raised)), _pickled(raised, pickle)


def item_failed_row(
    index: int, raised: BaseException, pickle: Callable[[Any], bytes] | None
) -> tuple[Any, bytes]:
    """Return the ItemFailed of an exception and its payload."""
    row = ItemFailed(index=index, cause=cause_of(raised), **_fields(raised))
    return row, _pickled(raised, pickle)


def type_name(value: object) -> str:
    """Return the full name of a value's type, without ``builtins``."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name.removeprefix("builtins.").removeprefix("__main__.")


def _fields(raised: BaseException) -> dict[str, str]:
    shown = raised.raised if isinstance(raised, ProgramFailed) else raised
    text = raised.text if isinstance(raised, ProgramFailed) else _text(raised)
    if isinstance(raised, SystemExit):
        text = line_of(raised)
    return {
        "type": clip(type_name(shown), TYPE_MAX) if shown is not None else "",
        "text": clip(text, TEXT_MAX),
        "traceback": traceback_of(shown) if shown is not None else "",
    }


def _text(raised: BaseException) -> str:
    try:
        return str(raised)
    except Exception as error:
        return f"(its text cannot be shown: {type(error).__name__})"


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return type(value).__name__


def traceback_of(raised: BaseException) -> str:
    """Return the traceback without the runtime's own frames; the end of it where it is long."""
    import traceback  # only a failing program pays for it

    _trim(raised, set())
    try:
        lines = traceback.format_exception(raised, limit=-FRAMES_MAX)
    except Exception as error:  # an exception class may break its own formatting
        return f"{type_name(raised)} (its traceback cannot be shown: {type(error).__name__})"
    return clip("".join(lines), TRACEBACK_MAX, keep_end=True)


def _trim(raised: BaseException, seen: set[int]) -> None:
    """Drop the runtime's frames from the head of each traceback in the chain."""
    if id(raised) in seen:
        return
    seen.add(id(raised))
    raised.__traceback__ = _first_foreign(raised.__traceback__)
    for other in (raised.__cause__, raised.__context__):
        if other is not None:
            _trim(other, seen)


def _first_foreign(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None:
        folder = os.path.dirname(trace.tb_frame.f_code.co_filename)
        if folder != _OWN_FOLDER and os.path.basename(folder) != "cloudpickle":
            return trace
        trace = trace.tb_next
    return None


def _pickled(raised: BaseException, pickle: Callable[[Any], bytes] | None) -> bytes:
    """Return the pickled exception; empty where it does not pickle, or not back again."""
    shown = raised.raised if isinstance(raised, ProgramFailed) else raised
    if pickle is None or shown is None or isinstance(shown, SystemExit):
        return b""
    limit = sys.getrecursionlimit()
    try:
        data = pickle(shown)
    except BaseException:  # its own __reduce__ may raise anything
        return b""
    finally:
        sys.setrecursionlimit(limit)
    return data if len(data) <= EXCEPTION_MAX else b""
