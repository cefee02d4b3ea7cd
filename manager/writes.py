"""Writing versions: to k members at once, replacing those that fail, done after k commits."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from alpyne_grid.manager.asking import ANSWER_S, DataNodes, ask_members
from alpyne_grid.manager.contents import Content
from alpyne_grid.manager.errors import NodeUnreachable, NotEnoughCopies, VersionConflict
from alpyne_grid.manager.links import Link
from alpyne_grid.manager.versions import NONE, Descriptor, Newest, Version, newest, write_order

from alpyne_proto.errors import AlpyneError, ErrorCode, RequestFailed
from alpyne_proto.messages import data as messages

ROUNDS = 8  # of writers that keep overtaking one another
_SPREAD_S = 0.02


@dataclass(frozen=True, slots=True)
class Condition:
    """What must stand under the path for a write to happen."""

    expect: messages.Expect = messages.Expect.ANY
    version: Version = NONE


ANYTHING = Condition()


class Writes:
    """Writes versions of objects for one manager."""

    def __init__(self, nodes: DataNodes) -> None:
        self._nodes = nodes
        self._run = secrets.token_bytes(8)
        self._counter = count(1)

    async def ask_newest(self, where: Descriptor, path: str, *, needed: int = 1) -> Newest:
        """Return the newest version among the members that answer; MaybeStale under ``needed``."""

        async def ask(link: Link) -> messages.ObjectInfo:
            request = messages.StatObject(where.container_id, path)
            try:
                answer = await link.call(request, timeout_s=ANSWER_S)
            except RequestFailed as error:
                if error.code is ErrorCode.NOT_FOUND:
                    return messages.ObjectInfo(0)  # a member without the descriptor has no objects
                raise
            assert isinstance(answer.message, messages.ObjectInfo)
            return answer.message

        answers = await ask_members(self._nodes, where.members, ask, needed=needed)
        answers.check(needed, f"{where.name}/{path}", self._nodes)
        return newest(answers.found)

    async def put(
        self, where: Descriptor, path: str, content: Content, condition: Condition
    ) -> tuple[Version, tuple[bytes, ...]]:
        """Write a new version of k copies; return it and who has it.

        Raises VersionConflict where ``condition`` does not hold, NotEnoughCopies.
        """

        async def send(key: bytes, version: Version, wanted: Condition) -> None:
            request = messages.PutObject(
                where.container_id,
                path,
                *version,
                content.size,
                wanted.expect,
                *_named(wanted),
            )
            try:
                await self._send_body(key, request, content)
            except RequestFailed as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise
                # The member was away when the container was made: tell it, and send again.
                await self._link(key).call(where.request(), timeout_s=ANSWER_S)
                await self._send_body(key, request, content)

        return await self._write(where, path, condition, send, where.copies)

    async def delete(
        self, where: Descriptor, path: str, condition: Condition
    ) -> tuple[Version, tuple[bytes, ...]]:
        """Write a tombstone to every member that is connected, and to k of them in any case."""

        async def send(key: bytes, version: Version, wanted: Condition) -> None:
            request = messages.DeleteObject(
                where.container_id, path, *version, wanted.expect, *_named(wanted)
            )
            answer = await self._link(key).call(request, timeout_s=ANSWER_S)
            answer.body.cancel()

        connected = len(connected_of(self._nodes, where.members))
        return await self._write(where, path, condition, send, max(connected, where.copies))

    # --- private ----------------------------------------------------------------------------

    def _link(self, key: bytes) -> Link:
        link = self._nodes.links.get(key)
        if link is None:
            raise NodeUnreachable(f"node {self._nodes.node_name(key)} is not in the pool")
        return link

    async def _send_body(self, key: bytes, request: messages.PutObject, content: Content) -> None:
        body, trailer = content.body()
        connection = await self._link(key).ready()
        answer = await connection.call(request, body, trailer=trailer)
        answer.body.cancel()

    def _writer(self) -> bytes:
        """Return a writer's id that no other put has: two puts of one path must differ."""
        return self._run + next(self._counter).to_bytes(8, "big")

    async def _write(
        self,
        where: Descriptor,
        path: str,
        condition: Condition,
        send: Callable[[bytes, Version, Condition], Awaitable[None]],
        wanted: int,
    ) -> tuple[Version, tuple[bytes, ...]]:
        for attempt in range(ROUNDS):
            before = await self.ask_newest(where, path)
            self._check(path, before, condition)
            version = (before.counter + 1, self._writer())
            attempted = _Copies(self._nodes, where, path, version, wanted)
            await attempted.run(send, condition)
            if not attempted.overtaken:
                return version, attempted.result(where.copies)
            if condition.expect is not messages.Expect.ANY and attempted.decided:
                return version, tuple(attempted.holders)  # it stood, and was followed by a newer
            # Another writer was faster: below its version ours would be lost.
            await asyncio.sleep(_SPREAD_S * attempt * secrets.randbelow(1000) / 1000)
        raise VersionConflict(
            f"object {path!r}: other writers overtook this one {ROUNDS} times; try again later"
        )

    def _check(self, path: str, before: Newest, condition: Condition) -> None:
        info = before.info
        if condition.expect is messages.Expect.ABSENT and before.exists and info is not None:
            raise VersionConflict(
                f"object {path!r}: expected none, there is version {info.counter}"
            )
        if condition.expect is messages.Expect.VERSION:
            now = (info.counter, info.writer) if info is not None else NONE
            if now != condition.version:
                raise VersionConflict(
                    f"object {path!r}: expected version {condition.version[0]}, there is {now[0]}; "
                    "read it again and decide anew"
                )


