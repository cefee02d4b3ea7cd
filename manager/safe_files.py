"""Files that are written safely: whole or not at all, and nowhere else than where they belong.

No path leaves its folder, and no link below it is followed: each folder on the way is opened
without following links, and the file is made inside the folder that was opened, whatever its name
points to by then.
"""

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from alpyne_grid.manager.errors import UnsafePath

from alpyne_proto.container import NameRefused, check_path

_HAS_DIR_FD = os.open in os.supports_dir_fd and os.mkdir in os.supports_dir_fd
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_WINDOWS_NAMES = set('<>:"|?*\\')


class Place:
    """Where a file goes: a folder that the user named, and segments below it."""

    def __init__(self, base: Path, segments: Sequence[str]) -> None:
        self.base = base
        self.segments = list(segments)

    @classmethod
    def below(cls, base: Path, path: str) -> "Place":
        """Return the place of an object's path below ``base``; UnsafePath for one that is none."""
        return cls(base, _segments(path))

    @classmethod
    def of_file(cls, target: Path) -> "Place":
        """Return the place of a file that the user named; its folder must exist."""
        return cls(target.parent, [target.name])

    @property
    def path(self) -> Path:
        """The file, for messages."""
        return self.base.joinpath(*self.segments)

    def temporary(self) -> "Temporary":
        """Open the file's folder, made where it is missing; UnsafePath where a link is in the way.

        To be ended by ``discard``.
        """
        return Temporary(self, self._open_folder(make=True))

    def write(self, data: bytes) -> None:
        """Write a whole file; UnsafePath where a link is in the way."""
        temporary = self.temporary()
        try:
            with open(temporary.open_empty(), "wb") as file:
                file.write(data)
            temporary.publish()
        finally:
            temporary.discard()

    def digest(self) -> tuple[int, bytes] | None:
        """Return size and SHA-256 of the file that is there; None for none, and for links."""
        try:
            folder = self._open_folder(make=False)
        except (OSError, UnsafePath):
            return None
        try:
            descriptor = self._open(folder, self.segments[-1], os.O_RDONLY)
        except OSError:
            return None
        finally:
            _close(folder)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return os.fstat(descriptor).st_size, hashlib.file_digest(file, "sha256").digest()

    def _open_folder(self, *, make: bool) -> int:
        """Return a descriptor of the file's folder; -1 where the system has no such thing."""
        if not _HAS_DIR_FD:
            return self._check_folder(make=make)
        current = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for segment in self.segments[:-1]:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(segment, dir_fd=current)
                inner = self._open(current, segment, os.O_RDONLY | os.O_DIRECTORY)
                os.close(current)
                current = inner
        except OSError as error:
            os.close(current)
            raise self._unsafe(error) from None
        return current

    def _check_folder(self, *, make: bool) -> int:
        at = self.base
        for segment in self.segments[:-1]:
            at = at / segment
            if make:
                at.mkdir(exist_ok=True)
            if at.is_symlink() or not at.is_dir():
                raise self._unsafe(NotADirectoryError(0, "is a link or no folder"))
        return -1

    def _unsafe(self, error: OSError) -> UnsafePath:
        return UnsafePath(
            f"{self.path}: cannot be written below {self.base}: a link or a file is in the way "
            f"({error.strerror}); remove it, or pull into an empty folder"
        )

    def _open(self, folder: int, name: str, flags: int, mode: int = 0o600) -> int:
        flags |= _NO_FOLLOW | _BINARY
        if folder >= 0:
            return os.open(name, flags, mode, dir_fd=folder)
        return os.open(self.path.with_name(name), flags, mode)


class Temporary:
    """A file that is being written beside its place."""

    def __init__(self, place: Place, folder: int) -> None:
        self._place = place
        self._folder = folder
        self._name = f".{secrets.token_hex(8)}.part"
        self._made = False

    def open_empty(self) -> int:
        """Return a descriptor of the file, made, or emptied where it was made before."""
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if self._made else os.O_EXCL)
        self._made = True
        return self._place._open(self._folder, self._name, flags, 0o666)

    def publish(self) -> None:
        """Give the file its name, and make that durable."""
        name = self._place.segments[-1]
        if self._folder >= 0:
            os.replace(self._name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            with contextlib.suppress(OSError):
                os.fsync(self._folder)
        else:
            os.replace(self._place.path.with_name(self._name), self._place.path)
        self._made = False

    def discard(self) -> None:
        """Remove what was not published, and let the folder go."""
        if self._made:
            with contextlib.suppress(OSError):
                if self._folder >= 0:
                    os.unlink(self._name, dir_fd=self._folder)
                else:
                    self._place.path.with_name(self._name).unlink()
        _close(self._folder)


def _close(folder: int) -> None:
    if folder >= 0:
        os.close(folder)


def _segments(path: str) -> list[str]:
    """Return a path's segments; UnsafePath for one that is no plain file name on this system."""
    try:
        segments = check_path(path).split("/")
    except NameRefused as error:
        raise UnsafePath(str(error)) from None
    for segment in segments:
        if os.sep != "/" and (_WINDOWS_NAMES & set(segment) or segment.rstrip(". ") != segment):
            raise UnsafePath(f"object {path!r}: {segment!r} is no file name on this system")
    return segments
