"""Strangers: connections that have proven little, how many of them there may be, and for how long.

Before a handshake is complete a stranger gets 2 s for its preface, 5 s for everything, counted from
the accept, and one of 256 places, 8 of them per source. Whoever fails is closed without a word;
whoever finds no place gets the preface with BUSY (spec/PROTOCOL.md, "Preface"). Anybody who knows
the node's key can complete a handshake, so those that stay UNKNOWN afterwards are bounded as well.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import Enum

from alpyne_grid.wire.connection import Connection
from alpyne_grid.wire.log import Log

from alpyne_proto import limits
from alpyne_proto.errors import ErrorCode
from alpyne_proto.registry import State

_REFUSED_MOST = 64  # connections waiting to be told BUSY; whoever comes beyond is dropped untold
_LOGGED_MOST = 20  # failures of strangers logged in each period: they must not fill the disk
_LOG_PERIOD_S = 10.0
_KNOWN = (State.OPEN, State.BEARER)

_log = Log("wire.strangers")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What strangers may use; see alpyne_proto.limits for the reasons."""

    preface_timeout_s: float = limits.PREFACE_TIMEOUT_S
    handshake_timeout_s: float = limits.HANDSHAKE_TIMEOUT_S  # absolute, from accept
    half_open_max: int = limits.HALF_OPEN_MAX
    half_open_per_source: int = limits.HALF_OPEN_PER_SOURCE
    connections_max: int = 512  # in all: half the descriptors that systems grant by default
    unknown_max: int = 256  # complete ones without an account or ticket
    unknown_per_source: int = 64  # so that one source keeps no newcomer from registering
    unknown_timeout_s: float = 60.0  # for registration or a ticket, counted from the handshake


class Admission(Enum):
    """What happens to a connection that was accepted."""

    ADMITTED = "it may make its handshake"
    REFUSED = "it is told BUSY"
    DROPPED = "it is closed untold"


class Strangers:
    """Those without a complete handshake, and those that are complete and UNKNOWN."""

    def __init__(self, bounds: ServerLimits) -> None:
        self._bounds = bounds
        self._by_source: Counter[str] = Counter()
        self._half_open: dict[Connection, list[asyncio.TimerHandle]] = {}
        self._refused: dict[Connection, list[asyncio.TimerHandle]] = {}
        self._unknown: dict[Connection, asyncio.TimerHandle] = {}
        self._logged = 0
        self._period_ends = 0.0

    @property
    def half_open(self) -> int:
        """Connections whose handshake is not complete."""
        return len(self._half_open)

    def admit(self, source: str, *, full: bool) -> Admission:
        """Say what happens to a connection from `source`; full: the server takes no more at all."""
        bounds = self._bounds
        if (
            full
            or len(self._half_open) >= bounds.half_open_max
            or self._by_source[source] >= bounds.half_open_per_source
        ):
            few = len(self._refused) < _REFUSED_MOST
            return Admission.REFUSED if few else Admission.DROPPED
        return Admission.ADMITTED

    def watch(self, connection: Connection, admission: Admission, source: str) -> None:
        """Drop the connection where it is not through its handshake in time."""
        loop, bounds = connection.loop, self._bounds
        timers = [
            loop.call_later(bounds.preface_timeout_s, self._check_preface, connection),
            loop.call_later(bounds.handshake_timeout_s, self._drop, connection, "handshake"),
        ]
        if admission is Admission.ADMITTED:
            self._half_open[connection] = timers
            self._by_source[source] += 1
        else:
            self._refused[connection] = timers

    def has_proven_its_key(self, connection: Connection) -> None:
        """The handshake is complete: from here on the connection counts as UNKNOWN."""
        self._end_watch(connection)
        loop = connection.loop
        self._unknown[connection] = loop.call_later(
            self._bounds.unknown_timeout_s, self._check_known, connection
        )
        # Only then the service has said who it is: strangers must not keep accounts out.
        loop.call_soon(self._check_room, connection)

    def _check_room(self, connection: Connection) -> None:
        """Close a newcomer that is UNKNOWN where there are too many, of its source or in all."""
        unknown, bounds = self._unknown, self._bounds
        for other in [other for other in unknown if other.state in _KNOWN]:
            unknown.pop(other).cancel()
        if connection not in unknown:
            return
        of_source = sum(other.source == connection.source for other in unknown)
        if len(unknown) > bounds.unknown_max or of_source > bounds.unknown_per_source:
            unknown.pop(connection).cancel()
            connection.close_nowait(ErrorCode.TOO_BUSY, "too many peers without an account")

    def forget(self, connection: Connection) -> None:
        """The connection has ended."""
        if connection in self._half_open and connection.error is not None:
            # What a stranger sent is not for the log: only what kind of failure it was.
            self._note(connection, "handshake_failed", type(connection.error).__name__)
        self._end_watch(connection)
        if (timer := self._unknown.pop(connection, None)) is not None:
            timer.cancel()

    def drop_all(self) -> None:
        """Drop those without a complete handshake: the server ends."""
        for connection in (*self._half_open, *self._refused):
            connection.abort()

    def _end_watch(self, connection: Connection) -> None:
        if connection in self._half_open:
            self._by_source[connection.source] -= 1
            if not self._by_source[connection.source]:
                del self._by_source[connection.source]
        for table in (self._half_open, self._refused):
            for timer in table.pop(connection, ()):
                timer.cancel()

    def _check_preface(self, connection: Connection) -> None:
        if not connection.has_preface:
            self._drop(connection, "preface")

    def _check_known(self, connection: Connection) -> None:
        self._unknown.pop(connection, None)
        if connection.state not in _KNOWN:
            seconds = self._bounds.unknown_timeout_s
            connection.close_nowait(
                ErrorCode.NOT_PERMITTED, f"no registration and no ticket within {seconds:g} s"
            )

    def _drop(self, connection: Connection, missing: str) -> None:
        self._note(connection, "handshake_timeout", missing)
        connection.abort()

    def _note(self, connection: Connection, event: str, what: str) -> None:
        """Log a stranger's failure, unless many were just logged."""
        now = connection.loop.time()
        if now >= self._period_ends:
            self._period_ends, self._logged = now + _LOG_PERIOD_S, 0
        self._logged += 1
        if self._logged <= _LOGGED_MOST:
            _log.info(event, peer=connection.peer_name, what=what)
        elif self._logged == _LOGGED_MOST + 1:
            _log.info("more_strangers_failed", quiet_s=_LOG_PERIOD_S)
