"""An event loop in a thread, and what plain code takes from it: results, batches, callbacks."""

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, Self, TypeVar

from alpyne_grid.manager.errors import ManagerClosed

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="alpyne-manager", daemon=True)
        self._closed = False
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(_ended())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and return its result."""
        if self._closed:
            work.close()
            raise ManagerClosed("the manager is closed; connect again")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "a blocking call on the manager's own thread would wait for itself; callbacks "
                "that need the grid use another thread"
            )
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise ManagerClosed("the manager was closed while this waited") from None
        except BaseException:
            future.cancel()
            raise

    def call_function(self, function: Callable[[], T]) -> T:
        """Call a function on the loop and return its result."""

        async def work() -> T:
            return function()

        return self.call(work())

    def close(self) -> None:
        """Stop the loop and end the thread."""
        if not self._closed:
            self._closed = True
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


class Batches(Generic[T]):
    """A plain iterator over an asynchronous one, taking many items at a time."""

    def __init__(self, thread: LoopThread, items: AsyncIterator[T], at_once: int) -> None:
        self._thread = thread
        self._items = items
        self._at_once = at_once
        self._kept: Iterator[T] = iter(())
        self._ended = False
        # Whoever drops the iterator wants nothing more: what comes for it is called off.
        self._finalizer = weakref.finalize(self, _drop, thread, items)
        self._finalizer.atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        for item in self._kept:
            return item
        if self._ended:
            raise StopIteration
        batch = self._thread.call(self._take())
        self._ended = len(batch) < self._at_once
        self._kept = iter(batch)
        for item in self._kept:
            return item
        raise StopIteration

    async def _take(self) -> list[T]:
        batch: list[T] = []
        async for item in self._items:
            batch.append(item)
            if len(batch) == self._at_once:
                break
        return batch


_callback_pool: concurrent.futures.ThreadPoolExecutor | None = None
_callback_lock = threading.Lock()


def callbacks() -> concurrent.futures.ThreadPoolExecutor:
    """Return the thread that runs callbacks, one after the other."""
    global _callback_pool  # noqa: PLW0603 - one for the program, made when first needed
    with _callback_lock:
        if _callback_pool is None:
            _callback_pool = concurrent.futures.ThreadPoolExecutor(1, "alpyne-callbacks")
        return _callback_pool


async def _ended() -> None:
    """Cancel what still runs on the loop, and wait for its end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _drop(thread: LoopThread, items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close is None:
        return

    async def quietly() -> None:
        with contextlib.suppress(RuntimeError):  # it is just being read, and will end by itself
            await close()

    with contextlib.suppress(RuntimeError):  # the loop is closed: so is everything on it
        thread.loop.call_soon_threadsafe(lambda: thread.loop.create_task(quietly()))
