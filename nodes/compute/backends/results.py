"""A result on its way from a worker: in memory while small, in a file from there on."""

import os
from pathlib import Path
from struct import Struct

from alpyne_proto import limits
from alpyne_proto.errors import FrameError

_OFFSET = Struct(">Q")


class ResultTooLarge(Exception):
    """The result is over its limit; the worker should have said so itself."""


class ResultFile:
    """The DATA frames of one body, in order, into a new file."""

    def __init__(self, path: Path, most: int) -> None:
        """``most``: bytes; ``path`` must not exist. OSError where it cannot be made."""
        self.path = path
        self._open = True
        self._most = most
        self._size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    def take(self, payload: bytes | memoryview) -> None:
        """Append the bytes of a DATA frame's payload.

        Raises FrameError for bytes at another offset, ResultTooLarge, OSError from the disk.
        """
        view = memoryview(payload)
        if len(view) < limits.DATA_OFFSET or _OFFSET.unpack_from(view)[0] != self._size:
            raise FrameError(f"worker: expected DATA at offset {self._size}")
        data = view[limits.DATA_OFFSET :]
        self._size += len(data)
        if self._size > self._most:
            raise ResultTooLarge
        while data:
            data = data[os.write(self._descriptor, data) :]

    def finish(self) -> Path:
        """Close the file and return its path; it belongs to the caller now."""
        self._close()
        return self.path

    def discard(self) -> None:
        """Close and remove the file."""
        self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)
