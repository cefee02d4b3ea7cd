"""The start of one sandbox: bubblewrap sets it up and waits until the daemon lets it go on.

    daemon: start bwrap --> bwrap: "my child is 123", sets up the sandbox, waits
    daemon: child 123 into its control groups, then a byte --> the child becomes the worker

So nothing of a worker has run before its limits hold.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

from alpyne_grid.nodes.compute.backends.bubblewrap import SCRATCH, Wiring, advice, command
from alpyne_grid.nodes.compute.backends.cell_groups import CellGroup
from alpyne_grid.nodes.compute.backends.cells import Walls
from alpyne_grid.nodes.compute.backends.launch import environment
from alpyne_grid.nodes.compute.backends.sandbox_view import View
from alpyne_grid.nodes.compute.backends.seccomp import open_filter
from alpyne_grid.nodes.compute.backends.stage import Stage

SETUP_S = 30.0  # for bubblewrap to say what it started, on a machine under load
OOM_SCORE = "500"  # out of memory, the kernel shall end a sandbox before a daemon
WORDS_MAX = 4096  # bytes that bubblewrap may say
END_S = 2.0  # for a bubblewrap that was killed


class Ends(NamedTuple):
    """The daemon's ends to a worker."""

    control: socket.socket
    job: socket.socket
    stdout: int
    stderr: int

    def close(self) -> None:
        """Close all four."""
        self.control.close()
        self.job.close()
        os.close(self.stdout)
        os.close(self.stderr)


class Recipe(NamedTuple):
    """What all cells of a daemon are made from."""

    program: str  # bwrap's path
    view: View
    filter: bytes  # of system calls
    stage: Stage | None  # where the daemon is root
    counts_processes: bool  # by groups; else a resource limit does it


class Start:
    """A sandbox that was started and waits; to be let go or ended."""

    def __init__(self, recipe: Recipe, walls: Walls, brought: Path, mark: str, user: int) -> None:
        """Start bubblewrap; OSError where that is impossible.

        ``brought``: the cell's own folder. ``user``: whom to start it as, where there is a stage.
        To be called from a thread that lives as long as the daemon: the kernel ends a sandbox with
        the thread that started it.
        """
        control, far_control = socket.socketpair()
        job, far_job = socket.socketpair()
        self._info, info = os.pipe()
        block, self._block = os.pipe()
        (stdout, out), (stderr, err) = os.pipe(), os.pipe()
        seccomp = open_filter(recipe.filter)
        self.ends = Ends(control, job, stdout, stderr)
        wiring = Wiring(far_control.fileno(), far_job.fileno(), info, block, seccomp)
        try:
            self.process = subprocess.Popen(
                _command(recipe, walls, wiring, str(brought), user),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=wiring,
                env={**environment(mark), "HOME": SCRATCH, "TMPDIR": SCRATCH},
                cwd="/",
            )
        except OSError:
            self._close()
            self.ends.close()
            raise
        finally:
            far_control.close()
            far_job.close()
            for descriptor in (info, block, out, err, seccomp):
                os.close(descriptor)
        for end in (control, job):
            end.setblocking(False)
        for descriptor in (stdout, stderr, self._info):
            os.set_blocking(descriptor, False)

    async def supervisor(self) -> int:
        """Return the pid of the sandbox's first process; OSError with advice where it has none."""
        try:
            async with asyncio.timeout(SETUP_S):
                said = await _read_all(self._info)
            return int(json.loads(said)["child-pid"])
        except TimeoutError:
            raise OSError(f"bubblewrap set nothing up within {SETUP_S:.0f} s") from None
        except (ValueError, KeyError, TypeError):
            raise await self._failure() from None

    async def join(self, group: CellGroup, supervisor: int) -> None:
        """Put the sandbox into its control groups; OSError where that fails or it has died."""
        try:
            await asyncio.to_thread(group.add, supervisor)
        except ProcessLookupError:
            raise await self._failure() from None

    async def _failure(self) -> OSError:
        """Return why there is no sandbox, as bubblewrap says it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self.process.wait, END_S)
        return OSError(advice(read_words(self.ends.stderr)))

    def let_go(self) -> None:
        """Let the worker run."""
        with contextlib.suppress(BrokenPipeError):  # it has died; the worker handle will see
            os.write(self._block, b"+")
        self._close()

    def end(self) -> None:
        """End it: the sandbox goes with bubblewrap."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        self._close()
        self.ends.close()

    def _close(self) -> None:
        os.close(self._info)
        os.close(self._block)


def _command(recipe: Recipe, walls: Walls, wiring: Wiring, brought: str, user: int) -> list[str]:
    # Where a group counts, it shall be the one that refuses: it tells how often it did.
    rlimited = walls.processes if not recipe.counts_processes else 0
    stage = recipe.stage
    place = stage.place if stage is not None else str
    words = command(recipe.program, recipe.view, walls, wiring, brought, rlimited, place)
    return [*stage.entering(user), *words] if stage is not None else words


def offer_to_the_oom_killer(pid: int) -> None:
    """Have the kernel end this process before others, and all that it starts."""
    with contextlib.suppress(OSError):  # a precaution
        Path(f"/proc/{pid}/oom_score_adj").write_text(OOM_SCORE)


def read_words(descriptor: int) -> str:
    """Return what can be read now from a non-blocking descriptor."""
    try:
        return os.read(descriptor, WORDS_MAX).decode("utf-8", "replace")
    except BlockingIOError:
        return ""


async def _read_all(descriptor: int) -> bytes:
    """Read a non-blocking pipe to its end, at most WORDS_MAX bytes."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < WORDS_MAX:
        ready = loop.create_future()
        loop.add_reader(descriptor, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(descriptor)
        piece = os.read(descriptor, WORDS_MAX - len(data))
        if not piece:
            break
        data += piece
    return data


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
