"""The pool as it is now: each node's own word on its offer, load, and traffic."""

import asyncio
from dataclasses import dataclass

from alpyne_grid.manager.core import GridCore
from alpyne_grid.manager.links import Link

from alpyne_proto.errors import AlpyneError
from alpyne_proto.messages.access import GetStatus, NodeStatus

ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the pool. ``status`` is None where it does not answer, and ``error`` says why.

    ``key``: its static key, 32 bytes. ``label``: its host label. ``kind``: compute or data.
    """

    key: bytes
    name: str
    address: str
    kind: str
    label: str
    trusted: bool
    status: NodeStatus | None
    error: str = ""


async def nodes(core: GridCore) -> list[Node]:
    """Ask all nodes of the pool at once; one that does not answer within seconds has no status."""
    return list(await asyncio.gather(*(_ask(link) for link in core.links.values())))


async def _ask(link: Link) -> Node:
    status, error = None, ""
    try:
        answer = await link.call(GetStatus(), timeout_s=ANSWER_S, wait_s=ANSWER_S)
    except AlpyneError as failed:
        error = str(failed)
    else:
        assert isinstance(answer.message, NodeStatus), "the registry names the answer"
        status = answer.message
    return Node(
        key=link.key,
        name=link.name,
        address=str(link.node.address),
        kind=link.kind.name.lower() if link.kind is not None else "unknown",
        label=link.label,
        trusted=link.trusted,
        status=status,
        error=error,
    )
