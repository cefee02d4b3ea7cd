"""Container descriptors: found on the data nodes, made, and brought to members that lack them."""

import asyncio
import secrets
from collections.abc import Iterable, Sequence

from alpyne_grid.manager.asking import ANSWER_S, Answers, DataNodes, ask_members
from alpyne_grid.manager.errors import ContainerError, NodeUnreachable, NotEnoughCopies
from alpyne_grid.manager.links import Link
from alpyne_grid.manager.versions import Descriptor

from alpyne_proto import limits
from alpyne_proto.container import container_id
from alpyne_proto.errors import AlpyneError, ErrorCode, RequestFailed
from alpyne_proto.messages import data as messages
from alpyne_proto.messages.hello import NodeKind

DEFAULT_COPIES = 2
_ROUNDS = 5


class Containers:
    """The containers of one account."""

    def __init__(self, nodes: DataNodes, account: bytes) -> None:
        self._nodes = nodes
        self._account = account

    def id_of(self, name: str) -> bytes:
        """Return a container's id; NameRefused for a name that is not legal."""
        return container_id(self._account, name)

    async def find(self, name: str) -> Descriptor | None:
        """Return the newest descriptor that any data node has, or None."""
        found, answers = await self._look(self.id_of(name))
        if found is not None:
            await self._repair(found, answers)
        return found

    async def open(
        self, name: str, copies: int | None = None, members: Sequence[bytes] = ()
    ) -> Descriptor:
        """Return the container, made where there is none.

        ``copies``: k; None: what it has, or 2 (fewer in a smaller pool). ``members``: keys of its
        data nodes; none: all of the pool. Raises ContainerError where it exists with other copies
        or members.
        """
        found = await self.find(name)
        if found is None:
            return await self._create(name, copies, members)
        if copies is not None and copies != found.copies:
            raise ContainerError(
                f"container {name!r}: it has copies={found.copies}, asked {copies}; open it "
                "without copies=, or change it with reconfigure()"
            )
        if members and set(members) != set(found.members):
            raise ContainerError(
                f"container {name!r}: it has other members; open it without members=, or change "
                "it with reconfigure()"
            )
        return found

    async def reconfigure(
        self, before: Descriptor, copies: int, members: Sequence[bytes]
    ) -> Descriptor:
        """Write a new version of the descriptor; objects stay where they are."""
        self._check(before.name, copies, members)
        version = (before.version[0] + 1, secrets.token_bytes(16))
        after = Descriptor(before.container_id, before.name, copies, tuple(members), version)
        return await self._write(after, {*before.members, *members})

    async def names(self) -> list[messages.ContainerRow]:
        """Return the newest descriptors of all containers that data nodes know of this account."""

        async def ask(link: Link) -> list[messages.ContainerRow]:
            answer = await link.call(messages.ListContainers(), timeout_s=ANSWER_S)
            rows = [row async for row, _ in answer.body.rows(messages.ContainerRow)]
            return [row for row in rows if isinstance(row, messages.ContainerRow)]

        best: dict[bytes, messages.ContainerRow] = {}
        answers = await ask_members(self._nodes, self._data_keys(), ask, needed=1)
        for row in (row for rows in answers.found.values() for row in rows):
            known = best.get(row.container_id)
            if known is None or (row.counter, row.writer) > (known.counter, known.writer):
                best[row.container_id] = row
        return sorted(best.values(), key=lambda row: row.name)

    # --- private ----------------------------------------------------------------------------

    def _data_keys(self) -> list[bytes]:
        links = self._nodes.links.values()
        return [link.key for link in links if link.kind is not NodeKind.COMPUTE]

    async def _look(self, wanted: bytes) -> tuple[Descriptor | None, Answers[Descriptor | None]]:
        async def ask(link: Link) -> Descriptor | None:
            try:
                answer = await link.call(messages.GetContainer(wanted), timeout_s=ANSWER_S)
            except RequestFailed as error:
                if error.code in (ErrorCode.NOT_FOUND, ErrorCode.UNSUPPORTED):
                    return None  # not there, or not a data node after all
                raise
            assert isinstance(answer.message, messages.ContainerInfo)
            return Descriptor.of(answer.message)

        keys = self._data_keys()
        answers = await ask_members(self._nodes, keys, ask, needed=len(keys))
        if not answers.found:
            why = "; ".join(str(error) for error in answers.failures.values())
            raise NodeUnreachable(
                f"no data node answers ({why or 'the pool has none'}); start one, and pair with it"
            )
        found = [one for one in answers.found.values() if one is not None]
        return max(found, key=lambda one: one.version, default=None), answers

    async def _repair(self, found: Descriptor, answers: Answers[Descriptor | None]) -> None:
        """Bring the descriptor to members that answered with an older one or none."""
        lacking = [
            key
            for key in found.members
            if key in answers.found
            and ((known := answers.found[key]) is None or known.version < found.version)
        ]
        await asyncio.gather(*(self._put(key, found) for key in lacking), return_exceptions=True)

    def _check(self, name: str, copies: int, members: Sequence[bytes]) -> None:
        if not 1 <= copies <= limits.COPIES_MAX:
            raise ContainerError(f"container {name!r}: copies: expected 1 to {limits.COPIES_MAX}")
        if not copies <= len(members) <= limits.MEMBERS_MAX:
            raise ContainerError(
                f"container {name!r}: copies={copies} needs {copies} to {limits.MEMBERS_MAX} data "
                f"nodes, there are {len(members)}; pair with more, or ask for fewer copies"
            )

    async def _create(self, name: str, copies: int | None, members: Sequence[bytes]) -> Descriptor:
        links = self._nodes.links
        data_nodes = [key for key in self._data_keys() if links[key].kind is NodeKind.DATA]
        chosen = tuple(members) or tuple(data_nodes[: limits.MEMBERS_MAX])
        wanted = copies if copies is not None else max(1, min(DEFAULT_COPIES, len(chosen)))
        self._check(name, wanted, chosen)
        version = (1, secrets.token_bytes(16))
        return await self._write(
            Descriptor(self.id_of(name), name, wanted, chosen, version), chosen
        )

    async def _write(self, wanted: Descriptor, keys: Iterable[bytes]) -> Descriptor:
        """Write a descriptor to its members; where another one wins meanwhile, that is returned."""
        targets = set(keys)
        for _ in range(_ROUNDS):
            results = await asyncio.gather(
                *(self._put(key, wanted) for key in targets), return_exceptions=True
            )
            kept = [result for result in results if isinstance(result, Descriptor)]
            best = max(kept, key=lambda one: one.version, default=wanted)
            if best.version > wanted.version:
                wanted, targets = best, {*targets, *best.members}
                continue
            if len(kept) < wanted.copies:
                failures = {
                    self._nodes.node_name(key): str(result)
                    for key, result in zip(targets, results, strict=True)
                    if isinstance(result, BaseException)
                }
                raise NotEnoughCopies(
                    f"container {wanted.name!r}: {len(kept)} of its members took it, "
                    f"{wanted.copies} are needed: {NotEnoughCopies.reasons(failures)}; start the "
                    "nodes and try again",
                    failures=failures,
                )
            break
        return wanted

    async def _put(self, key: bytes, wanted: Descriptor) -> Descriptor:
        link = self._nodes.links.get(key)
        if link is None:
            raise NodeUnreachable(f"node {self._nodes.node_name(key)} is not in the pool")
        answer = await link.call(wanted.request(), timeout_s=ANSWER_S)
        if not isinstance(answer.message, messages.ContainerInfo):
            raise AlpyneError(f"node {link.name}: answered PutContainer with something else")
        return Descriptor.of(answer.message)
