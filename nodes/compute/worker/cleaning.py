"""What one job leaves in the interpreter, undone before the next one of the same account."""

import _thread
import gc
import io
import os
import signal
import sys
from types import ModuleType
from typing import TextIO

_MAY_CHANGE = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM, signal.SIGPIPE,
    signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
LEFT_OPEN_MAX = 256  # descriptors that a job may leave open: its modules may keep some

# The wrapped function of C, which makes no enum member of each handler: it is asked after each job.
_handler_of = getattr(signal.getsignal, "__wrapped__", signal.getsignal)


class CleanState:
    """The state of a fresh interpreter, taken once; ``restore`` brings it back.

    Modules stay loaded, that is what a warm worker is for, except those of a bundle that the next
    job does not have.
    """

    def __init__(self, scratch: str) -> None:
        """``scratch``: the working folder of calls and sources, empty at each job's start."""
        self._scratch = scratch
        self._environment = dict(os.environ)
        self._encoded = dict(_encoded_environment() or {})
        self._path = list(sys.path)
        self._hooks = (list(sys.meta_path), list(sys.path_hooks))
        self._argv = list(sys.argv)
        self._streams = (sys.stdout, sys.stderr)
        self._recursion = sys.getrecursionlimit()
        self._handlers = {number: _handler_of(number) for number in _MAY_CHANGE}
        self._kept_output = (_keep(1), _keep(2))
        self._inodes = (_inode(1), _inode(2))
        self._main = sys.modules["__main__"]
        self._main_size = len(vars(self._main))
        self._bundle = ""
        os.umask(0o077)
        os.chdir(scratch)

    def enter_bundle(self, bundle: str) -> bool:
        """Make the modules in the zip ``bundle`` ("" = none) importable; say if it is another."""
        changed = bundle != self._bundle
        if changed:
            if self._bundle:
                _forget_modules(self._bundle)
            self._bundle = bundle
        sys.path[:] = [bundle, *self._path] if bundle else self._path
        return changed

    def flush(self) -> None:
        """Write out what the job printed, before its end is told."""
        streams: tuple[TextIO, ...] = (sys.stdout, sys.stderr)
        if streams[0] is not self._streams[0] or streams[1] is not self._streams[1]:
            streams += self._streams
        for stream in streams:
            try:
                stream.flush()
            except Exception:  # a job may put any object there, or close it
                continue

    def is_spent(self) -> bool:
        """Say whether something of the job goes on: threads, children, or what holds descriptors.

        The next job would miss descriptors that this one left open.
        """
        return _has_children() or _thread._count() > 0 or self._has_descriptors()

    def _has_descriptors(self) -> bool:
        """Say whether many more are open than at first: the kernel gives the lowest free one."""
        try:
            free = os.dup(self._kept_output[0])
        except OSError:
            return True
        os.close(free)
        return free > self._kept_output[1] + LEFT_OPEN_MAX

    def restore(self) -> None:
        """Undo what a job changed in this process."""
        sys.settrace(None)
        sys.setprofile(None)
        gc.enable()
        if sys.modules.get("__main__") is not self._main or len(vars(self._main)) > self._main_size:
            self._main = sys.modules["__main__"] = ModuleType("__main__")
        if self._environment_changed():
            os.environ.clear()
            os.environ.update(self._environment)
        sys.path[:] = self._path
        sys.meta_path[:], sys.path_hooks[:] = self._hooks
        sys.argv[:] = self._argv
        sys.setrecursionlimit(self._recursion)
        for number, handler in self._handlers.items():
            if _handler_of(number) != handler:
                signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._restore_output()
        os.umask(0o077)
        self._empty_scratch()

    def _environment_changed(self) -> bool:
        encoded = _encoded_environment()
        if encoded is None:
            return dict(os.environ) != self._environment
        return encoded != self._encoded

    def _restore_output(self) -> None:
        for descriptor, kept, inode in zip((1, 2), self._kept_output, self._inodes, strict=True):
            if _inode(descriptor) != inode:
                os.dup2(kept, descriptor)
        output, error = self._streams
        self._streams = (
            _reopened(1) if output.closed else output,
            _reopened(2) if error.closed else error,
        )
        sys.stdout, sys.stderr = self._streams
        vars(sys).update(__stdout__=sys.stdout, __stderr__=sys.stderr)

    def _empty_scratch(self) -> None:
        try:
            os.chdir(self._scratch)
        except FileNotFoundError:
            os.mkdir(self._scratch, 0o700)
            os.chdir(self._scratch)
        with os.scandir(self._scratch) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove_tree(entry.path)
                else:
                    os.unlink(entry.path)


def line_buffered_output() -> None:
    """Have stdout and stderr show each line at once, whatever the locale says of encodings."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors, line_buffering=True)


def _reopened(descriptor: int) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "replace", line_buffering=True)


def _remove_tree(path: str) -> None:
    from .removal import remove_tree  # jobs that make folders are few

    remove_tree(path)


def _encoded_environment() -> dict[object, object] | None:
    """Return what os.environ is made of, None where it is made otherwise, or another object.

    To decode all variables takes as long as all the rest of what is looked at after a job.
    """
    encoded = getattr(os.environ, "_data", None)
    return encoded if type(encoded) is dict else None


def _keep(descriptor: int) -> int:
    return os.dup(descriptor)  # not inheritable


def _inode(descriptor: int) -> tuple[int, int]:
    try:
        about = os.fstat(descriptor)
    except OSError:
        return 0, 0
    return about.st_dev, about.st_ino


def _has_children() -> bool:
    """Collect the job's dead children, which would else stay as zombies; say if others live."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _forget_modules(bundle: str) -> None:
    """Drop the modules that came from a zip, so that another one's are loaded anew."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(bundle + os.sep):
            del sys.modules[name]
