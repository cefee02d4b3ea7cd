"""One execution while a worker has it: what it is told, what it used, how it ended."""

from dataclasses import replace
from pathlib import Path

from alpyne_grid.nodes.compute.backends.base import ObjectAccess, Task, TaskEnd, TaskSink
from alpyne_grid.nodes.compute.backends.cells import NOT_METERED, Cell, Metered, Walls
from alpyne_grid.nodes.compute.backends.link import FrameLink
from alpyne_grid.nodes.compute.backends.object_calls import ObjectCalls
from alpyne_grid.nodes.compute.backends.results import ResultFile
from alpyne_grid.nodes.compute.worker.exits import describe_exit

from alpyne_proto import limits
from alpyne_proto.codec import encode_row
from alpyne_proto.messages.compute import Cause, JobForm, JobState, Usage
from alpyne_proto.messages.program import Failure
from alpyne_proto.messages.worker import JobRan, RunJob, WorkerEnded

_CREDIBLE_MOST = 1 << 50  # of bytes or milliseconds that a worker claims to have used


class Assignment:
    """The execution that a worker runs."""

    def __init__(
        self,
        task: Task,
        sink: TaskSink,
        stream_id: int,
        begun_s: float,
        cell: Cell,
        walls: Walls,
        link: FrameLink,
        objects: ObjectAccess | None,
    ) -> None:
        """``begun_s``: the loop's time at which it was handed to the worker."""
        self.task = task
        self.sink = sink
        self.stream_id = stream_id
        self.calls = ObjectCalls(link, lambda: objects.open(task) if objects else None)
        self.ran: JobRan | None = None
        self.file: ResultFile | None = None
        self.finished = False  # its program has returned; only what it left behind goes on
        self.verdict: TaskEnd | None = None  # how it ends, whatever the worker still says
        self.lost_why = ""
        self.overran = False  # the cell hit a limit
        self._cell = cell
        self._disk_bytes = walls.disk_bytes
        self._most_bytes = walls.memory_bytes or task.memory_bytes
        self.limited = self._most_bytes > 0 or walls.processes > 0
        self._begun_s = begun_s
        self._cpu_ms = 0
        self._peak_bytes = 0
        self._read_bytes = 0  # from disks
        self._written_bytes = 0
        self._metered = NOT_METERED

    def order(self) -> RunJob:
        """Return what the worker is told; OSError where its files cannot be brought to it."""
        task, cell = self.task, self._cell
        return RunJob(
            form=task.form,
            codec=task.codec,
            folder=cell.folder(task.folder) if task.form is JobForm.COMMAND else "",
            bundle=cell.bring(task.bundle) if task.bundle is not None else "",
            program=cell.bring(task.program) if isinstance(task.program, Path) else "",
            result_bytes=task.result_bytes,
            cpus=task.cpus,
            disk_bytes=self._disk_bytes,
        )

    def program(self) -> bytes:
        """Return the program that travels with the order; a file is read by the worker."""
        return b"" if isinstance(self.task.program, Path) else self.task.program

    def open_file(self, path: Path) -> None:
        """Take the result into a file; OSError where it cannot be made."""
        self.file = ResultFile(path, self.task.result_bytes or limits.BLOB_MAX)

    def sample(self) -> TaskEnd | None:
        """Look at what is held now; return the verdict where a limit is hit."""
        most = self._most_bytes
        used_bytes = self._cell.held_bytes(most)
        self._peak_bytes = max(self._peak_bytes, used_bytes)
        if not most or used_bytes <= most:
            return self._cell.overrun()
        text = f"the job and its processes held {used_bytes} bytes of memory, the limit is {most}"
        return TaskEnd(JobState.LIMIT, Cause.MEMORY, text)

    def result_too_large(self) -> TaskEnd:
        """Return the verdict over a result that goes beyond its limit."""
        text = f"the result is larger than its limit of {self.task.result_bytes} bytes"
        return TaskEnd(JobState.LIMIT, Cause.OUTPUT, text)

    def as_it_ran(self, inline: bytes) -> TaskEnd:
        """Return how it ended as the worker tells; ``inline`` is the result, or it is the file."""
        ran = self.ran
        assert ran is not None, "asked before JobRan came"
        self._cpu_ms = _credible(ran.cpu_ms)
        self._peak_bytes = max(self._peak_bytes, _credible(ran.peak_memory_bytes))
        self._read_bytes = _credible(ran.disk_read_bytes)
        self._written_bytes = _credible(ran.disk_written_bytes)
        self._metered = self._cell.metered()
        overrun = self._cell.overrun()
        if overrun is not None:
            self.overran = True
            return overrun
        result: bytes | Path = inline if self.file is None else self.file.finish()
        return TaskEnd(ran.state, ran.cause, ran.text, ran.exit_status, result)

    def look_back(self) -> None:
        """Take what the cell counted and why the job ended, while the cell can still tell."""
        self._metered = self._cell.metered()
        self.verdict = self.verdict or self._cell.overrun()

    def as_the_worker_ended(self, ended: WorkerEnded, before: tuple[int, int, int]) -> TaskEnd:
        """Return how it ended when its worker did: by verdict, or as a crash.

        ``before``: what earlier jobs of the worker used: CPU ms, bytes read, bytes written.
        """
        self._peak_bytes = max(self._peak_bytes, _credible(ended.peak_memory_bytes))
        cpu_ms, read, written = before
        self._cpu_ms = max(self._cpu_ms, _credible(ended.cpu_ms - cpu_ms))
        self._read_bytes = max(self._read_bytes, _credible(ended.disk_read_bytes - read))
        self._written_bytes = max(
            self._written_bytes, _credible(ended.disk_written_bytes - written)
        )
        self.look_back()
        if self.verdict is not None:
            own = 1 if self.finished else 0  # the worker itself, which was not the job's any more
            count = max(0, ended.ended - own)
            return replace(self.verdict, ended=count, left=ended.left)
        text = describe_exit(ended.exit_status)
        if self.lost_why:
            text = f"the job broke the channel of its worker: {self.lost_why}"
        return replace(
            failed(Cause.CRASH, text),
            exit_status=ended.exit_status,
            ended=ended.ended,
            left=ended.left,
        )

    def close(self, end: TaskEnd, now_s: float) -> TaskEnd:
        """Let go of what it held and return ``end`` with the usage."""
        if self.file is not None and end.result != self.file.path:
            self.file.discard()
        read, written, failovers = self.calls.counters
        self.calls.close()
        if self._metered is not NOT_METERED:
            self._believe(self._metered)
        usage = Usage(
            wall_ms=int((now_s - self._begun_s) * 1000),
            cpu_ms=self._cpu_ms,
            peak_memory_bytes=self._peak_bytes,
            read_bytes=read,
            written_bytes=written,
            failovers=failovers,
            disk_read_bytes=self._read_bytes,
            disk_written_bytes=self._written_bytes,
            peak_is_shared=self._metered.peak_is_shared,
        )
        # Not by replace(), which looks at all fields of the class and takes longer than the rest.
        return TaskEnd(
            end.state,
            end.cause,
            end.text,
            end.exit_status,
            end.result,
            end.ended,
            end.left,
            usage,
        )

    def _believe(self, metered: Metered) -> None:
        """Take the kernel's figures over the worker's own word and over samples."""
        if metered.cpu_ms is not None:
            self._cpu_ms = metered.cpu_ms
        if metered.peak_bytes is not None:
            self._peak_bytes = metered.peak_bytes
        if metered.read_bytes is not None:
            self._read_bytes = metered.read_bytes
        if metered.written_bytes is not None:
            self._written_bytes = metered.written_bytes


def _credible(amount: int) -> int:
    """Return what a worker says that it used, or 0 for what none can: a job may have forged it."""
    return amount if amount <= _CREDIBLE_MOST else 0


def failed(cause: Cause, text: str) -> TaskEnd:
    """Return the end of an execution that no program could report itself."""
    return TaskEnd(JobState.FAILED, cause, text, result=encode_row(Failure(cause, text=text)))
