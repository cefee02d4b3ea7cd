"""Redialler: keeps one connection to a node alive, with backoff and jitter between attempts."""

import asyncio
import random as _random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from alpyne_grid.wire.connection import Connection
from alpyne_grid.wire.log import Log, place_of

from alpyne_proto.errors import AlpyneError, ConnectionLost

_SHORT_LIFE_S = 1.0  # a connection that lives less long counts as a failure


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before an attempt: a random part of a span that doubles per failure.

    The whole span is random ("full jitter"), so that many diallers of a node that restarts do not
    come back all at once.
    """

    first_s: float = 0.1
    most_s: float = 30.0

    def delay_s(self, failures: int, chance: float) -> float:
        """Return seconds; failures: in a row, from 1; chance: random, 0 to 1."""
        doublings = min(failures - 1, 30)
        return chance * min(self.most_s, self.first_s * (1 << doublings))


class Redialler:
    """Dials until it is closed; whenever the connection is lost it dials again.

    ``connection`` is the one that is up, or None.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Connection]],
        *,
        on_up: Callable[[Connection], None] = lambda connection: None,
        on_down: Callable[[Connection], None] = lambda connection: None,
        on_failure: Callable[[AlpyneError], None] = lambda error: None,
        backoff: Backoff | None = None,
        random: Callable[[], float] = _random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        log: Log | None = None,
    ) -> None:
        """dial: makes one attempt, for instance a call of `wire.dial`; it raises AlpyneError.

        on_up, on_down, on_failure: called on the event loop, in this order of a connection's life.
        random, sleep: chance from 0 to 1, and waiting.
        """
        self.connection: Connection | None = None
        self.last_error: AlpyneError | None = None  # why it is not up
        self._dial = dial
        self._on_up = on_up
        self._on_down = on_down
        self._on_failure = on_failure
        self._backoff = backoff or Backoff()
        self._random = random
        self._sleep = sleep
        self._log = log or Log("wire.redial")
        self._up = asyncio.Event()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to dial; nothing happens where it was started before."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def dial_now(self) -> None:
        """End the wait between attempts: there is news of the node, or somebody needs it."""
        self._hurry.set()

    async def connected(self, timeout_s: float | None = None) -> Connection:
        """Return the connection, once it is up.

        Raises ConnectionLost, with what the last attempt failed of, after timeout_s.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.connection is None or not self.connection.is_open:
                    self._up.clear()
                    await self._up.wait()
        except TimeoutError:
            if self.last_error is not None:
                raise self.last_error from None
            raise ConnectionLost(f"no connection within {timeout_s} s") from None
        return self.connection

    async def close(self) -> None:
        """Stop, and close the connection where it is up."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        failures = 0
        clock = asyncio.get_running_loop().time
        while True:
            try:
                connection = await self._dial()
            except Exception as error:  # noqa: BLE001 - whatever failed, the node is dialled again
                failures += 1
                self._fail(error, failures)
            else:
                began = clock()
                await self._follow(connection)
                # One that is accepted and lost at once must not be dialled in a tight loop.
                failures = failures + 1 if clock() - began < _SHORT_LIFE_S else 1
            await self._wait(self._backoff.delay_s(failures, self._random()))

    def _fail(self, error: Exception, failures: int) -> None:
        expected = isinstance(error, (AlpyneError, OSError))
        write = self._log.debug if expected else self._log.error
        write("dial_failed", error=error, failures=failures, at=place_of(error))
        if not isinstance(error, AlpyneError):
            error = ConnectionLost(f"dialling failed: {error or type(error).__name__}")
        self.last_error = error
        self._tell(self._on_failure, error)

    async def _follow(self, connection: Connection) -> None:
        """Stay with a connection until it has ended."""
        self.connection, self.last_error = connection, None
        self._up.set()
        self._tell(self._on_up, connection)
        try:
            await connection.wait_closed()
        finally:
            if connection.is_open:
                await connection.close()
            self.connection = None
            self._tell(self._on_down, connection)

    def _tell(self, callback: Callable[[Any], None], what: object) -> None:
        """Call back; a failure there must not end the dialling."""
        try:
            callback(what)
        except Exception as error:  # noqa: BLE001 - it is the owner's, and is logged
            self._log.error("callback_failed", error=error, at=place_of(error))

    async def _wait(self, delay_s: float) -> None:
        self._hurry.clear()
        sleeping = asyncio.ensure_future(self._sleep(delay_s))
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((sleeping, hurried), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            hurried.cancel()
