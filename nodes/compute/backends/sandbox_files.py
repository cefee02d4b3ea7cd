"""A sandbox's files as the daemon sees them: what it hands in, and how full the scratch is."""

import contextlib
import os
import shutil
from collections import OrderedDict
from pathlib import Path

BROUGHT_MAX = 4  # files in a cell at a time: a program and a bundle, and those of the job before
BYTES_PER_FILE = 4096  # of scratch: so many files as pages; each costs the kernel about 1 KiB
FILES_LEAST = 64


class Room:
    """A file system of limited size inside, seen from outside."""

    def __init__(self, size_bytes: int) -> None:
        """``size_bytes``: as it was made."""
        self._size = size_bytes
        self._files_most = max(FILES_LEAST, size_bytes // BYTES_PER_FILE)
        self._at = -1
        self._files_before = 0

    def open(self, supervisor: int, folder: str) -> None:
        """Take hold of it; where that is not allowed, it is never said to be full."""
        with contextlib.suppress(OSError):
            path = f"/proc/{supervisor}/root{folder}"
            self._at = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._files_before = self._files()

    def why_full(self) -> str:
        """Return why nothing more can or may be written there; empty where it can."""
        if self._at < 0:
            return ""
        about = os.fstatvfs(self._at)
        if about.f_bfree == 0:
            return f"the files of the job filled its scratch of {self._size} bytes"
        files = about.f_files - about.f_ffree - self._files_before
        if files > self._files_most:
            return f"the job made {files} files, at most {self._files_most} may be in its scratch"
        return ""

    def is_used(self) -> bool:
        """Say whether it holds more files than at first."""
        return self._at >= 0 and self._files() > self._files_before

    def _files(self) -> int:
        about = os.fstatvfs(self._at)
        return about.f_files - about.f_ffree

    def close(self) -> None:
        """Let go of it."""
        if self._at >= 0:
            os.close(self._at)
            self._at = -1


class Brought:
    """A cell's own folder outside: the files of the node that its jobs may read."""

    def __init__(self, folder: Path, group: int | None) -> None:
        """``group``: of the user who reads the files; None where that is the daemon's own user."""
        self._folder = folder
        self._group = group
        self._names: OrderedDict[tuple[str, int, int], str] = OrderedDict()
        self._count = 0

    def name(self, file: Path) -> str:
        """Return the file's name here, having linked or copied it. OSError where that fails."""
        about = file.stat()
        key = (str(file), about.st_ino, about.st_mtime_ns)
        name = self._names.get(key)
        if name is not None:
            self._names.move_to_end(key)
            return name
        self._count += 1
        name = self._names[key] = f"{self._count}{file.suffix}"
        self._put(file, self._folder / name)
        while len(self._names) > BROUGHT_MAX:
            _, old = self._names.popitem(last=False)
            (self._folder / old).unlink(missing_ok=True)
        return name

    def _put(self, file: Path, target: Path) -> None:
        try:
            os.link(file, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target)
            target.chmod(0o400)
        if self._group is not None:
            # Not a copy, which would take as long as the file is large. The node's own folder keeps
            # others of the group from it.
            os.chown(target, -1, self._group)
            target.chmod(0o440)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
