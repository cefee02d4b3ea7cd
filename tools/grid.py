"""A manager for the time of one command."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from alpyne_grid.manager import AsyncManager
from alpyne_grid.tools import home

from alpyne_proto.errors import AlpyneError, ErrorCode

_T = TypeVar("_T")
CONNECT_S = 5.0  # for the first connections; a node that is off may take no longer


class EmptyPool(AlpyneError):
    """There is no node to turn to."""

    code = ErrorCode.IDLE_TIMEOUT


def with_grid(work: Callable[[AsyncManager], Awaitable[_T]], *, modules: Sequence[Path] = ()) -> _T:
    """Connect to the pool, do ``work`` with the manager, close it; return what ``work`` does.

    ``modules``: files and packages to send with jobs. Raises EmptyPool and what connecting raises.
    """
    if not home.pool_nodes():
        raise EmptyPool("the pool has no nodes; `alpyne pair ADDRESS` adds one")

    async def connected() -> _T:
        connecting = AsyncManager.connect(
            home=home.home(),
            passphrase=home.ask_passphrase,
            modules=modules,
            timeout=CONNECT_S,
        )
        async with connecting as grid:
            return await work(grid)

    return asyncio.run(connected())
