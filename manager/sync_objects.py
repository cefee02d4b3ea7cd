"""Container for plain programs, and what reads JobObjects in their threads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alpyne_grid.manager import results
from alpyne_grid.manager.aio import AsyncManager
from alpyne_grid.manager.contents import Given
from alpyne_grid.manager.loop_thread import Batches, LoopThread
from alpyne_grid.manager.objects import AsyncContainer, VersionLike
from alpyne_grid.manager.progress import Progress
from alpyne_grid.manager.trees import Transfer
from alpyne_grid.manager.versions import Descriptor

from alpyne_proto.jobobject import TO_THE_END, JobObject

LISTED_AT_ONCE = 256  # objects handed over by the loop at a time
PIECES_AT_ONCE = 16


class Container:
    """A named tree of objects, each kept in k copies; see AsyncContainer for what each raises."""

    def __init__(self, thread: LoopThread, container: AsyncContainer, progress: Progress) -> None:
        self.container = container
        self.name = container.name
        self.id = container.id
        self._thread = thread
        self._progress = progress

    def __repr__(self) -> str:
        return repr(self.container)

    def describe(self) -> Descriptor:
        """Return who keeps its objects, and in how many copies."""
        return self._thread.call(self.container.describe())

    def reconfigure(self, **how: Any) -> Descriptor:
        """Change copies or members from now on."""
        return self._thread.call(self.container.reconfigure(**how))

    def put(
        self,
        path: str,
        content: Given,
        *,
        if_absent: bool = False,
        if_version: VersionLike | None = None,
    ) -> JobObject:
        """Write a new version: bytes, a pathlib.Path, a binary file, or an iterable of bytes."""
        return self._thread.call(
            self.container.put(path, content, if_absent=if_absent, if_version=if_version)
        )

    def put_value(self, path: str, value: Any, **how: Any) -> JobObject:
        """Write a value, so that ``.value()`` of the object returns it, here and in jobs."""
        return self._thread.call(self.container.put_value(path, value, **how))

    def push(self, file: str | Path, path: str = "", **how: Any) -> JobObject:
        """Write a file under ``path``, by default under its own name."""
        return self.put(path or Path(file).name, Path(file), **how)

    def get(
        self,
        path: str | JobObject,
        offset: int = 0,
        length: int = TO_THE_END,
        *,
        allow_stale: bool = False,
    ) -> bytes:
        """Return an object's bytes.

        ``allow_stale``: also where too few members answer to know the newest version.
        """
        work = self.container.get(path, offset, length, allow_stale=allow_stale)
        return self._thread.call(work)

    def stream(self, path: str | JobObject, *, allow_stale: bool = False) -> Iterator[bytes]:
        """Iterate over an object's bytes as they come."""
        pieces = self.container.stream(path, allow_stale=allow_stale)
        return Batches(self._thread, pieces, PIECES_AT_ONCE)

    def value(self, path: str | JobObject) -> Any:
        """Return the value that a value object holds."""
        return self._thread.call(self.container.value(path))

    def pull(
        self, path: str | JobObject, target: str | Path, *, allow_stale: bool = False
    ) -> JobObject:
        """Write an object to a file, which appears whole or not at all."""
        return self._thread.call(self.container.pull(path, target, allow_stale=allow_stale))

    def stat(self, path: str, *, allow_stale: bool = False) -> JobObject:
        """Return the newest version of an object."""
        return self._thread.call(self.container.stat(path, allow_stale=allow_stale))

    def exists(self, path: str, *, allow_stale: bool = False) -> bool:
        """Return whether there is an object under ``path``."""
        return self._thread.call(self.container.exists(path, allow_stale=allow_stale))

    def delete(self, path: str, **how: Any) -> None:
        """Delete an object."""
        self._thread.call(self.container.delete(path, **how))

    def ls(self, prefix: str = "", **how: Any) -> Iterator[JobObject]:
        """Iterate over the objects whose path begins with ``prefix``, in path order."""
        return Batches(self._thread, self.container.ls(prefix, **how), LISTED_AT_ONCE)

    def glob(self, pattern: str, **how: Any) -> Iterator[JobObject]:
        """Iterate over the objects that match: ``*`` within a segment, ``**`` across them."""
        return Batches(self._thread, self.container.glob(pattern, **how), LISTED_AT_ONCE)

    def push_tree(self, folder: str | Path, **how: Any) -> Transfer:
        """Write the files below a folder, under their relative paths."""
        with self._progress.bar(f"push {folder}") as bar:
            how.setdefault("on_progress", bar.show_transfer)
            return self._thread.call(self.container.push_tree(folder, **how))

    def pull_tree(self, folder: str | Path, **how: Any) -> Transfer:
        """Write the objects as files below a folder."""
        with self._progress.bar(f"pull {self.name}") as bar:
            how.setdefault("on_progress", bar.show_transfer)
            return self._thread.call(self.container.pull_tree(folder, **how))


class ThreadReader:
    """Reads objects for the program's own threads: what JobObject.read() uses here."""

    def __init__(self, grid: AsyncManager, thread: LoopThread) -> None:
        self._grid = grid
        self._thread = thread

    def read(self, item: JobObject, offset: int, length: int) -> bytes:
        """Return bytes of an object."""
        return self._thread.call(self._grid.read(item, offset, length))

    def stream(self, item: JobObject) -> Iterator[bytes]:
        """Iterate over an object's bytes."""
        return Batches(self._thread, self._grid.stream(item), PIECES_AT_ONCE)

    def value(self, item: JobObject) -> Any:
        """Return the value of a value object."""
        data = self.read(item, 0, TO_THE_END)
        return results.decode_value(data, item.codec)
