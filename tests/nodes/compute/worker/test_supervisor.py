"""The supervisor's end: who waits after the last word for the daemon to hang up, and how long."""

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from alpyne_grid.nodes.compute.backends.worker_handle import END_TIMEOUT_S
from alpyne_grid.nodes.compute.worker import supervisor

from alpyne_proto import codec
from alpyne_proto.frame import FrameReader
from alpyne_proto.messages.worker import WorkerEnded
from alpyne_proto.registry import Shape

LONG_S = 30.0
# Its interpreter ends at once. What a pid namespace is for, no test of the wait needs.
PROGRAM = """
import os, sys
from alpyne_grid.nodes.compute.worker import supervisor
control, is_init, supervisor.HANG_UP_S = int(sys.argv[1]), sys.argv[2] == "init", float(sys.argv[3])
if is_init:
    supervisor.INIT = os.getpid()
job = os.open(os.devnull, os.O_RDWR)
supervisor.Supervisor(control, job).run(lambda descriptor: None)
"""


@contextmanager
def supervised(
    kind: str, hang_up_s: float
) -> Iterator[tuple[socket.socket, "subprocess.Popen[bytes]"]]:
    """Yield the daemon's end to a supervisor whose interpreter has ended, and its process."""
    control, far = socket.socketpair()
    with control, far:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(far.fileno()), kind, str(hang_up_s)],
            pass_fds=(far.fileno(),),
        )
        far.close()
        control.settimeout(LONG_S)
        try:
            yield control, process
        finally:
            process.kill()
            process.wait()


def last_word(control: socket.socket) -> WorkerEnded:
    (frame,) = FrameReader().feed(control.recv(4096))
    message = codec.decode(frame.meta, (Shape.REQUEST,), lenient=False)
    assert isinstance(message, WorkerEnded)
    return message


def test_supervisor_that_is_init_stays_after_its_last_word_until_the_daemon_hangs_up() -> None:
    with supervised("init", LONG_S) as (control, process):
        assert last_word(control).left == 0
        control.send(b"an order to end, which came too late")
        assert select.select([control], [], [], 0.2)[0] == []  # it holds its end open
        assert process.poll() is None
        control.shutdown(socket.SHUT_WR)
        assert process.wait(LONG_S / 2) == 0


def test_supervisor_that_is_init_waits_no_longer_than_its_bound() -> None:
    with supervised("init", 0.3) as (control, process):
        last_word(control)
        begun = time.monotonic()
        assert process.wait(LONG_S) == 0
        assert 0.2 < time.monotonic() - begun < LONG_S / 2


def test_supervisor_that_is_init_ends_at_once_when_the_daemon_is_gone() -> None:
    with supervised("init", LONG_S) as (control, process):
        control.close()
        assert process.wait(LONG_S / 2) == 0


def test_supervisor_that_is_no_init_waits_for_nobody() -> None:
    with supervised("plain", LONG_S) as (control, process):
        last_word(control)
        assert process.wait(LONG_S / 2) == 0


def test_wait_is_shorter_than_the_daemons_own_patience() -> None:
    assert 1.0 <= supervisor.HANG_UP_S <= END_TIMEOUT_S - 1.0
