"""The plain front: a loop in a thread, iterators over it, progress bars on terminals only."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from alpyne_grid.manager.errors import ManagerClosed
from alpyne_grid.manager.loop_thread import Batches, LoopThread
from alpyne_grid.manager.progress import Progress
from alpyne_grid.manager.trees import Transfer


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.close()


def test_call_returns_what_the_coroutine_returns_and_raises_what_it_raises(
    thread: LoopThread,
) -> None:
    async def work(fails: bool) -> str:
        if fails:
            raise KeyError("no")
        return threading.current_thread().name

    assert thread.call(work(False)) == "alpyne-manager"
    with pytest.raises(KeyError):
        thread.call(work(True))


def test_call_after_the_end_says_that_the_manager_is_closed(thread: LoopThread) -> None:
    thread.close()
    with pytest.raises(ManagerClosed):
        thread.call(asyncio.sleep(0))


def test_blocking_call_on_the_loops_own_thread_is_refused_instead_of_waiting_for_ever(
    thread: LoopThread,
) -> None:
    async def work() -> None:
        thread.call(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="would wait for itself"):
        thread.call(work())


def test_call_cancels_its_work_when_it_is_interrupted(thread: LoopThread) -> None:
    cancelled = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        thread.call(work(), timeout=0.05)
    assert cancelled.wait(5)


class Letters:
    """An asynchronous generator of letters that says when it is closed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.closed = threading.Event()
        self.waits = 0

    async def items(self) -> AsyncIterator[str]:
        try:
            for letter in self.text:
                self.waits += 1
                await asyncio.sleep(0)
                yield letter
        finally:
            self.closed.set()


def test_batches_give_every_item_in_order(thread: LoopThread) -> None:
    for count in (0, 1, 2, 3, 4, 7):
        text = "abcdefg"[:count]
        assert "".join(Batches(thread, Letters(text).items(), 2)) == text


def test_batches_take_no_more_than_one_batch_ahead(thread: LoopThread) -> None:
    letters = Letters("abcdefg")
    assert next(Batches(thread, letters.items(), 2)) == "a"
    assert letters.waits == 2


def test_batches_end_their_source_when_they_are_dropped(thread: LoopThread) -> None:
    letters = Letters("abcdefg")
    batches = Batches(thread, letters.items(), 2)
    next(batches)
    del batches
    gc.collect()
    assert letters.closed.wait(5)


# ---- progress --------------------------------------------------------------------------------


def test_nothing_is_drawn_when_standard_error_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(wanted=None)
    with progress.bar("push") as bar:
        bar.show_transfer(Transfer(files=1, total=2))
    progress.close()
    assert capsys.readouterr().err == ""


def test_bar_shows_title_and_numbers_when_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(wanted=True)
    with progress.bar("push things") as bar:
        bar.show_transfer(Transfer(files=1, unchanged=2, total=4))
        time.sleep(0.15)  # the display draws ten times per second
    progress.close()
    drawn = capsys.readouterr().err
    assert "push things" in drawn and "3/4" in drawn


def test_display_stops_with_its_last_bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(wanted=True)
    first, second = progress.bar("one"), progress.bar("two")
    first.show_transfer(Transfer(total=1))
    second.show_transfer(Transfer(total=1))
    first.close()
    assert progress._display is not None
    second.close()
    assert progress._display is None


def test_library_that_draws_is_not_loaded_before_something_is_drawn() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, alpyne_grid.manager; print('rich' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
