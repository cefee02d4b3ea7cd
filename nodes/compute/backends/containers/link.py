"""The daemon's end to its launcher: orders out, answers and descriptors in, on the event loop."""

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from alpyne_grid.nodes.compute.backends.containers import verbs
from alpyne_grid.nodes.compute.backends.containers.rendezvous import receive

END_S = 30.0  # for a launcher to end all containers, which it does several at once
_MODULE = "alpyne_grid.nodes.compute.backends.containers.launcher"


class LauncherLost(OSError):
    """The launcher has ended, and no container can be made any more."""


class EngineAway(OSError):
    """The container engine cannot be reached for now."""


class Done(NamedTuple):
    """What came back for an order."""

    value: Mapping[str, Any]
    descriptors: list[int]  # now the caller's


class LauncherLink:
    """Starts a launcher and talks with it; use from the loop's thread."""

    def __init__(self, on_event: Callable[[str], None], on_lost: Callable[[], None]) -> None:
        """``on_event`` gets one of ``verbs.EVENTS``; ``on_lost`` is called once, when it ended."""
        self.engine_losses = 0  # times that the engine went away
        self.engine_is_away = False
        self._on_event = on_event
        self._on_lost = on_lost
        self._end: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[int, asyncio.Future[Done]] = {}
        self._queue: deque[bytes] = deque()
        self._number = 0

    @property
    def pid(self) -> int:
        """The launcher's process; 0 where there is none."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start the launcher's process; OSError with what to do where that is impossible."""
        if find_spec("docker") is None:
            raise OSError(
                "the back end docker needs the package docker, which is not installed: "
                "pip install 'alpyne-grid[docker]'"
            )
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._process = await asyncio.to_thread(_launch, far.fileno())
        near.setblocking(False)
        self._end = near
        asyncio.get_running_loop().add_reader(near, self._readable)

    async def ask(self, verb: str, **fields: Any) -> Done:
        """Have an order done. Raises LauncherLost, EngineAway, or OSError with why it failed.

        Where this is cancelled, descriptors that come later are closed.
        """
        if self._end is None:
            raise _lost()
        self._number += 1
        number = self._number
        packet = verbs.order_packet(verbs.Order(number, verb, fields))
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._queue.append(packet)
        self._writable()
        return await future

    async def close(self) -> None:
        """Let the launcher end all containers and itself, and wait for it."""
        self._let_go()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, END_S)
        except subprocess.TimeoutExpired:
            process.kill()  # the engine hangs; what it leaves is reaped at the next start
            await asyncio.to_thread(process.wait)

    def _writable(self) -> None:
        assert self._end is not None, "nothing is queued where there is no launcher"
        loop = asyncio.get_running_loop()
        while self._queue:
            try:
                self._end.send(self._queue[0])
            except BlockingIOError:
                loop.add_writer(self._end, self._writable)
                return
            except OSError:
                return  # reading will find out
            self._queue.popleft()
        loop.remove_writer(self._end)

    def _readable(self) -> None:
        assert self._end is not None, "it is read while it is open"
        try:
            packet, descriptors = receive(self._end, verbs.PACKET_MAX, len(verbs.HANDED))
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            self._lose()
            return
        self._take(verbs.parse_report(packet), descriptors)

    def _take(self, report: verbs.Answer | verbs.Event, descriptors: list[int]) -> None:
        if isinstance(report, verbs.Event):
            self.engine_is_away = report.name == verbs.ENGINE_LOST
            self.engine_losses += self.engine_is_away
            self._on_event(report.name)
            return
        future = self._asked.pop(report.id, None)
        if future is None or future.done():
            for descriptor in descriptors:
                os.close(descriptor)
        elif report.kind == "engine":
            future.set_exception(EngineAway(report.error))
        elif report.kind:
            future.set_exception(OSError(report.error))
        else:
            future.set_result(Done(report.value, descriptors))

    def _lose(self) -> None:
        self._let_go()
        self._on_lost()

    def _let_go(self) -> None:
        if self._end is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._end)
        loop.remove_writer(self._end)
        self._end.close()
        self._end = None
        self._queue.clear()
        asked, self._asked = self._asked, {}
        for future in asked.values():
            if not future.done():
                future.set_exception(_lost())


def _lost() -> LauncherLost:
    return LauncherLost("the launcher of its containers has ended; start the node again")


def _launch(descriptor: int) -> subprocess.Popen[bytes]:
    # Settings of a Docker client (credentials, proxies, another host) are not the node's.
    passed = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    environment = {
        **passed,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DOCKER_CONFIG": "/nonexistent",
    }
    return subprocess.Popen(
        # Not the working folder: whatever lies there may be named as a module is.
        [sys.executable, "-P", "-m", _MODULE, str(descriptor)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        env=environment,
        start_new_session=True,
    )
