"""Objects as jobs see them: the reader behind JobObject, and the writer of value objects.

The bytes come and go through the daemon, which holds the tickets and the connections to the data
nodes; this process has neither.
"""

import errno
from collections.abc import Iterator
from typing import Any

from alpyne_proto import jobobject, plain
from alpyne_proto.errors import ErrorCode
from alpyne_proto.jobobject import JobObject
from alpyne_proto.messages.program import Buffer, Value
from alpyne_proto.messages.worker import (
    OBJECT_PIECE,
    ObjectFollows,
    ObjectRefused,
    ObjectWritten,
    ReadObject,
    WriteObject,
)
from alpyne_proto.registry import Message

from .channel import DaemonChannel
from .program import rows
from .values import Body, load

_ERRNO = {
    ErrorCode.NOT_FOUND: errno.ENOENT,  # FileNotFoundError
    ErrorCode.NOT_PERMITTED: errno.EACCES,  # PermissionError
    ErrorCode.TICKET_INVALID: errno.EACCES,
    ErrorCode.QUOTA_EXCEEDED: errno.EDQUOT,
    ErrorCode.FENCED: errno.ESTALE,
}


class ObjectClient:
    """Reads and writes objects for the job that runs; the reader of all its JobObjects.

    All failures are OSErrors of Python itself, so that they unpickle at any manager:
    FileNotFoundError, PermissionError (no ticket covers it), else OSError.
    """

    def __init__(self, channel: DaemonChannel) -> None:
        self._channel = channel
        jobobject.install_reader(self)

    def read(self, item: JobObject, offset: int, length: int) -> bytes:
        """Return at most ``length`` bytes from ``offset``; fewer only at the object's end."""
        end = min(item.size, offset + length)
        if offset == 0 and end == item.size and end <= OBJECT_PIECE:
            return self._whole(item)
        pieces = []
        while offset < end:
            follows, data = self._piece(item, offset, end - offset)
            if not data:
                raise OSError(errno.EIO, f"it ends at byte {offset} of {follows.size}", item.path)
            pieces.append(data)
            offset += len(data)
        return b"".join(pieces)

    def stream(self, item: JobObject) -> Iterator[bytes]:
        """Yield the whole object in pieces; OSError at the end where its SHA-256 is not ``item``'s.

        An object of one piece is checked before it is yielded, and read elsewhere if damaged.
        """
        if item.size <= OBJECT_PIECE:
            yield self._whole(item)
            return
        hashed = _sha256()
        for offset in range(0, item.size, OBJECT_PIECE):
            data = self.read(item, offset, OBJECT_PIECE)
            hashed.update(data)
            yield data
        if item.sha256 and hashed.digest() != item.sha256:
            raise _damaged(item)

    def value(self, item: JobObject) -> Any:
        """Return the value in a value object: a Value row and its Buffer rows."""
        row: Value | None = None
        payloads: list[memoryview] = []
        for found, payload in rows(self.read(item, 0, item.size)):
            if not isinstance(found, Value if row is None else Buffer):
                raise _no_value(item)
            if isinstance(found, Value):
                row = found
            payloads.append(payload)
        if row is None or len(payloads) != row.buffers + 1:
            raise _no_value(item)
        if item.codec == jobobject.PICKLED:
            return load(payloads[0], payloads[1:])
        return plain.decode(payloads[0])

    def write(self, container_id: bytes, path: str, body: Body, copies: int, by: int) -> JobObject:
        """Write the rows in ``body`` as a value object with codec ``by``; return its reference.

        ``copies``: data nodes that must have it, 0 = all of the ticket's.
        """
        order = WriteObject(container_id, path, body.size, copies)
        written, _ = self._channel.ask(order, body, body.size)
        if not isinstance(written, ObjectWritten):
            raise _refused(written, path)
        return JobObject(
            container_id,
            path,
            written.counter,
            written.writer,
            written.size,
            written.sha256,
            written.holders,
            by,
        )

    def _whole(self, item: JobObject) -> bytes:
        """Return a small object, checked; holders with other bytes are passed over."""
        avoid: tuple[bytes, ...] = ()
        while True:
            follows, data = self._piece(item, 0, OBJECT_PIECE, avoid)
            digest = item.sha256 or follows.sha256
            if not digest or _sha256(data).digest() == digest:
                return data
            if not follows.holder or follows.holder in avoid:
                raise _damaged(item)
            avoid = (*avoid, follows.holder)

    def _piece(
        self, item: JobObject, offset: int, length: int, avoid: tuple[bytes, ...] = ()
    ) -> tuple[ObjectFollows, bytes]:
        order = ReadObject(
            container_id=item.container_id,
            path=item.path,
            counter=item.counter,
            writer=item.writer,
            offset=offset,
            length=min(length, OBJECT_PIECE),
            holders=item.holders,
            avoid=avoid,
        )
        follows, data = self._channel.ask(order)
        if not isinstance(follows, ObjectFollows):
            raise _refused(follows, item.path)
        return follows, data


def _sha256(data: bytes = b"") -> Any:
    import hashlib  # loads OpenSSL, which a job without objects does not need

    return hashlib.sha256(data)


def _refused(answer: Message, path: str) -> OSError:
    if not isinstance(answer, ObjectRefused):
        return OSError(errno.EPROTO, f"the node answered {type(answer).__name__}", path)
    number = _ERRNO.get(ErrorCode(answer.code), errno.EIO)
    return OSError(number, answer.text, path)


def _damaged(item: JobObject) -> OSError:
    return OSError(
        errno.EIO, "no data node has it undamaged: its SHA-256 is another one", item.path
    )


def _no_value(item: JobObject) -> ValueError:
    return ValueError(
        f"object {item.path!r} holds no value: expected what a map or reduce wrote `into` a "
        "container; use .read() for its bytes"
    )
