"""A back end on a bench: the shortest ways to run things on it."""

import asyncio
import contextlib
import os
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import cloudpickle
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup, Execution, Task
from alpyne_grid.tools import contracts
from alpyne_grid.tools.contracts.compute.object_room import ObjectRoom
from alpyne_grid.tools.contracts.compute.recorder import Recorder, Run

from alpyne_proto.codec import encode_row
from alpyne_proto.messages import program as p
from alpyne_proto.messages.compute import JobForm, ResultCodec

ALICE, BOB = b"a" * 32, b"b" * 32
SOON_S = 5.0  # within which a thing happens that is told at once

# Functions of the contracts travel by value: what a worker may import is the back end's matter.
cloudpickle.register_pickle_by_value(contracts)


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


class BackendBench:
    """Makes the bench; the parts of the contract inherit it."""

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        """Yield a back end that has reaped and started."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def bench(self, folder: Path) -> AsyncIterator[Bench]:
        """Yield a bench with a back end in ``folder``."""
        room = ObjectRoom()
        setup = BackendSetup(folder / "backend", os.urandom(16), room, slots=4)
        async with self.opened(setup) as backend:
            yield Bench(backend, folder, room)
        assert room.is_closed
        assert room.objects.open_executions == []


def function_row(function: Callable[..., Any]) -> bytes:
    """The row of a function; those of the suite travel by value."""
    return encode_row(p.Function(), cloudpickle.dumps(function, 5))


def arguments(*args: Any) -> bytes:
    """The row of some arguments."""
    return encode_row(p.Arguments(), cloudpickle.dumps((args, {}), 5))


def call(function: Callable[..., Any], *args: Any) -> bytes:
    """The program of a call."""
    return function_row(function) + arguments(*args)


async def vanishes(path: Path) -> bool:
    """Wait for a folder to be removed, which follows the job's end."""
    for _ in range(100):
        if not path.exists():
            return True
        await asyncio.sleep(0.02)
    return False
