"""Whether a job can be suspended and resumed where it is, and what to do where it cannot."""

from collections.abc import Collection

from alpyne_grid.manager.errors import CannotSuspend, NodeUnreachable
from alpyne_grid.manager.placement import Node


def check_node(job_id: str, name: str, node: Node | None) -> None:
    """Raise where the node that has a job cannot be told to pause it, or cannot do it.

    ``name``: the node's, for people. Raises NodeUnreachable, CannotSuspend.
    """
    if node is None or not node.up:
        raise NodeUnreachable(
            f"job {job_id}: its node {name} is not connected, and can be told nothing; "
            "try again when it is back (`alpyne nodes`)"
        )
    if not _can_suspend(node):
        raise CannotSuspend(
            f"job {job_id}: its node {name} cannot suspend jobs (its offer says "
            "suspend=none); cancel it, or ask for another node with require='suspend!=none'"
        )


def check_some(job_id: str, nodes: Collection[Node]) -> None:
    """Raise CannotSuspend where a job that has no node yet can get none that suspends jobs."""
    if nodes and not any(map(_can_suspend, nodes)):
        raise CannotSuspend(
            f"job {job_id}: no compute node that is known can suspend jobs (`alpyne nodes --long` "
            "shows it as suspend); cancel the job, or add a node that can"
        )


def _can_suspend(node: Node) -> bool:
    return node.facts.attributes.get("suspend", "none") != "none"
