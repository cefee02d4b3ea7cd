"""The folder of the user's keys and pool: for its owner only, for one process at a time."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from alpyne_grid.manager.errors import PoolError

from alpyne_grid.durable import try_lock

LOCK_WAIT_S = 10.0
_PAUSE_S = 0.01


def make_home(home: Path) -> None:
    """Make the folder of the user's keys and pool, readable by nobody else."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise PoolError(
            f"{home}: cannot be made ({error.strerror}); set ALPYNE_HOME to a folder you may "
            "write to"
        ) from None


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the lock of ``home``; PoolError where another process keeps it too long."""
    make_home(home)
    descriptor = os.open(home / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise PoolError(
                    f"{home}: another Alpyne process keeps it locked; end it, or wait for it"
                )
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)
