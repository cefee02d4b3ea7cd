"""What a map runs, and its chunks: items, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from alpyne_grid.manager import program as programs
from alpyne_grid.manager.errors import BY_CAUSE, JobFailed
from alpyne_grid.manager.options import CheckedOptions
from alpyne_grid.manager.results import Failed, Unreadable
from alpyne_grid.manager.sources import Item
from alpyne_grid.manager.specs import Target

from alpyne_proto.errors import LocalProtocolError
from alpyne_proto.jobobject import JobObject, from_plain
from alpyne_proto.messages.compute import ResultCodec

PENDING = object()  # stands for an outcome that is not known yet


@dataclass(frozen=True, slots=True)
class MapWork:
    """What a map runs.

    ``function``: its encoded row; ``objects``: those that it captured. ``target``, ``copies``:
    where values go instead of coming back. ``load``: value objects among arguments are loaded.
    """

    function: bytes
    objects: tuple[JobObject, ...]
    name: str
    options: CheckedOptions
    group: bytes
    target: Target | None = None
    copies: int = 0
    load: bool = False

    def program(self, first: int, items: Sequence[Item]) -> programs.Program:
        """Return the program of one chunk."""
        target = self.target
        return programs.chunk(
            self.function,
            self.objects,
            items,
            name=self.name,
            first=first,
            into=target.container_id if target is not None else b"",
            into_prefix=f"{target.prefix}/" if target is not None else "",
            copies=self.copies,
            load=self.load,
        )


@dataclass(slots=True, eq=False)
class Chunk:
    """Items from ``first`` on, and what became of them; part of ``parent`` where that divided."""

    first: int
    items: Sequence[Item]
    outcomes: list[Any]
    missing: int
    parent: "Chunk | None" = None
    tries: int = 0  # of a single item that raised
    result_bytes: int = 0

    @classmethod
    def of(cls, first: int, items: Sequence[Item], parent: "Chunk | None" = None) -> "Chunk":
        """Return a chunk of which nothing is known yet."""
        return cls(first, items, [PENDING] * len(items), len(items), parent)


def written_object(plain: Any, target: Target, codec: ResultCodec) -> JobObject:
    """Return the object that a node says it has written; Unreadable for one outside its target.

    ``codec``: that it was asked for; what the node says of it does not count.
    """
    try:
        item = from_plain(plain)
    except (LocalProtocolError, TypeError) as error:
        raise Unreadable(str(error)) from None
    if item.container_id != target.container_id or not item.path.startswith(f"{target.prefix}/"):
        raise Unreadable(f"a node names {item.path!r:.100} as its result, outside its target")
    return replace(item, codec=int(codec))


def all_failed(chunk: Chunk, error: JobFailed) -> list[Any]:
    return [Failed(_of_item(error, chunk.first + at)) for at in range(len(chunk.items))]


def _of_item(error: JobFailed, index: int) -> JobFailed:
    """Return the error of one item of a chunk that failed as a whole."""
    own = BY_CAUSE.get(error.cause, JobFailed) if type(error) is JobFailed else type(error)
    copy = own(
        error.reason,
        job_id=error.job_id,
        node=error.node,
        cause=error.cause,
        traceback=error.traceback,
        remedy=error.remedy,
        item=index,
        exit_status=error.exit_status,
        receipt=error.receipt,
    )
    copy.__cause__ = error.__cause__
    return copy
