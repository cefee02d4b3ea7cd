"""One worker as the daemon sees it: its life, and the job that it runs.

    STARTING --ready--> IDLE --run--> RUNNING --ran--> IDLE        any --end--> ENDING --> GONE

The daemon ends a worker by telling its supervisor. A supervisor that does not answer, or that a job
killed, is done without: its cell is then ended by force, off the event loop.
"""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from alpyne_grid.nodes.compute.backends.assignment import Assignment, failed
from alpyne_grid.nodes.compute.backends.base import ObjectAccess, Task, TaskEnd, TaskSink
from alpyne_grid.nodes.compute.backends.cells import Cell, Kind
from alpyne_grid.nodes.compute.backends.link import FrameLink, OutputPipe, framed
from alpyne_grid.nodes.compute.backends.results import ResultTooLarge
from alpyne_grid.nodes.compute.backends.suspension import Suspension
from alpyne_grid.nodes.compute.backends.worker_state import MOVES, WorkerState
from alpyne_grid.nodes.compute.backends.worker_words import end_of, message_of

from alpyne_proto.errors import FrameError
from alpyne_proto.frame import Flags, Frame, FrameType
from alpyne_proto.messages.compute import Cause
from alpyne_proto.messages.worker import EndWorker, RunJob, WorkerEnded, WorkerReady

EXIT_PAUSE_S = 0.0005  # between looks whether a supervisor that said its last word has exited
END_TIMEOUT_S = 4.0  # of a supervisor, whose own patience is 2 s
START_TIMEOUT_S = 60.0  # a machine under load may need long to start an interpreter
BOOT_TEXT_MAX = 4096  # bytes kept of what a worker says that fails to start
_CONTROL_STREAM = 1
_END = int(Flags.END)  # an int and a flag meet in five slow steps


class WorkerOwner(Protocol):
    """Who started a worker and hears what becomes of it."""

    def worker_idle(self, worker: "WorkerHandle") -> None:
        """Tell that it can take a job."""

    def worker_gone(self, worker: "WorkerHandle", why: str) -> None:
        """Tell that it is no more; ``why`` is not empty where it never became ready."""


