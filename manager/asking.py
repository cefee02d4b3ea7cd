"""Asking the members of a container: all that can answer, and what their answers add up to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from alpyne_grid.manager.errors import MaybeStale, NodeUnreachable
from alpyne_grid.manager.links import Link

from alpyne_proto.errors import AlpyneError

ANSWER_S = 10.0  # for a request without a body
WAIT_S = 3.0  # for a member that is not connected, where its answer is needed
T = TypeVar("T")


class DataNodes(Protocol):
    """The links to data nodes."""

    @property
    def links(self) -> Mapping[bytes, Link]:
        """All links of the manager by key."""
        ...

    def node_name(self, key: bytes | None) -> str:
        """Return what people call a node."""
        ...


@dataclass(slots=True)
class Answers(Generic[T]):
    """What members said: answers and errors by key."""

    found: dict[bytes, T] = field(default_factory=dict)
    failures: dict[bytes, AlpyneError] = field(default_factory=dict)

    def check(self, needed: int, what: str, nodes: DataNodes) -> None:
        """Raise MaybeStale where fewer than ``needed`` answered."""
        if len(self.found) >= needed:
            return
        why = "; ".join(f"{nodes.node_name(key)}: {e}" for key, e in self.failures.items())
        raise MaybeStale(
            f"{what}: {len(self.found)} members answered, {needed} are needed to know the newest "
            f"version ({why}); try again, or read with allow_stale=True"
        )


async def ask_members(
    nodes: DataNodes,
    members: Sequence[bytes],
    ask: Callable[[Link], Awaitable[T]],
    *,
    needed: int,
) -> Answers[T]:
    """Ask all members at once; wait for those that are not connected only if they are needed."""
    answers: Answers[T] = Answers()
    up = [key for key in members if (link := nodes.links.get(key)) is not None and link.is_up]
    await _ask_some(nodes, up, ask, answers, wait_s=0.0)
    if len(answers.found) < needed:
        others = [key for key in members if key not in answers.found]
        await _ask_some(nodes, others, ask, answers, wait_s=WAIT_S)
    return answers


async def _ask_some(
    nodes: DataNodes,
    keys: Sequence[bytes],
    ask: Callable[[Link], Awaitable[T]],
    answers: Answers[T],
    *,
    wait_s: float,
) -> None:
    async def one(key: bytes) -> None:
        link = nodes.links.get(key)
        if link is None:
            answers.failures[key] = NodeUnreachable(
                f"node {nodes.node_name(key)} is not in the pool; pair with it"
            )
            return
        try:
            if wait_s:
                await link.ready(wait_s)
            answers.found[key] = await ask(link)
            answers.failures.pop(key, None)
        except AlpyneError as error:
            answers.failures[key] = error

    if len(keys) == 1:
        await one(keys[0])
    elif keys:
        await asyncio.gather(*map(one, keys))
