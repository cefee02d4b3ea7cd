"""The launcher: the one process of a node that holds the engine's socket.

    python -P -m alpyne_grid.nodes.compute.backends.containers.launcher FD

FD is its end of a SOCK_SEQPACKET pair with the daemon. It takes the verbs of ``verbs.py`` and
nothing else, opens no other socket, and reads no bytes that came from the network. When the daemon
ends, however it does, its end closes: then the launcher ends all containers, and itself.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alpyne_grid.nodes.compute.backends.containers import verbs
from alpyne_grid.nodes.compute.backends.containers.containers import Containers, NotAllowed
from alpyne_grid.nodes.compute.backends.containers.engine import Engine, EngineFailed, EngineLost
from alpyne_grid.nodes.compute.worker import prctl

AT_ONCE = 16  # orders that are being done
URGENT_AT_ONCE = 8  # of those that wait for no order that is slow
SWEEP_S = 60.0  # between attempts to remove what the engine has not removed
RETRY_S = 0.25  # between looks whether an engine that was lost is back
Done = tuple[Mapping[str, Any], Sequence[int]]  # the answer's value and descriptors


class Launcher:
    """Takes orders until the daemon is gone."""

    def __init__(self, end: socket.socket) -> None:
        """``end``: blocking."""
        self._end = end
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._containers: Containers | None = None  # until ``open``

    def serve(self) -> None:
        """Do what is ordered, several orders at once; return when the daemon has gone."""
        with ThreadPoolExecutor(AT_ONCE) as pool, ThreadPoolExecutor(URGENT_AT_ONCE) as urgent:
            while packet := self._receive():
                try:
                    order = verbs.parse_order(packet)
                except verbs.VerbError as error:
                    self._answer(verbs.Answer(0, {}, "refused", str(error)))
                    continue
                if order.verb == "open":  # the others need what it brings
                    self._do(order, self._open)
                elif self._containers is None:
                    self._answer(verbs.Answer(order.id, {}, "refused", "expected open first"))
                else:
                    threads = urgent if order.verb in _URGENT else pool
                    threads.submit(self._do, order, _VERBS[order.verb], self._containers)
            self._closed.set()
            if self._containers is not None:
                self._containers.close()

    def _receive(self) -> bytes:
        try:
            return self._end.recv(verbs.PACKET_MAX + 1)
        except ConnectionResetError:
            return b""

    def _do(self, order: verbs.Order, how: Callable[..., Done], *on: Containers) -> None:
        descriptors: Sequence[int] = ()
        try:
            value, descriptors = how(*on, order.fields)
            answer = verbs.Answer(order.id, value)
        except NotAllowed as error:
            answer = verbs.Answer(order.id, {}, "refused", str(error))
        except EngineLost as error:
            answer = verbs.Answer(order.id, {}, "engine", str(error))
        except EngineFailed as error:
            answer = verbs.Answer(order.id, {}, "failed", str(error))
        except OSError as error:
            answer = verbs.Answer(order.id, {}, "failed", f"the launcher: {error}")
        except Exception as error:  # noqa: BLE001 - whoever ordered it waits for an answer
            traceback.print_exc()
            text = f"the launcher: {type(error).__name__}: {error}"
            answer = verbs.Answer(order.id, {}, "failed", text)
        self._answer(answer, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _answer(self, answer: verbs.Answer, descriptors: Sequence[int] = ()) -> None:
        self._send(verbs.answer_packet(answer), descriptors)

    def _send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        with self._sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._end, [packet], list(descriptors))

    def _open(self, fields: Mapping[str, Any]) -> Done:
        if self._containers is not None:
            raise NotAllowed("open comes once")
        engine = Engine(fields["host"])
        engine.connect()
        self._containers = Containers(engine, fields)
        watch = threading.Thread(target=self._watch, args=(engine, self._containers), daemon=True)
        watch.start()
        threading.Thread(target=self._sweep, args=(self._containers,), daemon=True).start()
        return {}, ()

    def _sweep(self, containers: Containers) -> None:
        while not self._closed.wait(SWEEP_S):
            containers.sweep()

    def _watch(self, engine: Engine, containers: Containers) -> None:
        """Tell when the engine goes and when it is back; then remove what it left."""
        while not self._closed.is_set():
            with contextlib.suppress(EngineLost, EngineFailed):
                engine.listen(containers.label)
            if self._closed.is_set():
                return
            self._send(verbs.event_packet(verbs.Event(verbs.ENGINE_LOST)))
            while not self._closed.wait(RETRY_S):
                try:
                    engine.connect()
                    containers.reap()
                except (EngineLost, EngineFailed):
                    continue
                self._send(verbs.event_packet(verbs.Event(verbs.ENGINE_BACK)))
                break


# ---- verbs ----


def _look(containers: Containers, fields: Mapping[str, Any]) -> Done:
    return containers.look(), ()


def _reap(containers: Containers, fields: Mapping[str, Any]) -> Done:
    return {"ended": containers.reap()}, ()


def _make(containers: Containers, fields: Mapping[str, Any]) -> Done:
    met = containers.make(fields)
    return {"pid": met.pid}, met.descriptors


def _freeze(containers: Containers, fields: Mapping[str, Any]) -> Done:
    containers.freeze(fields["cell"])
    return {}, ()


def _thaw(containers: Containers, fields: Mapping[str, Any]) -> Done:
    containers.thaw(fields["cell"])
    return {}, ()


def _end(containers: Containers, fields: Mapping[str, Any]) -> Done:
    return containers.end(fields["cell"]), ()


_VERBS = {
    "look": _look,
    "reap": _reap,
    "make": _make,
    "freeze": _freeze,
    "thaw": _thaw,
    "end": _end,
}
_URGENT = frozenset({"freeze", "thaw", "end"})  # a start may take half a minute


def main(arguments: Sequence[str]) -> int:
    """Run as the launcher; return the exit code."""
    prctl.set_name("alpyne-launcher")
    # Nobody of the same user may look into it or attach to it: it holds the engine's socket.
    prctl.forbid_tracing()
    # A terminal's Ctrl-C and a service manager's SIGTERM are for the daemon, whose end ends this.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(arguments[1])) as end:
        Launcher(end).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
