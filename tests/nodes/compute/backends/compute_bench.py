"""A back end on a bench: the shortest ways to run things on it, and what became of them."""

import asyncio
import hashlib
import pickle
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
from alpyne_grid.nodes.compute.backends.base import Backend, Execution, Task, TaskEnd

from alpyne_proto.codec import encode_row, read_rows
from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.messages import program as p
from alpyne_proto.messages.compute import Cause, JobForm, JobState, ResultCodec
from alpyne_proto.messages.worker import ObjectFollows, ObjectWritten, ReadObject, WriteObject
from alpyne_proto.registry import Message

ALICE, BOB = b"a" * 32, b"b" * 32
RESULT_ROWS = tuple(
    row.SPEC.code for row in (p.Value, p.Values, p.Buffer, p.Failure, p.ItemFailed, p.OutputFile)
)
SOON_S = 5.0  # within which a thing happens that is told at once


@dataclass
class Run:
    """One execution, and all that the back end said of it."""

    task: Task
    started: int = 0
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

    def ended(self, execution: Execution, end: TaskEnd) -> None:
        run = self.runs[execution]
        assert not run.ends
        run.ends.append(end)
        self.changed.set()


class Objects:
    """Objects in memory, as a back end reaches them; keeps what was asked."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.asked: list[Message] = []
        self.damaged: dict[bytes, bytes] = {}  # what a holder gives instead, once it serves
        self.serving: list[bytes] = [b"1" * 32, b"2" * 32]
        self.open_executions: list[Execution] = []
        self.read_bytes = self.written_bytes = self.failovers = 0
        self.is_closed = False
        self._execution: Execution | None = None

    def open(self, task: Task) -> "Objects":
        self._execution = task.execution
        self.open_executions.append(task.execution)
        return self

    async def read(self, order: ReadObject) -> tuple[ObjectFollows, bytes]:
        self.asked.append(order)
        if order.path not in self.contents:
            raise RequestFailed(ErrorCode.NOT_FOUND, f"no object {order.path}")
        left = [node for node in self.serving if node not in order.avoid]
        if not left:
            raise RequestFailed(ErrorCode.CORRUPT, "all holders are damaged")
        data = self.damaged.get(left[0], self.contents[order.path])
        self.read_bytes += len(data)
        whole = self.contents[order.path]
        digest = hashlib.sha256(whole).digest()
        piece = data[order.offset : order.offset + order.length]
        return ObjectFollows(len(whole), digest, left[0], 1, b"w" * 16), piece

    async def write(self, order: WriteObject, body: AsyncIterator[bytes]) -> ObjectWritten:
        self.asked.append(order)
        data = b"".join([piece async for piece in body])
        self.contents[order.path] = data
        self.written_bytes += len(data)
        digest = hashlib.sha256(data).digest()
        return ObjectWritten(1, b"w" * 16, len(data), digest, tuple(self.serving))

    def close(self) -> None:  # type: ignore[override]
        assert self._execution is not None
        self.open_executions.remove(self._execution)


class ObjectRoom:
    """The access that opens one ``Objects`` for every execution."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.is_closed = False

    def open(self, task: Task) -> Objects:
        return self.objects.open(task)

    async def close(self) -> None:
        self.is_closed = True


