"""Results: small ones go into their job's row, larger ones into files.

results/<number>.<attempt>
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from alpyne_grid.nodes.compute.backends.base import TaskEnd
from alpyne_grid.nodes.compute.job import Result
from alpyne_grid.nodes.compute.job_book import NO_RESULT
from alpyne_grid.nodes.store import publish_file

from alpyne_proto.limits import RESULT_INLINE_MAX
from alpyne_proto.messages.compute import Cause, JobState

_PART = ".part"


class ResultFiles:
    """The results of one node that are files; use from the loop's thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._attempts: dict[int, int] = {}  # by number

    def open(self, known: dict[int, int]) -> None:
        """Make the folder where it is missing; delete all but ``known`` (attempts by number)."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._attempts = known
        names = {f"{number}.{attempt}" for number, attempt in known.items()}
        for file in self._folder.iterdir():
            if file.name not in names:
                file.unlink()

    def path(self, number: int, attempt: int) -> Path:
        """Return where a result lies."""
        return self._folder / f"{number}.{attempt}"

    def inline(self, end: TaskEnd) -> Result | None:
        """Return the result that goes into the row; None for one that has to become a file."""
        data = end.result
        if isinstance(data, Path) or len(data) > RESULT_INLINE_MAX:
            return None
        return Result(len(data), hashlib.sha256(data).digest(), True, data)

    async def keep(self, number: int, attempt: int, end: TaskEnd) -> tuple[TaskEnd, Result]:
        """Return the end and its result, which is durable as a file, or small after all.

        Where the disk does not take it, the end is a failure of the node.
        """
        try:
            result = await asyncio.to_thread(self._keep, self.path(number, attempt), end.result)
        except OSError as error:
            text = f"the node could not store the job's result ({error.strerror or error})"
            return replace(end, state=JobState.FAILED, cause=Cause.NODE, text=text), NO_RESULT
        if not result.in_row:
            self._attempts[number] = attempt
        return replace(end, result=b""), result

    async def discard(self, end: TaskEnd) -> None:
        """Delete the file of a result that nobody wants."""
        if isinstance(end.result, Path):
            with contextlib.suppress(OSError):  # it lies in the back end's folder, which it clears
                await asyncio.to_thread(end.result.unlink)

    def drop(self, numbers: Iterable[int]) -> None:
        """Delete the results of jobs that are gone."""
        for number in numbers:
            attempt = self._attempts.pop(number, None)
            if attempt is not None:
                with contextlib.suppress(FileNotFoundError):
                    self.path(number, attempt).unlink()

    def _keep(self, target: Path, data: bytes | Path) -> Result:
        """In a thread: hash, write, flush, rename."""
        part = target.with_name(target.name + _PART)
        try:
            if isinstance(data, Path):
                shutil.move(data, part)
            else:
                part.write_bytes(data)
            size = part.stat().st_size
            with part.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").digest()
                if size <= RESULT_INLINE_MAX:
                    file.seek(0)
                    return Result(size, sha256, True, file.read())
            publish_file(part, target)
            return Result(size, sha256, False)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
