"""The score of a node: estimated first, then measured while it idles, then remembered."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from alpyne_grid.nodes.compute import benchmark

from alpyne_proto.messages.access import GetStatus, NodeStatus

NodeOf = Callable[..., AbstractAsyncContextManager[Any]]
POLL_S = 0.05
WITHIN_S = 60.0


async def status_of(manager: Any) -> NodeStatus:
    answer = await manager.connection.call(GetStatus())
    assert isinstance(answer.message, NodeStatus)
    return answer.message


def test_node_measures_its_score_when_it_idles_and_keeps_it(
    node_of: NodeOf,
    manager: Any,
    another: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark, "IDLE_S", 0.0)
    monkeypatch.setattr(benchmark, "IDLE_LOAD", float("inf"))  # the tests' machine is busy

    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            status = first = await status_of(manager)
            assert first.score_estimated
            async with asyncio.timeout(WITHIN_S):
                while status.score_estimated:
                    await asyncio.sleep(POLL_S)
                    status = await status_of(manager)
            assert status.score > 0
            assert status.score_all > 0
        again = another(manager.account)
        async with node_of(manager) as node:
            await again.dial(node)
            kept = await status_of(again)
            assert not kept.score_estimated
            assert (kept.score, kept.score_all) == (status.score, status.score_all)

    asyncio.run(main())