class WorkerHandle:
    """Talks with one worker's supervisor and interpreter, and reads its output."""

    def __init__(
        self,
        cell: Cell,
        kind: Kind,
        number: int,
        owner: WorkerOwner,
        objects: ObjectAccess | None,
        results: Path,
    ) -> None:
        """``number``: its own in this daemon. ``results``: folder for those beyond memory."""
        self.kind = kind
        self.state = WorkerState.STARTING
        self.current: Assignment | None = None
        self._cell = cell
        self._number = number
        self._owner = owner
        self._objects = objects
        self._results = results
        self._loop = asyncio.get_running_loop()
        self._control = FrameLink(cell.control, self._on_control, self._on_control_lost)
        self._job = FrameLink(cell.job, self._on_job, self._on_job_lost)
        self._pipes = (
            OutputPipe(cell.stdout, lambda data: self._on_output(1, data)),
            OutputPipe(cell.stderr, lambda data: self._on_output(2, data)),
        )
        self._written = select.poll()
        for descriptor in (cell.stdout, cell.stderr):
            self._written.register(descriptor, select.POLLIN)
        self._any_left: Callable[[], bool] = _nothing_left
        self._suspension: Suspension | None = None
        self._held: RunJob | None = None  # the order of a job that is suspended before it began
        self._boot_text = b""
        self._never_ready = False
        self._ended: WorkerEnded | None = None  # the supervisor's last word
        self._stream = -1
        self._cpu_ms = self._read_bytes = self._written_bytes = 0  # of the jobs that have ended
        self._take_over: asyncio.Task[None] | None = None
        self._deadline = self._loop.call_later(START_TIMEOUT_S, self._start_took_too_long)

    # ---- what the pool asks ----

    def run(self, task: Task, sink: TaskSink, *, held: bool = False) -> None:
        """Run ``task``; the worker must be idle. ``held``: not before it is resumed."""
        self._move(WorkerState.RUNNING)
        self._deadline.cancel()
        self._stream += 2
        current = Assignment(
            task,
            sink,
            self._stream,
            self._loop.time(),
            self._cell,
            self.kind.walls,
            self._job,
            self._objects,
        )
        self.current = current
        self._cell.begin()
        try:
            order = current.order()
        except OSError as error:
            current.finished = True  # what ends now is the worker, which was never the job's
            self.end(failed(Cause.NODE, f"the node could not hand over the job's files: {error}"))
            return
        if held:
            self._held = order
        else:  # first of all: the worker begins while the rest is done here
            for piece in framed(FrameType.REQUEST, self._stream, order, current.program()):
                self._job.send(piece)
        self._loop.call_soon(self._tell_started, current)
        if held:
            self._loop.call_soon(self._on_suspended)

    def end(self, verdict: TaskEnd | None = None) -> None:
        """End the whole tree; the execution that runs ends as ``verdict``, or else as it did."""
        if self.state in (WorkerState.ENDING, WorkerState.GONE):
            return
        self._move(WorkerState.ENDING)
        if self.current is not None and verdict is not None:
            self.current.verdict = verdict
        for piece in framed(FrameType.REQUEST, _CONTROL_STREAM, EndWorker()):
            self._control.send(piece)
        if self._suspension is not None:
            self._suspension.close()
        self._cell.wake()  # a job may have stopped its supervisor
        self._deadline.cancel()
        self._deadline = self._loop.call_later(END_TIMEOUT_S, self._end_by_force)

    def end_when_idle_for(self, seconds: float) -> None:
        """End the worker unless it gets a job within ``seconds``."""
        self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self.end)

    def suspend(self) -> None:
        """Stop what it runs, and tell the sink; an execution that cannot be stopped fails."""
        if self._held is not None or self.state is not WorkerState.RUNNING:
            return  # one that ends must not stand still: its supervisor has yet to end it
        if self._suspension is None:
            self._suspension = Suspension(
                self._cell, self._on_suspended, self._on_resumed, self._on_not_suspended
            )
        self._suspension.want(stopped=True)

    def resume(self) -> None:
        """Let what it runs go on, and tell the sink."""
        if self._held is not None and self.current is not None:
            order, self._held = self._held, None
            self._loop.call_soon(self._on_resumed)
            for piece in framed(FrameType.REQUEST, self._stream, order, self.current.program()):
                self._job.send(piece)
        elif self._suspension is not None:
            self._suspension.want(stopped=False)

    def sample(self) -> bool:
        """Look at what the running job holds, and end it where that is too much.

        Return whether one with a limit runs, which is to be looked at often.
        """
        current = self.current
        if current is None or self.state is not WorkerState.RUNNING:
            return False
        verdict = current.sample()
        if verdict is not None:
            self.end(verdict)
        return current.limited

    def lose(self, why: str) -> None:
        """React to the loss of what all cells depend on: the execution fails for the node."""
        if self.current is not None and self.current.verdict is None:
            self.current.verdict = failed(Cause.NODE, why)
        if self.state is WorkerState.STARTING:
            self._boot_text = why.encode()
        self._end_by_force()

    # ---- frames from the interpreter ----

    def _on_job(self, frame: Frame) -> None:
        current = self.current
        if current is not None and frame.stream_id == current.stream_id:
            self._on_result(current, frame)
        elif current is not None:
            current.calls.take(frame)
        elif self.state is WorkerState.STARTING and frame.type == FrameType.REQUEST:
            self._on_ready(message_of(frame, WorkerReady))
        elif self.state is not WorkerState.ENDING:
            raise FrameError(f"worker: frame {frame.type:#04x} from an idle worker")

    def _start_took_too_long(self) -> None:
        self._never_ready = True
        self.end()

    def _on_ready(self, ready: WorkerReady) -> None:
        self._deadline.cancel()
        self._any_left = self._cell.leftovers(ready.pid)
        self._move(WorkerState.IDLE)
        self._owner.worker_idle(self)

    def _on_result(self, current: Assignment, frame: Frame) -> None:
        try:
            if frame.type == FrameType.RESPONSE and current.ran is None:
                current.ran = end_of(frame)
                if not frame.flags & _END:
                    current.open_file(self._results / f"{self._number}-{current.stream_id}")
            elif frame.type == FrameType.DATA and current.file is not None:
                current.file.take(frame.payload)
            else:
                raise FrameError(f"worker: frame {frame.type:#04x} instead of a result")
        except ResultTooLarge:
            self.end(current.result_too_large())
        except OSError as error:
            self.end(failed(Cause.NODE, f"the node could not keep the result: {error.strerror}"))
        else:
            if frame.flags & _END:
                self._on_ran(current, bytes(frame.payload) if current.file is None else b"")

    def _on_ran(self, current: Assignment, inline: bytes) -> None:
        assert current.ran is not None, "its body cannot end before it began"
        ran = current.ran
        self._cpu_ms += ran.cpu_ms
        self._read_bytes += ran.disk_read_bytes
        self._written_bytes += ran.disk_written_bytes
        self._read_output()
        verdict = current.as_it_ran(inline)
        if self.state is not WorkerState.RUNNING:  # it was being ended, and had just finished
            current.verdict = current.verdict or verdict
        elif ran.spent or current.overran or self._is_stopped() or self._any_left():
            current.finished = True
            self.end(verdict)
        else:
            # Idle before it reports: the next job, which may start in the report, is for this one.
            self._move(WorkerState.IDLE)
            self._finish(verdict)
            if self._is_idle():
                self._owner.worker_idle(self)

    def _on_job_lost(self, why: str) -> None:
        """React to a worker that died, or that a job made send something else than frames."""
        if self.state is WorkerState.RUNNING and self.current is not None:
            self.current.lost_why = why
        self._never_ready = self._never_ready or self.state is WorkerState.STARTING
        self.end()

    def _on_output(self, descriptor: int, data: bytes) -> None:
        if self.current is not None:
            execution = self.current.task.execution
            self.current.sink.output(execution, descriptor, data)
        elif self.state is WorkerState.STARTING:
            self._boot_text = (self._boot_text + data)[-BOOT_TEXT_MAX:]

    def _read_output(self) -> None:
        if self._written.poll(0):  # most jobs print nothing
            for pipe in self._pipes:
                pipe.read_now()

    # ---- the end ----

    def _on_control(self, frame: Frame) -> None:
        self._on_ended(message_of(frame, WorkerEnded))

    def _on_control_lost(self, why: str) -> None:
        """React to a supervisor that is gone without a word: killed, or it never began."""
        if self._ended is None:
            self._end_by_force()

    def _end_by_force(self) -> None:
        self._deadline.cancel()
        if self.state not in (WorkerState.ENDING, WorkerState.GONE):
            self._never_ready = self.state is WorkerState.STARTING
            self._move(WorkerState.ENDING)
        if self._take_over is None and self.state is not WorkerState.GONE:
            if self._suspension is not None:
                self._suspension.close()
            if self.current is not None:
                self.current.look_back()  # ending a container takes its counters along
            self._take_over = self._loop.create_task(self._end_the_cell())

    async def _end_the_cell(self) -> None:
        receipt = await self._cell.end_all()
        if self.current is not None:
            self.current.lost_why = self.current.lost_why or "its supervisor was ended"
        self._on_gone(self._ended or WorkerEnded(receipt.ended, receipt.left))

    def _on_ended(self, ended: WorkerEnded) -> None:
        """Take the supervisor's last word, and wait for it to exit as well.

        Where it is the cell's first process, it stays until its connection is closed, and with it
        stays what the kernel has counted.
        """
        self._ended = ended
        if self.state is not WorkerState.ENDING:
            self._never_ready = self.state is WorkerState.STARTING
            self._move(WorkerState.ENDING)
            self._deadline.cancel()
            self._deadline = self._loop.call_later(END_TIMEOUT_S, self._end_by_force)
        self._job.read_now()  # a result may have come just before
        if self.current is not None:
            self.current.look_back()
        with contextlib.suppress(OSError):  # it has exited already
            self._cell.control.shutdown(socket.SHUT_WR)
        self._await_exit(ended)

    def _await_exit(self, ended: WorkerEnded) -> None:
        if self._cell.has_exited():
            self._on_gone(ended)
        elif self._take_over is None:
            self._loop.call_later(EXIT_PAUSE_S, self._await_exit, ended)

    def _on_gone(self, ended: WorkerEnded) -> None:
        """Finish: nothing of the worker is left but what the receipt counts."""
        if self.state is WorkerState.GONE:
            return
        self._deadline.cancel()
        self._job.read_now()  # what came just before a supervisor that ended without a word
        self._read_output()
        if self.current is not None:
            before = self._cpu_ms, self._read_bytes, self._written_bytes
            self._finish(self.current.as_the_worker_ended(ended, before))
        self._move(WorkerState.GONE)
        self._close()
        self._owner.worker_gone(self, self._boot_failure(ended) if self._never_ready else "")

    def _close(self) -> None:
        self._control.close()
        self._job.close()
        for pipe in self._pipes:
            pipe.close()
        self._cell.clear_away()

    def _finish(self, end: TaskEnd) -> None:
        current = self.current
        assert current is not None, "only a running execution finishes"
        self.current = None
        current.sink.ended(current.task.execution, current.close(end, self._loop.time()))

    def _boot_failure(self, ended: WorkerEnded) -> str:
        lines = self._boot_text.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"it was not ready and ended with {ended.exit_status}"

    # ---- suspending ----

    def _is_stopped(self) -> bool:
        return self._suspension is not None and self._suspension.in_the_way

    def _on_suspended(self) -> None:
        if self.current is not None and self.state is WorkerState.RUNNING:
            self.current.sink.suspended(self.current.task.execution)

    def _on_resumed(self) -> None:
        if self.current is not None and self.state is WorkerState.RUNNING:
            self.current.sink.resumed(self.current.task.execution)

    def _on_not_suspended(self, why: str) -> None:
        self.end(failed(Cause.NODE, f"the node could not suspend or resume the job: {why}"))

    # ---- parts ----

    def _is_idle(self) -> bool:
        return self.state is WorkerState.IDLE

    def _tell_started(self, current: Assignment) -> None:
        current.sink.started(current.task.execution)

    def _move(self, to: WorkerState) -> None:
        if to not in MOVES[self.state]:
            raise AssertionError(f"worker {self._number}: {self.state.name} to {to.name}")
        self.state = to


def _nothing_left() -> bool:
    return False
