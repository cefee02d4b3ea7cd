"""What became of executions: the sink of a bench, which checks the order it is told things in."""

import asyncio
import pickle
from dataclasses import dataclass, field
from typing import Any

from alpyne_grid.nodes.compute.backends.base import Execution, Task, TaskEnd

from alpyne_proto.codec import read_rows
from alpyne_proto.messages import program as p
from alpyne_proto.messages.compute import Cause, JobState
from alpyne_proto.registry import Message

DONE = (JobState.DONE, Cause.NONE)
FAILED, LIMIT = JobState.FAILED, JobState.LIMIT
RESULT_ROWS = tuple(
    row.SPEC.code for row in (p.Value, p.Values, p.Buffer, p.Failure, p.ItemFailed, p.OutputFile)
)


@dataclass
class Run:
    """One execution, and all that the back end said of it."""

    task: Task
    started: int = 0
    moves: list[str] = field(default_factory=list)  # "suspended" and "resumed", in order
    output: list[tuple[float, int, bytes]] = field(default_factory=list)  # loop time, descriptor
    ends: list[TaskEnd] = field(default_factory=list)

    @property
    def end(self) -> TaskEnd:
        """How it ended; there is exactly one end."""
        (end,) = self.ends
        return end

    @property
    def how(self) -> tuple[JobState, Cause]:
        return self.end.state, self.end.cause

    def written(self, descriptor: int = 1) -> str:
        """All that was written to a descriptor."""
        return b"".join(data for _, to, data in self.output if to == descriptor).decode()

    def rows(self) -> list[tuple[Message, bytes]]:
        """The rows of the result."""
        result = self.end.result
        return read_rows(result if isinstance(result, bytes) else result.read_bytes(), RESULT_ROWS)

    def value(self) -> Any:
        """The value of a call or source that is done."""
        assert self.end.state is JobState.DONE, self.end
        (row, data), *buffers = self.rows()
        assert isinstance(row, p.Value)
        return pickle.loads(data, buffers=[buffer for _, buffer in buffers])

    def failure(self) -> p.Failure:
        """The one Failure row of an execution that failed."""
        assert self.end.state is JobState.FAILED, self.end
        ((row, _),) = self.rows()
        assert isinstance(row, p.Failure)
        return row


class Recorder:
    """The sink: keeps what it is told, and checks the order that every back end promises."""

    def __init__(self) -> None:
        self.runs: dict[Execution, Run] = {}
        self.changed = asyncio.Event()

    def started(self, execution: Execution) -> None:
        run = self.runs[execution]
        assert not run.ends
        run.started += 1
        self.changed.set()

    def output(self, execution: Execution, descriptor: int, data: bytes) -> None:
        run = self.runs[execution]
        assert run.started == 1
        assert not run.ends
        run.output.append((asyncio.get_running_loop().time(), descriptor, data))
        self.changed.set()

    def suspended(self, execution: Execution) -> None:
        self._moved(execution, "suspended")

    def resumed(self, execution: Execution) -> None:
        self._moved(execution, "resumed")

    def _moved(self, execution: Execution, to: str) -> None:
        run = self.runs[execution]
        assert run.started == 1
        assert not run.ends
        run.moves.append(to)
        self.changed.set()

    def ended(self, execution: Execution, end: TaskEnd) -> None:
        run = self.runs[execution]
        assert not run.ends
        run.ends.append(end)
        self.changed.set()