class Bench:
    """Runs programs on a back end."""

    def __init__(self, backend: Backend, folder: Path, room: ObjectRoom) -> None:
        self.backend = backend
        self.folder = folder
        self.room = room
        self.sink = Recorder()
        self._number = 0

    # ---- running ----

    def start(
        self,
        program: bytes | Path,
        form: JobForm = JobForm.CALL,
        *,
        account: bytes = ALICE,
        codec: ResultCodec = ResultCodec.PICKLE,
        **more: Any,
    ) -> Run:
        """Hand a program to the back end."""
        self._number += 1
        execution = Execution(account, self._number.to_bytes(16, "big"), 1, 1)
        folder = self.folder / "work" / str(self._number)
        run = Run(Task(execution, form, codec, folder, program, **more))
        self.sink.runs[execution] = run
        self.backend.run(run.task, self.sink)
        assert not run.ends, "ended before run() returned"
        return run

    def start_call(self, function: Callable[..., Any], *args: Any, **more: Any) -> Run:
        """Hand over a call."""
        return self.start(call(function, *args), **more)

    async def ended(self, run: Run, within_s: float = 20.0) -> Run:
        """Wait for the end."""
        await self.until(lambda: bool(run.ends), within_s)
        assert run.started <= 1
        return run

    async def call(self, function: Callable[..., Any], *args: Any, **more: Any) -> Run:
        """Run a call to its end."""
        return await self.ended(self.start_call(function, *args, **more))

    async def value(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Run a call and return its value."""
        return (await self.call(function, *args, **more)).value()

    async def map(
        self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]], **more: Any
    ) -> Run:
        """Run a chunk of a map."""
        fields = {name: more.pop(name) for name in ("into", "into_prefix", "load") if name in more}
        row = p.Items(first=100, count=len(items), **fields)
        program = function_row(function) + encode_row(row, cloudpickle.dumps(list(items), 5))
        return await self.ended(self.start(program, JobForm.MAP, **more))

    async def source(self, text: str, *args: Any, **more: Any) -> Run:
        """Run a source file."""
        row = encode_row(p.SourceFile(name="job.py"), text.encode())
        return await self.ended(self.start(row + arguments(*args), JobForm.SOURCE, **more))

    def start_command(
        self,
        argv: Sequence[str],
        files: Sequence[tuple[str, bytes, bool]] = (),
        outputs: Sequence[str] = (),
        environment: Sequence[str] = (),
        **more: Any,
    ) -> Run:
        """Hand over a command."""
        line = p.CommandLine(tuple(argv), tuple(environment), tuple(outputs))
        rows = [encode_row(line)]
        rows += [encode_row(p.InputFile(path, flag), data) for path, data, flag in files]
        return self.start(b"".join(rows), JobForm.COMMAND, **more)

    async def command(self, argv: Sequence[str], *args: Any, **more: Any) -> Run:
        """Run a command."""
        return await self.ended(self.start_command(argv, *args, **more))

    # ---- waiting and looking ----

    async def until(self, happened: Callable[[], bool], within_s: float = SOON_S) -> None:
        """Wait until the sink was told what ``happened`` looks for."""
        async with asyncio.timeout(within_s):
            while not happened():
                self.sink.changed.clear()
                await self.sink.changed.wait()

    async def line(self, run: Run, within_s: float = SOON_S) -> str:
        """Wait for the first line on stdout, and return it."""
        await self.until(lambda: "\n" in run.written(), within_s)
        return run.written().split("\n")[0]

    def bundle(self, **modules: str) -> Path:
        """Make the zip of some modules."""
        path = self.folder / f"{len(list(self.folder.glob('*.zip')))}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, text in modules.items():
                file.writestr(f"{name}.py", text)
        return path


def function_row(function: Callable[..., Any]) -> bytes:
    """The row of a function; those of the suite travel by value."""
    return encode_row(p.Function(), cloudpickle.dumps(function, 5))


def arguments(*args: Any) -> bytes:
    """The row of some arguments."""
    return encode_row(p.Arguments(), pickle.dumps((args, {}), 5))


def call(function: Callable[..., Any], *args: Any) -> bytes:
    """The program of a call."""
    return function_row(function) + arguments(*args)


def marked(mark: str) -> list[int]:
    """Processes that carry a mark in the environment that they were started with."""
    return _processes("environ", f"ALPYNE_JOB_MARK={mark}".encode())


def named(token: str) -> list[int]:
    """Processes with a token on their command line."""
    return _processes("cmdline", token.encode())


def _processes(file: str, wanted: bytes) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            if wanted in (path / file).read_bytes() and not is_dead(int(path.name)):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def is_dead(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return True
    return state in b"ZX"


def wait_gone(find: Callable[[], list[int]], within_s: float) -> list[int]:
    """Wait until no process is found any more; return those that are left."""
    deadline = time.monotonic() + within_s
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
