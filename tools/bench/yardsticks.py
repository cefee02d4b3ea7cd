"""Yardsticks: what the same machine takes, in the same run, for the part that cannot be saved."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

from alpyne_grid.tools.bench.setting import SLOTS
from alpyne_grid.tools.bench.work import nothing

ROW = bytes(256)  # about what a job's row holds
PIECE = 1 << 20


class DurableCommit:
    """One row into SQLite as a node does it: WAL, synchronous=FULL, checkpoints apart."""

    def __init__(self, path: Path) -> None:
        """Make the file ``path``."""
        self._connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA wal_autocheckpoint = 0",
            "CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, data BLOB)",
        ):
            self._connection.execute(statement)

    def measure(self) -> float:
        """Commit one row; return the seconds."""
        execute = self._connection.execute
        begun = perf_counter()
        execute("BEGIN IMMEDIATE")
        execute("INSERT INTO rows (data) VALUES (?)", (ROW,))
        execute("COMMIT")
        return perf_counter() - begun

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@contextmanager
def process_pool() -> Iterator[ProcessPoolExecutor]:
    """Make a ProcessPoolExecutor of as many processes as the daemons have slots, warm."""
    with ProcessPoolExecutor(SLOTS, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(nothing) for _ in range(4 * SLOTS)]:
            future.result()
        yield pool


def write_and_hash(source: Path, target: Path) -> float:
    """Copy a file, hash it and make the copy durable; return the seconds."""
    digest = hashlib.sha256()
    begun = perf_counter()
    with open(source, "rb", buffering=0) as read, open(target, "wb", buffering=0) as write:
        while piece := read.read(PIECE):
            digest.update(piece)
            write.write(piece)
        os.fsync(write.fileno())
    digest.digest()
    return perf_counter() - begun


def make_file(path: Path, size: int) -> None:
    """Write ``size`` bytes that do not compress."""
    with open(path, "wb") as file:
        for at in range(0, size, PIECE):
            file.write(os.urandom(min(PIECE, size - at)))
        file.flush()
        os.fsync(file.fileno())
