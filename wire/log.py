"""Structured logging on the standard library's: an event's name, and key=value pairs.

JSON, one object per line, unless the stream is a terminal. A value never shows a key, a payload or
raw bytes of a peer: bytes up to 16 (ids) are written as hex, longer ones only as their number, text
is cut and stripped of control characters, and of an exception only its type and place are written,
with its text where that text is our own or the operating system's.
"""

import asyncio
import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

from alpyne_proto.errors import AlpyneError

_ROOT = "alpyne"
_ID_MAX = 16  # bytes; longer ones may be keys or payloads
_TEXT_MAX = 300  # characters of one value
_FIELDS = "alpyne_fields"


class Log:
    """Writes events under one logger's name, with the ids that were bound to it once."""

    __slots__ = ("_bound", "_logger")

    def __init__(self, name: str, /, **bound: object) -> None:
        """name: below "alpyne", for instance "wire.server"; bound: pairs of every event."""
        self._logger = logging.getLogger(f"{_ROOT}.{name}")
        self._bound = bound

    def bind(self, **more: object) -> "Log":
        """Return a log that writes `more` with each event too."""
        log = Log.__new__(Log)
        log._logger = self._logger
        log._bound = {**self._bound, **more}
        return log

    def debug(self, event: str, **pairs: object) -> None:
        """Write an event that only its developer needs."""
        self._write(logging.DEBUG, event, pairs)

    def info(self, event: str, **pairs: object) -> None:
        """Write an event of normal work."""
        self._write(logging.INFO, event, pairs)

    def warning(self, event: str, **pairs: object) -> None:
        """Write an event that an operator should know of; the daemon copes."""
        self._write(logging.WARNING, event, pairs)

    def error(self, event: str, **pairs: object) -> None:
        """Write an event that needs an operator."""
        self._write(logging.ERROR, event, pairs)

    def _write(self, level: int, event: str, pairs: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            shown = {key: _plain(value) for key, value in {**self._bound, **pairs}.items()}
            self._logger.log(level, event, extra={_FIELDS: shown})


def configure(
    stream: TextIO | None = None, *, level: str = "INFO", as_json: bool | None = None
) -> None:
    """Send all events to one stream; called once, by main.

    stream: default standard error. level: a name that logging knows. as_json: None decides by
    whether the stream is a terminal.
    """
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    wants_json = not target.isatty() if as_json is None else as_json
    handler.setFormatter(_JsonLines() if wants_json else _TerminalLines())
    logger = logging.getLogger(_ROOT)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


def log_loop_errors(loop: asyncio.AbstractEventLoop, log: Log) -> None:
    """Have the event loop report what nobody caught as one event, without a traceback."""

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        place = place_of(error) if isinstance(error, BaseException) else ""
        log.error("uncaught", what=context.get("message", ""), error=error, at=place)

    loop.set_exception_handler(report)


def place_of(error: BaseException) -> str:
    """Return where an exception was raised, innermost first, at most three frames, in one line."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(
        f"{frame.filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{frame.lineno}"
        for frame in reversed(frames)
    )


def _plain(value: object) -> Any:
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    if isinstance(value, BaseException):
        return _describe(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex() if len(value) <= _ID_MAX else f"({len(value)} bytes)"
    text = value if isinstance(value, str) else str(value)
    text = "".join(char if char.isprintable() else "?" for char in text[: _TEXT_MAX + 1])
    return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "..."


def _describe(error: BaseException) -> Any:
    name = type(error).__name__
    if isinstance(error, (AlpyneError, OSError)) and str(error):
        return _plain(f"{name}: {error}")
    return name  # the text of any other exception may quote what a peer sent


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        return json.dumps(line, default=str)


class _TerminalLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        pairs = " ".join(f"{k}={_quoted(v)}" for k, v in getattr(record, _FIELDS, {}).items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock} {record.levelname.lower():7} {record.getMessage()} {pairs}".rstrip()


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and not set(text) & set(' "=') else json.dumps(text)


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
