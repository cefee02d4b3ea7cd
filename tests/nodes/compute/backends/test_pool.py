"""The pool of workers over cells that a test plays: made late or not at all, lost, frozen, full."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from alpyne_grid.nodes.compute.backends import pool, roster, sampler, worker_handle
from alpyne_grid.nodes.compute.backends.assignment import failed
from alpyne_grid.nodes.compute.backends.base import (
    BackendSetup,
    Enforcement,
    Execution,
    Suspends,
    Task,
    TaskEnd,
)
from alpyne_grid.nodes.compute.backends.cells import NOT_METERED, Cell, Kind, Metered, Walls
from alpyne_grid.nodes.compute.backends.link import framed
from alpyne_grid.nodes.compute.backends.pool import WorkerPool
from alpyne_grid.nodes.compute.worker.tree import Receipt
from alpyne_grid.tools.contracts.compute import ALICE, BOB, DONE, FAILED, LIMIT, Recorder, Run

from alpyne_proto import codec
from alpyne_proto.frame import FrameReader, FrameType
from alpyne_proto.messages.compute import Cause, JobForm, JobState, ResultCodec
from alpyne_proto.messages.worker import JobRan, RunJob, WorkerEnded, WorkerReady
from alpyne_proto.registry import Shape

MIB = 1 << 20
KILLED = (JobState.KILLED, Cause.CANCELLED)
OUT_OF_MEMORY = TaskEnd(JobState.LIMIT, Cause.MEMORY, "the kernel ended it at 64 MiB")
WORKER = WorkerReady(pid=7, python="3.11")


class PlayedCell:
    """A cell whose supervisor and interpreter are the test; it keeps what was asked of it."""

    supervisor = 0

    def __init__(self, kind: Kind, mark: str) -> None:
        self.kind, self.mark = kind, mark
        self.asked: list[str] = []
        self.verdict: TaskEnd | None = None
        self.meter = NOT_METERED
        self.held = 0
        self.any_left = False
        self.last_word = WorkerEnded(ended=1, left=0)
        self.is_stubborn = False  # its supervisor answers to nothing
        self.awaits_hang_up = False  # its supervisor stays, after its last word, until it is told
        self.is_forgetful = False  # what was counted goes with the last process
        self.freezing: asyncio.Future[None] | None = None  # what freeze() waits for
        self.cannot: str = ""  # why nothing can be frozen or brought
        self.control, self._far_control = socket.socketpair()
        self.job, self._far_job = socket.socketpair()
        self.stdout, self._far_stdout = os.pipe()
        self.stderr, self._far_stderr = os.pipe()
        for end in (self.control, self.job):
            end.setblocking(False)
        for descriptor in (self.stdout, self.stderr):
            os.set_blocking(descriptor, False)
        self._exited = False
        self._seen: tuple[TaskEnd | None, Metered] = None, NOT_METERED
        self._reader = FrameReader()
        asyncio.get_running_loop().add_reader(self._far_control, self._told)

    # ---- what the test does in it ----

    def ready(self) -> None:
        """Be a worker that can take jobs."""
        self._far_job.send(b"".join(framed(FrameType.REQUEST, 2, WORKER)))

    def order(self) -> tuple[RunJob, int] | None:
        """Return the order that has come, and its stream."""
        self._far_job.setblocking(False)
        try:
            data = self._far_job.recv(65536)
        except BlockingIOError:
            return None
        (frame,) = self._reader.feed(data)
        order = codec.decode(frame.meta, (Shape.REQUEST,), lenient=False)
        assert isinstance(order, RunJob)
        return order, frame.stream_id

    def ran(self, stream_id: int, **fields: Any) -> None:
        """Tell how the job ended."""
        message = JobRan(**{"state": JobState.DONE, **fields})
        self._far_job.send(b"".join(framed(FrameType.RESPONSE, stream_id, message, b"result")))

    def die(self) -> None:
        """End without a word, as what the kernel kills."""
        self._far_job.close()
        self._let_go()

    def lose_interpreter(self) -> None:
        """Have the interpreter die; the supervisor tells how."""
        self._far_job.close()

    def say_last_word(self) -> None:
        """Tell, as the supervisor, that the tree has ended."""
        self._far_control.send(b"".join(framed(FrameType.REQUEST, 2, self.last_word)))

    def _told(self) -> None:
        told = self._far_control.recv(4096)
        if told and not self.is_stubborn:
            self.asked.append("end")
            self.say_last_word()
        elif not told:
            self.asked.append("hang up")
        if not told or not (self.is_stubborn or self.awaits_hang_up):
            self._let_go()

    def _forget(self) -> None:
        """Remember only what was asked before, as control groups that are removed."""
        if self.is_forgetful:
            self.verdict, self.meter = self._seen

    def _let_go(self) -> None:
        if self.awaits_hang_up:
            self._forget()
        if not self._exited:
            self._exited = True
            asyncio.get_running_loop().remove_reader(self._far_control)
            self._far_control.close()
            self._far_job.close()
            for descriptor in (self._far_stdout, self._far_stderr):
                os.close(descriptor)

    # ---- the cell ----

    def bring(self, file: Path) -> str:
        if self.cannot:
            raise OSError(self.cannot)
        return f"/inside/{file.name}"

    def folder(self, folder: Path) -> str:
        return f"/inside/{folder.name}"

    def begin(self) -> None:
        self.asked.append("begin")

    def held_bytes(self, most: int) -> int:
        return self.held

    def overrun(self) -> TaskEnd | None:
        self._seen = self.verdict, self._seen[1]
        return self.verdict

    def metered(self) -> Metered:
        self._seen = self._seen[0], self.meter
        return self.meter

    def leftovers(self, interpreter: int) -> Callable[[], bool]:
        assert interpreter == WORKER.pid
        return lambda: self.any_left

    async def freeze(self) -> None:
        self.asked.append("freeze")
        if self.freezing is not None:
            await self.freezing
        if self.cannot:
            raise OSError(self.cannot)

    async def thaw(self) -> None:
        self.asked.append("thaw")

    def wake(self) -> None:
        self.asked.append("wake")

    def has_exited(self) -> bool:
        return self._exited

    async def end_all(self) -> Receipt:
        self.asked.append("end_all")
        self._forget()
        self._let_go()
        return Receipt(2, 0)

    def clear_away(self) -> None:
        self.asked.append("clear_away")


class PlayedCells:
    """Makes cells when the test lets it."""

    level, images, networks = 1, (), ()
    limits: Mapping[str, Enforcement] = MappingProxyType({"memory": "kernel"})
    suspends: Suspends = "kernel"
    pythons = ("3.11",)

    def __init__(self) -> None:
        self.when_lost: Callable[[str], None] = print
        self.cells: list[PlayedCell] = []
        self.begun = 0
        self.is_ready = True  # its workers are ready at once
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0
        self.closed_with: list[int] = []

    def walls(self, task: Task | None) -> Walls:
        return Walls(memory_bytes=task.memory_bytes if task is not None else 0)

    async def reap(self) -> int:
        return 3

    async def start(self) -> None:
        pass

    async def check(self) -> str:
        return "played cells"

    def confine(self) -> None:
        pass

    async def make(self, kind: Kind, mark: str) -> Cell:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        cell = PlayedCell(kind, mark)
        self.cells.append(cell)
        if self.is_ready:
            cell.ready()
        return cell

    async def close(self) -> None:
        self.closed_with.append(sum("clear_away" in cell.asked for cell in self.cells))


class Play:
    """A pool over played cells, and what was run on it."""

    def __init__(self, folder: Path, slots: int) -> None:
        self.maker = PlayedCells()
        self.pool = WorkerPool("played", BackendSetup(folder, bytes(16), slots=slots), self.maker)
        self.sink = Recorder()
        self._number = 0

    def run(self, account: bytes = ALICE, **more: Any) -> Run:
        """Hand over a call."""
        self._number += 1
        execution = Execution(account, self._number.to_bytes(16, "big"), 1, 1)
        more = {"form": JobForm.CALL, "program": b"", "folder": Path("none"), **more}
        run = Run(Task(execution, codec=ResultCodec.PICKLE, **more))
        self.sink.runs[execution] = run
        self.pool.run(run.task, self.sink)
        assert not run.ends
        return run

    async def until(self, happened: Callable[[], Any]) -> Any:
        """Return what ``happened`` returns as soon as that is true."""
        async with asyncio.timeout(5):
            while not (found := happened()):
                await asyncio.sleep(0.001)
            return found

    async def ended(self, run: Run) -> TaskEnd:
        """Wait for the end."""
        await self.until(lambda: run.ends)
        return run.end

    async def begun(self, **more: Any) -> tuple[Run, PlayedCell, int]:
        """Start a job and return it, its cell and its stream once the order has come there."""
        run = self.run(**more)
        await self.until(lambda: run.started)
        for cell in self.maker.cells:
            if "clear_away" not in cell.asked and (order := cell.order()) is not None:
                return run, cell, order[1]
        raise AssertionError("no cell got the order")

    async def done(self, **more: Any) -> PlayedCell:
        """Run a job to its end in the cell that is returned."""
        run, cell, stream_id = await self.begun(**more)
        cell.ran(stream_id)
        await self.ended(run)
        return cell


@asynccontextmanager
async def playing(folder: Path, slots: int = 2) -> AsyncIterator[Play]:
    """Yield a play; afterwards every cell has been cleared away, once, and then the maker ended."""
    play = Play(folder, slots)
    await play.pool.start()
    try:
        yield play
    finally:
        await play.pool.close()
        cells = play.maker.cells
        assert [cell.asked.count("clear_away") for cell in cells] == [1] * len(cells)
        assert play.maker.closed_with == [len(cells)]
        assert all(len(run.ends) == 1 for run in play.sink.runs.values())


# ---- making cells ----


async def test_job_waits_for_its_cell_and_is_told_started_when_its_worker_has_it(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        play.maker.gate.clear()
        run = play.run()
        await asyncio.sleep(0)
        assert (run.started, play.maker.begun) == (0, 1)
        play.maker.gate.set()
        await play.until(lambda: run.started)
        order = play.maker.cells[0].order()
        assert order is not None
        play.maker.cells[0].ran(order[1])
        assert (await play.ended(run)).state is JobState.DONE
        assert run.end.result == b"result"


@pytest.mark.parametrize("error", [OSError("the engine does not answer"), KeyError("Id")])
async def test_job_fails_with_the_reason_when_its_cell_cannot_be_made(
    tmp_path: Path, error: Exception
) -> None:
    async with playing(tmp_path) as play:
        play.maker.error = error
        runs = [play.run(), play.run()]
        for run in runs:
            end = await play.ended(run)
            assert run.how == (FAILED, Cause.NODE)
            assert str(error) in end.text
            assert run.started == 0
        play.maker.error = None
        await play.done()


async def test_warm_cells_are_not_tried_for_ever_when_none_can_be_made(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        play.maker.error = OSError("no engine")
        play.pool.warm(ALICE, 2)
        await asyncio.sleep(0.05)
        assert play.maker.begun == pool.FAILED_STARTS_MAX + 1  # two were begun at once
        play.maker.error = None
        await play.done()
        await play.until(lambda: len(play.maker.cells) == 1)


async def test_cancel_ends_a_job_whose_cell_is_being_made_and_the_cell_serves_the_next(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        play.maker.gate.clear()
        run = play.run()
        await asyncio.sleep(0)
        play.pool.cancel(run.task.execution)
        await play.ended(run)
        assert run.how == KILLED
        assert run.started == 0
        play.maker.gate.set()
        await play.done()
        assert play.maker.begun == 1


async def test_close_ends_a_cell_that_was_being_made(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        play.maker.gate.clear()
        run = play.run()
        await asyncio.sleep(0)
        closing = asyncio.create_task(play.pool.close())
        await play.ended(run)
        assert run.how == KILLED
        play.maker.gate.set()
        await closing
        assert play.maker.cells[0].asked[-1] == "clear_away"
        play.maker.closed_with.clear()


async def test_close_gives_up_a_cell_that_takes_too_long_to_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAKING_PATIENCE_S", 0.01)
    async with playing(tmp_path) as play:
        play.maker.gate.clear()
        play.run()
        await asyncio.sleep(0)
        await play.pool.close()
        assert play.maker.cancelled == 1
        play.maker.closed_with.clear()


async def test_cell_whose_worker_is_never_ready_ends_and_its_job_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "START_TIMEOUT_S", 0.01)
    async with playing(tmp_path) as play:
        play.maker.is_ready = False
        run = play.run()
        await play.ended(run)
        assert run.how == (FAILED, Cause.NODE)
        assert "could not start a worker" in run.end.text


# ---- kinds ----


async def test_job_gets_no_worker_with_other_walls_and_again_one_with_its_own(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        small = await play.done(memory_bytes=64 * MIB)
        large = await play.done(memory_bytes=65 * MIB)
        assert small is not large
        assert await play.done(memory_bytes=64 * MIB) is small
        assert [cell.kind.walls.memory_bytes for cell in (small, large)] == [64 * MIB, 65 * MIB]


async def test_accounts_get_workers_of_their_own(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        hers, his = await play.done(), await play.done(account=BOB)
        assert hers is not his
        assert (hers.kind.account, his.kind.account) == (ALICE, BOB)
        assert hers.mark != his.mark


async def test_idle_workers_of_other_kinds_make_room_when_an_account_has_many(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path, slots=1) as play:
        most = 1 + roster.SPARE_CELLS
        for number in range(1, most + 3):
            await play.done(memory_bytes=number * MIB)
        await play.until(lambda: len(play.pool._workers) == most)


async def test_idle_workers_of_other_accounts_make_room_when_there_are_many(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path, slots=1) as play:
        play.pool.warm(ALICE, 1)
        await play.until(lambda: play.maker.cells)
        most = roster.CELLS_PER_SLOT + roster.SPARE_CELLS
        for number in range(most + 3):
            await play.done(account=bytes([number]) * 32)
        await play.until(lambda: len(play.pool._workers) == most)
        assert play.maker.cells[0].kind.account == ALICE
        assert play.maker.cells[0].asked == []


async def test_warm_workers_leave_their_room_to_the_kinds_that_run(tmp_path: Path) -> None:
    async with playing(tmp_path, slots=2) as play:
        play.pool.warm(ALICE, 2)
        await play.until(lambda: len(play.maker.cells) == 2)
        runs = [await play.begun(memory_bytes=MIB) for _ in range(4)]
        await play.until(lambda: [run[1].kind.walls.memory_bytes for run in runs] == [MIB] * 4)
        idle = [w for w in play.pool._workers if w.kind.walls.memory_bytes == 0]
        await play.until(lambda: not [w for w in play.pool._workers if w in idle])
        assert play.maker.begun == 6


async def test_warm_ends_idle_workers_of_all_kinds_when_an_account_is_let_go(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        play.pool.warm(ALICE, 1)
        await play.done(memory_bytes=MIB)
        await play.done(account=BOB)
        play.pool.warm(ALICE, 0)
        await play.until(lambda: {w.kind.account for w in play.pool._workers} == {BOB})


# ---- limits and meters ----


async def test_limit_that_the_kernel_hit_ends_a_job_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "LIMITED_S", 0.01)
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun(memory_bytes=64 * MIB)
        cell.verdict = OUT_OF_MEMORY
        await play.ended(run)
        assert run.how == (LIMIT, Cause.MEMORY)
        assert run.end.text == OUT_OF_MEMORY.text


async def test_sample_over_the_walls_ends_a_job_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "LIMITED_S", 0.01)
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun(memory_bytes=64 * MIB)
        cell.held = 65 * MIB
        await play.ended(run)
        assert run.how == (LIMIT, Cause.MEMORY)
        assert str(65 * MIB) in run.end.text
        assert run.end.usage.peak_memory_bytes == 65 * MIB


@pytest.mark.parametrize("how", ["dies", "raises", "returns"])
async def test_limit_that_the_kernel_hit_is_the_reason_however_the_job_ended(
    tmp_path: Path, how: str
) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun(memory_bytes=64 * MIB)
        cell.verdict = OUT_OF_MEMORY
        if how == "dies":
            cell.die()
        elif how == "raises":
            cell.ran(stream_id, state=JobState.FAILED, cause=Cause.EXCEPTION, text="MemoryError")
        else:
            cell.ran(stream_id)
        await play.ended(run)
        assert run.how == (LIMIT, Cause.MEMORY)
        assert run.end.result == b""
        await play.until(lambda: "clear_away" in cell.asked)


async def test_limit_that_the_kernel_hit_is_known_before_the_counters_go_with_the_supervisor(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun(memory_bytes=64 * MIB)
        cell.awaits_hang_up = cell.is_forgetful = True
        cell.verdict, cell.meter = OUT_OF_MEMORY, Metered(1500, 64 * MIB)
        cell.lose_interpreter()
        usage = (await play.ended(run)).usage
        assert run.how == (LIMIT, Cause.MEMORY)
        assert (usage.cpu_ms, usage.peak_memory_bytes) == (1500, 64 * MIB)
        assert cell.asked == ["begin", "wake", "end", "hang up", "clear_away"]


async def test_limit_that_the_kernel_hit_is_known_before_a_cell_without_supervisor_is_ended(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun(memory_bytes=64 * MIB)
        cell.is_forgetful = True
        cell.verdict, cell.meter = OUT_OF_MEMORY, Metered(1500, 64 * MIB)
        cell.die()
        usage = (await play.ended(run)).usage
        assert run.how == (LIMIT, Cause.MEMORY)
        assert (usage.cpu_ms, usage.peak_memory_bytes) == (1500, 64 * MIB)
        assert "end_all" in cell.asked


async def test_result_that_came_before_the_supervisors_last_word_counts(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.awaits_hang_up = cell.is_forgetful = True
        cell.meter = Metered(1500, 64 * MIB)
        cell.ran(stream_id)
        cell.say_last_word()
        usage = (await play.ended(run)).usage
        assert (run.how, run.end.result, usage.cpu_ms) == (DONE, b"result", 1500)
        await play.until(lambda: "clear_away" in cell.asked)


async def test_cancel_stays_the_reason_when_a_limit_was_hit_too(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun()
        play.pool.cancel(run.task.execution)
        cell.verdict = OUT_OF_MEMORY
        await play.ended(run)
        assert run.how == KILLED


async def test_meter_of_the_cell_counts_more_than_the_workers_word(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.meter = Metered(1500, 9 * MIB, True, 4096, 8192)
        cell.ran(stream_id, cpu_ms=1, peak_memory_bytes=MIB)
        usage = (await play.ended(run)).usage
        assert (usage.cpu_ms, usage.peak_memory_bytes, usage.peak_is_shared) == (
            1500,
            9 * MIB,
            True,
        )
        assert (usage.disk_read_bytes, usage.disk_written_bytes) == (4096, 8192)


async def test_word_of_the_worker_counts_where_the_cell_has_no_meter(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.meter = Metered(peak_bytes=2 * MIB)
        cell.ran(stream_id, cpu_ms=77, peak_memory_bytes=MIB, disk_written_bytes=512)
        usage = (await play.ended(run)).usage
        assert (usage.cpu_ms, usage.peak_memory_bytes, usage.peak_is_shared) == (77, 2 * MIB, False)
        assert (usage.disk_read_bytes, usage.disk_written_bytes) == (0, 512)


@pytest.mark.parametrize("forged", [(1 << 50) + 1, 1 << 63, (1 << 64) - 1])
async def test_word_of_the_worker_counts_nothing_where_it_is_absurd(
    tmp_path: Path, forged: int
) -> None:
    words = ("cpu_ms", "peak_memory_bytes", "disk_read_bytes", "disk_written_bytes")
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.meter = Metered(peak_bytes=2 * MIB)
        cell.ran(stream_id, **dict.fromkeys(words, forged))
        usage = (await play.ended(run)).usage
        assert [getattr(usage, word) for word in words] == [0, 2 * MIB, 0, 0]
        run, cell, _ = await play.begun()
        cell.last_word = WorkerEnded(1, 0, **dict.fromkeys(words, forged))
        play.pool.cancel(run.task.execution)
        usage = (await play.ended(run)).usage
        assert [getattr(usage, word) for word in words] == [0, 2 * MIB, 0, 0]


async def test_job_whose_worker_ended_used_what_earlier_jobs_did_not(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.ran(stream_id, cpu_ms=100, disk_read_bytes=512, disk_written_bytes=1024)
        await play.ended(run)
        run, cell, _ = await play.begun()
        cell.last_word = WorkerEnded(
            1, 0, cpu_ms=130, disk_read_bytes=1024, disk_written_bytes=1024
        )
        play.pool.cancel(run.task.execution)
        usage = (await play.ended(run)).usage
        assert (usage.cpu_ms, usage.disk_read_bytes, usage.disk_written_bytes) == (30, 512, 0)


# ---- a job in its cell ----


async def test_job_is_told_the_paths_that_its_files_have_inside(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        more = {"program": Path("/store/abc"), "bundle": Path("/store/def")}
        play.run(**more, form=JobForm.COMMAND, folder=Path("/jobs/12.1"))
        cell = await play.until(lambda: play.maker.cells and play.maker.cells[0])
        order, _ = await play.until(cell.order)
        paths = (order.program, order.bundle, order.folder)
        assert paths == ("/inside/abc", "/inside/def", "/inside/12.1")


async def test_job_fails_when_its_files_cannot_be_brought_into_the_cell(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        cell = await play.done()
        cell.cannot = "no space left on the device"
        run = play.run(bundle=Path("/store/def"))
        await play.ended(run)
        assert run.how == (FAILED, Cause.NODE)
        assert cell.cannot in run.end.text
        assert run.end.ended == 0


async def test_worker_takes_no_other_job_when_something_is_left_in_its_cell(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.any_left = True
        cell.ran(stream_id)
        await play.ended(run)
        assert run.how == DONE
        assert await play.done() is not cell


async def test_supervisor_is_woken_before_it_is_waited_for(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun()
        play.pool.cancel(run.task.execution)
        await play.ended(run)
        assert cell.asked == ["begin", "wake", "end", "clear_away"]


async def test_cell_is_ended_by_force_when_its_supervisor_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "END_TIMEOUT_S", 0.01)
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun()
        cell.is_stubborn = True
        play.pool.cancel(run.task.execution)
        await play.ended(run)
        assert run.how == KILLED
        assert (run.end.ended, cell.asked[-2:]) == (2, ["end_all", "clear_away"])


# ---- the loss of all cells ----


async def test_jobs_fail_for_the_node_when_their_engine_is_lost_and_later_ones_run(
    tmp_path: Path,
) -> None:
    why = "the container engine stopped while the job ran"
    async with playing(tmp_path) as play:
        play.pool.warm(ALICE, 3)
        runs = [await play.begun(), await play.begun()]
        begun = list(play.maker.cells)
        play.maker.when_lost(why)
        for run, _, _ in runs:
            assert (await play.ended(run)).text == why
            assert run.how == (FAILED, Cause.NODE)
        await play.until(lambda: all("clear_away" in cell.asked for cell in begun))
        assert await play.done() not in begun


async def test_job_that_was_cancelled_stays_so_when_its_engine_is_lost_meanwhile(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun()
        cell.is_stubborn = True
        play.pool.cancel(run.task.execution)
        play.maker.when_lost("the engine stopped")
        await play.ended(run)
        assert run.how == KILLED


async def test_job_whose_cell_died_with_its_engine_fails_for_the_node(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun()
        cell.verdict = failed(Cause.NODE, "the container engine stopped")
        cell.die()
        await play.ended(run)
        assert run.how == (FAILED, Cause.NODE)


async def test_job_fails_when_its_engine_is_lost_before_its_worker_is_ready(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        play.maker.is_ready = False
        run = play.run()
        await play.until(lambda: play.maker.cells)
        play.maker.is_ready = True
        play.maker.when_lost("the engine stopped")
        assert "the engine stopped" in (await play.ended(run)).text


# ---- suspending ----


async def test_suspended_is_told_when_the_cell_stands_still(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.freezing = asyncio.get_running_loop().create_future()
        play.pool.suspend(run.task.execution)
        await play.until(lambda: "freeze" in cell.asked)
        assert run.moves == []
        cell.freezing.set_result(None)
        await play.until(lambda: run.moves == ["suspended"])
        play.pool.resume(run.task.execution)
        await play.until(lambda: run.moves == ["suspended", "resumed"])
        cell.ran(stream_id)
        await play.ended(run)
        assert await play.done() is cell
        assert cell.asked == ["begin", "freeze", "thaw", "begin"]


async def test_resume_follows_a_suspension_that_was_not_there_yet(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun()
        cell.freezing = asyncio.get_running_loop().create_future()
        play.pool.suspend(run.task.execution)
        await play.until(lambda: "freeze" in cell.asked)
        play.pool.resume(run.task.execution)
        cell.freezing.set_result(None)
        await play.until(lambda: run.moves == ["suspended", "resumed"])
        play.pool.cancel(run.task.execution)


async def test_job_that_waits_is_held_back_until_it_is_resumed(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run = play.run()
        play.pool.suspend(run.task.execution)
        await play.until(lambda: run.moves == ["suspended"])
        (cell,) = play.maker.cells
        assert (run.started, cell.order()) == (1, None)
        play.pool.suspend(run.task.execution)
        play.pool.resume(run.task.execution)
        await play.until(lambda: run.moves == ["suspended", "resumed"])
        _, stream_id = await play.until(cell.order)
        cell.ran(stream_id)
        await play.ended(run)
        assert (run.how, cell.asked) == (DONE, ["begin"])


async def test_job_fails_when_its_cell_cannot_be_frozen(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun()
        cell.cannot = "the freezer is gone"
        play.pool.suspend(run.task.execution)
        await play.ended(run)
        assert run.how == (FAILED, Cause.NODE)
        assert cell.cannot in run.end.text


async def test_job_that_returns_while_it_is_frozen_is_done_and_its_worker_ends(
    tmp_path: Path,
) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.freezing = asyncio.get_running_loop().create_future()
        play.pool.suspend(run.task.execution)
        await play.until(lambda: "freeze" in cell.asked)
        cell.ran(stream_id)
        await play.ended(run)
        assert run.how == DONE
        assert (run.moves, run.end.ended) == ([], 0)
        assert await play.done() is not cell


async def test_cell_is_not_frozen_when_its_worker_is_ending(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, stream_id = await play.begun()
        cell.any_left = True
        cell.is_stubborn = True
        cell.ran(stream_id)
        await play.until(lambda: "wake" in cell.asked)
        play.pool.suspend(run.task.execution)
        await asyncio.sleep(0)
        assert "freeze" not in cell.asked
        cell.say_last_word()
        cell.die()
        await play.ended(run)
        assert (run.how, run.moves) == (DONE, [])


async def test_cancel_ends_a_job_that_is_frozen(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        run, cell, _ = await play.begun()
        play.pool.suspend(run.task.execution)
        await play.until(lambda: run.moves == ["suspended"])
        play.pool.cancel(run.task.execution)
        await play.ended(run)
        assert run.how == KILLED
        assert cell.asked[-3:] == ["wake", "end", "clear_away"]


async def test_idle_worker_is_asked_for_no_more_than_what_a_job_needs(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        cell = await play.done()
        begun = time.monotonic()
        run = play.run()
        order = cell.order()  # it has come before any turn of the loop
        assert order is not None
        cell.ran(order[1])
        await play.ended(run)
        assert time.monotonic() - begun < 5
