"""Deleting many objects at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from alpyne_grid.manager.objects import AsyncContainer
from alpyne_grid.manager.streams import ResultStream

from alpyne_proto.jobobject import JobObject

AT_ONCE = 16


async def noting(stream: ResultStream, scratch: list[JobObject]) -> AsyncIterator[Any]:
    async for item in stream:
        scratch.append(item)
        yield item


async def delete_all(container: AsyncContainer, items: Sequence[JobObject]) -> None:
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:
            await container.delete(item.path, missing_ok=True)

    await asyncio.gather(*(lane() for _ in range(min(AT_ONCE, len(items)))))
