"""The calls of prctl(2) that the runtime needs; Python has none of them."""

import ctypes
import os
import signal

_SET_PDEATHSIG = 1
_SET_DUMPABLE = 4
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int | bytes) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def become_subreaper() -> None:
    """Make this process the new parent of every orphan below it (since Linux 3.4)."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)


def forbid_tracing() -> None:
    """Keep processes of the same user from tracing this one and from reading its memory."""
    _prctl(_SET_DUMPABLE, 0)


def set_name(name: str) -> None:
    """Name this process, at most 15 bytes, for ps and top."""
    _prctl(_SET_NAME, name.encode()[:15])
