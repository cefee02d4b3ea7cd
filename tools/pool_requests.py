"""One request to many nodes at once: who was reached, who was not, and why."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from alpyne_grid.manager.admin import connected, is_registered
from alpyne_grid.manager.identity import ManagerIdentity, not_registered
from alpyne_grid.manager.pool import PoolNode
from alpyne_grid.tools.exit_codes import ExitCode, exit_code_of
from alpyne_grid.tools.screen import note, print_facts, print_json
from alpyne_grid.wire import Connection

from alpyne_proto.errors import AlpyneError, ErrorCode, RequestFailed

_T = TypeVar("_T")
AT_ONCE = 32  # connections that are being made


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_T]):
    """What came of a request at one node: ``value``, or ``error``."""

    node: PoolNode
    value: _T | None = None
    error: AlpyneError | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether the node does not know what the request was about."""
        return isinstance(self.error, RequestFailed) and self.error.code is ErrorCode.NOT_FOUND


def at_each_node(
    me: ManagerIdentity,
    nodes: Iterable[PoolNode],
    request: Callable[[Connection], Awaitable[_T]],
) -> list[Outcome[_T]]:
    """Make ``request`` at all ``nodes`` at once, and return an outcome for each, in their order."""
    return asyncio.run(_at_each_node(me, list(nodes), request))


def at_node(
    me: ManagerIdentity, node: PoolNode, request: Callable[[Connection], Awaitable[_T]]
) -> _T:
    """Make ``request`` at one node and return its value; raises what it raises."""
    return asyncio.run(_request(me, node, request))


async def _at_each_node(
    me: ManagerIdentity, nodes: Sequence[PoolNode], request: Callable[[Connection], Awaitable[_T]]
) -> list[Outcome[_T]]:
    places = asyncio.Semaphore(AT_ONCE)

    async def at(node: PoolNode) -> Outcome[_T]:
        async with places:
            try:
                return Outcome(node, value=await _request(me, node, request))
            except AlpyneError as error:
                return Outcome(node, error=error)

    return list(await asyncio.gather(*(at(node) for node in nodes)))


async def _request(
    me: ManagerIdentity, node: PoolNode, request: Callable[[Connection], Awaitable[_T]]
) -> _T:
    async with connected(me, node.address) as connection:
        if not is_registered(connection):
            raise not_registered(node.shown, "it has not registered it")
        return await request(connection)


def print_outcomes(
    subject: str, done: str, outcomes: Sequence[Outcome[Any]], as_json: bool
) -> ExitCode:
    """Print what was ``done`` with ``subject`` at which node; return the exit code.

    A node that does not know the subject has nothing left to do.
    """
    failed = [outcome for outcome in outcomes if outcome.error and not outcome.is_unknown]
    if as_json:
        print_json(
            [
                {
                    "node": outcome.node.shown,
                    "address": str(outcome.node.address),
                    "outcome": _word(outcome, done),
                    "error": str(outcome.error) if outcome in failed else None,
                }
                for outcome in outcomes
            ]
        )
    else:
        print_facts((outcome.node.shown, _line(outcome, done)) for outcome in outcomes)
    if not outcomes:
        note("The pool has no nodes; `alpyne pair ADDRESS` adds one.")
    if failed:
        names = ", ".join(outcome.node.shown for outcome in failed)
        note(f"{subject}: not {done} at {names}. Run the command again when they can be reached.")
    if len(failed) < len(outcomes) or not failed:
        return ExitCode.PARTLY if failed else ExitCode.OK
    assert failed[0].error is not None
    return exit_code_of(failed[0].error)


def _word(outcome: Outcome[Any], done: str) -> str:
    if outcome.error is None:
        return done
    return "unknown there" if outcome.is_unknown else "failed"


def _line(outcome: Outcome[Any], done: str) -> str:
    word = _word(outcome, done)
    return f"{word}: {outcome.error}" if word == "failed" else word
