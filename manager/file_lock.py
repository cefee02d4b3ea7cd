"""An exclusive lock on an open file, by what the system has; the lock ends with the process."""

import os

_LOCKED_BYTE = 1 << 40  # far behind any content: on Windows a locked range cannot be read by others


def try_lock(descriptor: int) -> bool:
    """Lock the open file ``descriptor`` for this process; False where another one has it.

    On a system with neither fcntl nor msvcrt nothing is locked and the answer is True.
    """
    try:
        import fcntl
    except ImportError:
        return _try_lock_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _try_lock_windows(descriptor: int) -> bool:
    try:
        import msvcrt
    except ImportError:
        return True
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return False
    return True
