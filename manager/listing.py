"""Lists of a container: what its members say, merged by path as it arrives."""

import heapq
from collections.abc import AsyncIterator
from typing import Any, Self

from alpyne_grid.manager.asking import ANSWER_S, DataNodes, ask_members
from alpyne_grid.manager.errors import MaybeStale
from alpyne_grid.manager.links import Link
from alpyne_grid.manager.versions import Descriptor

from alpyne_proto.errors import AlpyneError, ErrorCode, RequestFailed
from alpyne_proto.messages import data as messages


class Listing:
    """The members' lists side by side, merged by path as they arrive."""

    def __init__(
        self,
        nodes: DataNodes,
        where: Descriptor,
        request: messages.ListObjects,
        needed: int | None,
    ) -> None:
        self._nodes = nodes
        self._where = where
        self._request = request
        self._needed = needed if needed is not None else where.answers_needed
        self._rows: dict[bytes, AsyncIterator[Any]] = {}
        self._bodies: list[Any] = []
        self._heads: list[tuple[str, bytes, messages.ObjectRow]] = []
        self._failures: dict[bytes, AlpyneError] = {}

    async def begin(self) -> None:
        """Ask all members; MaybeStale where too few answer."""

        async def ask(link: Link) -> Any:
            try:
                answer = await link.call(self._request, timeout_s=ANSWER_S)
            except RequestFailed as error:
                if error.code is ErrorCode.NOT_FOUND:
                    return None  # a member without the descriptor has no objects
                raise
            return answer.body

        members = self._where.members
        answers = await ask_members(self._nodes, members, ask, needed=self._needed)
        self._failures.update(answers.failures)
        self._bodies = [body for body in answers.found.values() if body is not None]
        answers.check(self._needed, f"container {self._where.name!r}", self._nodes)
        for key, body in answers.found.items():
            if body is not None:
                self._rows[key] = body.rows(messages.ObjectRow)
                await self._advance(key)

    async def _advance(self, key: bytes) -> None:
        try:
            row, _ = await anext(self._rows[key])
        except StopAsyncIteration:
            return
        except AlpyneError as error:
            self._failures[key] = error
            if len(self._where.members) - len(self._failures) < self._needed:
                raise MaybeStale(
                    f"container {self._where.name!r}: a list ended early at "
                    f"{self._nodes.node_name(key)} ({error}); list again"
                ) from None
            return
        heapq.heappush(self._heads, (row.path, key, row))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, dict[bytes, messages.ObjectInfo]]:
        """Return the next path and what the members say of it."""
        if not self._heads:
            raise StopAsyncIteration
        path = self._heads[0][0]
        found: dict[bytes, messages.ObjectInfo] = {}
        while self._heads and self._heads[0][0] == path:
            _, key, row = heapq.heappop(self._heads)
            found[key] = messages.ObjectInfo(
                row.counter, row.writer, row.size, row.sha256, row.deleted, row.modified_at_ms
            )
            await self._advance(key)
        return path, found

    def close(self) -> None:
        """Ask for no more rows."""
        for body in self._bodies:
            body.cancel()