class _Copies:
    """One version on its way to several members."""

    def __init__(
        self, nodes: DataNodes, where: Descriptor, path: str, version: Version, wanted: int
    ) -> None:
        self._nodes = nodes
        self._path = path
        self._version = version
        self._wanted = wanted
        up = connected_of(nodes, where.members)
        order = write_order(where.members, path)
        self._spares = sorted(order, key=lambda key: key not in up)
        self.holders: list[bytes] = []
        self.failures: dict[bytes, AlpyneError] = {}
        self.overtaken = False
        self.decided = False  # the first member has taken it

    async def run(
        self, send: Callable[[bytes, Version, Condition], Awaitable[None]], condition: Condition
    ) -> None:
        """Send to as many members as are wanted; each that fails is replaced by the next."""
        if condition.expect is not messages.Expect.ANY:
            # One member decides; then the others need not be asked for their opinion.
            while self._spares and not self.decided and not self.overtaken:
                await self._send_one(send, self._spares.pop(0), condition)
        lanes = min(len(self._spares), self._wanted - len(self.holders))
        if lanes > 0 and not self.overtaken:
            await all_or_none([self._lane(send) for _ in range(lanes)])

    async def _lane(self, send: Callable[[bytes, Version, Condition], Awaitable[None]]) -> None:
        """Find a place for one copy."""
        while self._spares and not self.overtaken:
            if await self._send_one(send, self._spares.pop(0), ANYTHING):
                return

    async def _send_one(
        self,
        send: Callable[[bytes, Version, Condition], Awaitable[None]],
        key: bytes,
        condition: Condition,
    ) -> bool:
        try:
            await send(key, self._version, condition)
        except AlpyneError as error:
            if error.code is ErrorCode.VERSION_CONFLICT:
                self.overtaken = True
            self.failures[key] = error
            return False
        self.holders.append(key)
        self.decided = True
        return True

    def result(self, copies: int) -> tuple[bytes, ...]:
        """Return who has the version; NotEnoughCopies where they are fewer than ``copies``."""
        if len(self.holders) >= copies:
            return tuple(self.holders)
        failures = {self._nodes.node_name(key): str(e) for key, e in self.failures.items()}
        holders = tuple(self._nodes.node_name(key) for key in self.holders)
        refused = all(isinstance(error, RequestFailed) for error in self.failures.values())
        remedy = "then put it again" if refused and failures else "start the nodes and put it again"
        raise NotEnoughCopies(
            f"object {self._path!r}: {len(holders)} of {copies} copies could be made; version "
            f"{self._version[0]} is on {', '.join(holders) or 'no node'}; failed: "
            f"{NotEnoughCopies.reasons(failures)}; {remedy}",
            holders=holders,
            failures=failures,
        )


def connected_of(nodes: DataNodes, members: Sequence[bytes]) -> set[bytes]:
    """Return those of ``members`` that calls go out to at once."""
    return {key for key in members if (link := nodes.links.get(key)) and link.is_up}


async def all_or_none(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines side by side; none of them runs any more when this returns or raises."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _named(condition: Condition) -> Version:
    return condition.version if condition.expect is messages.Expect.VERSION else NONE
