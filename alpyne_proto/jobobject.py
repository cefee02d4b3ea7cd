"""JobObject: one version of an object, as a job (or the manager) sees it.

A job that is mapped over objects gets these instead of bytes. A JobObject names the exact version
and the data nodes that hold it; the bytes are fetched when it is read, through the reader that the
runtime installs: in a worker the daemon's object service, in a manager its connections.

A *value object* holds a value that a job left on the data nodes (``into=``): the rows ``Value``
(payload: the value, pickled or plain as ``codec`` says) and its ``Buffer`` rows, exactly as in the
result of a CALL. A MAP with ``into`` returns, for each item, ``as_plain()`` of the object that it
wrote under ``into_path(prefix, index)``, with either codec; the manager rebuilds it by
``from_plain``.
"""

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from alpyne_proto.errors import LocalProtocolError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PICKLED = 1  # as ResultCodec.PICKLE; a plain number, so that a worker loads no more than it needs
OPEN_BUFFER = 1 << 20  # bytes fetched at once by a file that reads in small pieces
TO_THE_END = (1 << 64) - 1

Plain = tuple[bytes, str, int, bytes, int, bytes, tuple[bytes, ...], int]


class ObjectReader(Protocol):
    """Fetches the bytes of objects; each process has one, and a manager one per grid."""

    def read(self, item: "JobObject", offset: int, length: int) -> bytes:
        """Return at most ``length`` bytes from ``offset``; fewer only at the object's end."""
        ...

    def stream(self, item: "JobObject") -> Iterator[bytes]:
        """Yield the whole object in pieces, checked against its SHA-256 at the end."""
        ...

    def value(self, item: "JobObject") -> Any:
        """Return the value that the value object ``item`` holds, decoded by its codec."""
        ...


_installed: ObjectReader | None = None


def install_reader(reader: ObjectReader | None) -> None:
    """Make ``reader`` the one of all JobObjects here that carry none of their own."""
    global _installed  # noqa: PLW0603 - one process runs one worker runtime
    _installed = reader


@dataclass(frozen=True, slots=True)
class JobObject:
    """One version of an object on the data nodes.

    ``path``: its path in the container. ``size``: bytes. ``sha256``: 32 bytes, of the content.
    ``container_id``, ``counter``, ``writer``: container and exact version. ``holders``: static keys
    of the data nodes that hold it. ``codec``: how a value object is encoded (ResultCodec number).
    """

    container_id: bytes
    path: str
    counter: int
    writer: bytes
    size: int
    sha256: bytes
    holders: tuple[bytes, ...] = ()
    codec: int = PICKLED
    reader: ObjectReader | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<object {self.path!r}, {self.size} bytes>"

    @property
    def name(self) -> str:
        """The last segment of ``path``."""
        return self.path.rpartition("/")[2]

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes from ``offset``, by default all.

        A read of the whole object is checked against its SHA-256. Where a holder is lost or has
        damaged bytes, the next one is read. Raises what the runtime's reader raises when none can
        serve the version.
        """
        if offset == 0 and length is None:
            return b"".join(self._reader().stream(self))
        return self._reader().read(self, offset, TO_THE_END if length is None else length)

    def stream(self) -> Iterator[bytes]:
        """Yield the whole object in pieces; its SHA-256 is checked at the end."""
        return self._reader().stream(self)

    def text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the whole object decoded as text."""
        return self.read().decode(encoding, errors)

    def open(self) -> io.BufferedReader:
        """Return a seekable binary file that fetches what is read; nothing is held in whole."""
        return io.BufferedReader(_ObjectFile(self), OPEN_BUFFER)

    def open_text(self, encoding: str = "utf-8", errors: str = "strict") -> TextIO:
        """Return a text file that fetches what is read."""
        return io.TextIOWrapper(self.open(), encoding, errors)

    def value(self) -> Any:
        """Return the value that this value object holds (written by a map or reduce ``into``)."""
        return self._reader().value(self)

    def as_plain(self) -> Plain:
        """Return the fields as a tuple of plain values, for results of either codec."""
        return (
            self.container_id,
            self.path,
            self.counter,
            self.writer,
            self.size,
            self.sha256,
            self.holders,
            self.codec,
        )

    def _reader(self) -> ObjectReader:
        reader = self.reader or _installed
        if reader is None:
            raise LocalProtocolError(
                f"object {self.path!r}: nothing here can fetch objects; read it inside a job, "
                "or take it from a container of a connected manager"
            )
        return reader

    def __reduce__(self) -> tuple[Callable[..., "JobObject"], Plain]:
        return JobObject, self.as_plain()


def from_plain(plain: Sequence[Any], reader: ObjectReader | None = None) -> JobObject:
    """Return the JobObject of ``as_plain()``'s tuple (or list); LocalProtocolError for others."""
    kinds: tuple[Any, ...] = (bytes, str, int, bytes, int, bytes, (tuple, list), int)
    fits = len(plain) == len(kinds) and all(
        isinstance(part, kind) for part, kind in zip(plain, kinds, strict=True)
    )
    if not fits or not all(type(key) is bytes for key in plain[6]):
        raise LocalProtocolError("a job's object reference does not have the fields of a JobObject")
    container_id, path, counter, writer, size, sha256, holders, codec = plain
    return JobObject(
        container_id, path, counter, writer, size, sha256, tuple(holders), codec, reader
    )


def into_path(prefix: str, index: int) -> str:
    """Return the path of the value object of item ``index`` in a map ``into`` a container."""
    return f"{prefix}{index:09d}"


def loaded(part: Any) -> Any:
    """Return ``part``, or the value that it holds where it is a value object."""
    return part.value() if isinstance(part, JobObject) else part


def fold(function: Callable[[Any, Any], Any], parts: Sequence[Any]) -> Any:
    """Combine ``parts`` from left to right; value objects are loaded one at a time.

    It is what a reduce runs on the nodes; it stands here because a worker has this package.
    """
    return functools.reduce(
        lambda left, right: function(left, loaded(right)), parts[1:], loaded(parts[0])
    )


class _ObjectFile(io.RawIOBase):
    """A file over range reads; BufferedReader makes them large."""

    def __init__(self, item: JobObject) -> None:
        self._item = item
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._item.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._item.size - self._at)
        if length <= 0:
            return 0
        data = self._item.read(self._at, length)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
