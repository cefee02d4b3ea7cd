"""The supervisor of one worker: it runs no client code, and ends the tree below it.

    daemon --control--> supervisor --fork--> interpreter --> whatever the jobs start
    daemon --job----------------------------> interpreter

The supervisor is the child subreaper of its tree: a process that double-forks or calls setsid stays
its descendant. It ends the tree when it is told to, when the interpreter dies, and when the
daemon's end of the control socket closes, which the kernel does when the daemon is killed. Where a
job kills the supervisor itself, the kernel kills the interpreter (PR_SET_PDEATHSIG) and the daemon
ends the rest by their mark.

The interpreter is forked from here, after all imports and before any client code: that halves the
time and memory of a start, and the daemon itself never forks.
"""

import contextlib
import gc
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from alpyne_proto import codec, frame
from alpyne_proto.messages.worker import WorkerEnded
from alpyne_proto.registry import Message

from . import prctl, tree
from .exits import SIGNALLED

PATIENCE_S = 2.0  # for a tree to end; only a process stuck in the kernel takes longer
OOM_SCORE = "500"  # out of memory, the kernel shall end a job before a daemon
# With a pid namespace of its own the supervisor is its init, which no signal from inside reaches.
# It is then shut to the job altogether. Elsewhere a later daemon must be able to read its mark.
INIT = 1
HANG_UP_S = 2.0  # that an init waits, after its last word, for the daemon to close the connection
_CONTROL_STREAM = 2  # the supervisor's only request
_READ = 4096
_BLOCK = 512  # bytes, of the counters of blocks in wait4(2)


class Supervisor:
    """Forks the interpreter and waits for what ends it."""

    def __init__(self, control: int, job: int) -> None:
        """``control``, ``job``: descriptors of the two socket pairs' ends."""
        self._control = control
        self._job = job
        self._worker = 0
        self._status: int | None = None
        self._cpu_s = 0.0
        self._peak_bytes = 0
        self._read_blocks = 0
        self._written_blocks = 0

    def run(self, interpreter: Callable[[int], None]) -> NoReturn:
        """Fork ``interpreter(job)``, stay until its tree has ended, and exit; never returns."""
        prctl.become_subreaper()
        prctl.set_name("alpyne-super")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.signal(signal.SIGCHLD, _note)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        gc.freeze()  # a collector would else copy every page that both processes share
        parent = os.getpid()
        self._worker = os.fork()
        if self._worker == 0:
            os.close(self._control)
            os.close(woken)
            _become_interpreter(interpreter, self._job, parent, wake)
        if parent == INIT:
            prctl.forbid_tracing()
        os.close(self._job)
        _let_go_of_output()
        self._wait(woken)
        if parent == INIT:
            _await_hang_up(self._control)
        os._exit(0)  # nothing is left to be tidied up, and the daemon waits for it

    def _wait(self, woken: int) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while self._status is None:
            for descriptor, _ in poll.poll():
                if descriptor == self._control:
                    told = _read(self._control)
                    self._end_tree(report=bool(told))
                    return
                _read(woken)
                self._reap()
        self._end_tree(report=True)

    def _end_tree(self, *, report: bool) -> None:
        own = os.getpid()
        receipt = tree.end_all(
            lambda: tree.descendants(own), reap=self._reap, patience_s=PATIENCE_S
        )
        self._reap()
        if report:
            self._send(
                WorkerEnded(
                    ended=receipt.ended,
                    left=receipt.left,
                    exit_status=_exit_status(self._status or 0),
                    cpu_ms=int(self._cpu_s * 1000),
                    peak_memory_bytes=self._peak_bytes,
                    disk_read_bytes=self._read_blocks * _BLOCK,
                    disk_written_bytes=self._written_blocks * _BLOCK,
                )
            )

    def _reap(self) -> None:
        """Collect dead children; orphans of the tree are ours too."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._cpu_s += usage.ru_utime + usage.ru_stime
            self._peak_bytes = max(self._peak_bytes, usage.ru_maxrss * 1024)
            self._read_blocks += usage.ru_inblock
            self._written_blocks += usage.ru_oublock
            if pid == self._worker:
                self._status = status

    def _send(self, message: Message) -> None:
        data = frame.pack(
            frame.FrameType.REQUEST, frame.Flags.END, _CONTROL_STREAM, codec.encode(message)
        )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody wants it
            os.write(self._control, data)


def _become_interpreter(
    interpreter: Callable[[int], None], job: int, parent: int, wake: int
) -> NoReturn:
    """Turn the forked child into an ordinary process and run jobs in it; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        os.close(wake)
        prctl.die_with_parent()
        if os.getppid() != parent:
            os._exit(status)  # it died before the kernel knew that we follow it
        prctl.set_name("alpyne-worker")
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no memory image behind
        _offer_to_the_oom_killer()
        _let_others_go_first()
        gc.enable()
        interpreter(job)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # onto stderr, for the daemon or the job's owner
    finally:
        os._exit(status)


def _offer_to_the_oom_killer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(OOM_SCORE)
    except OSError:
        pass  # some containers forbid it; it is a precaution


def _let_others_go_first() -> None:
    """Have a waking job not interrupt whoever runs, the daemon above all (sched(7), SCHED_BATCH).

    Else the order that wakes a worker costs the daemon its processor in the middle of a turn.
    """
    with contextlib.suppress(OSError, AttributeError):  # some containers forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _let_go_of_output() -> None:
    """Leave the job's output to the job, so that its pipes end when its processes do."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _note(number: int, stack: object) -> None:
    """Do nothing: a handler must exist for the signal to wake the poll."""


def _await_hang_up(control: int) -> None:
    """Return when the daemon has closed its end of ``control``, or after ``HANG_UP_S``.

    An init takes its control group along, and what the kernel has counted there: processor time,
    memory, and why it ended a process. The daemon reads that before it hangs up.
    """
    poll = select.poll()
    poll.register(control, select.POLLIN)
    deadline = time.monotonic() + HANG_UP_S
    while (left_s := deadline - time.monotonic()) > 0 and poll.poll(left_s * 1000):
        if not _read(control):
            return


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _READ)
    except BlockingIOError:
        return b""
    except ConnectionResetError:
        return b""


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return SIGNALLED - code if code < 0 else code
