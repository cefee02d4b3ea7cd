"""When a connection is late: in its handshake, in saying anything, in being alive at all.

Any authenticated record is a sign of life. All times are seconds of the caller's monotonic clock.

Source: spec/PROTOCOL.md, "Liveness".
"""

from enum import Enum

from alpyne_proto import limits
from alpyne_proto.table import Phase


class Due(Enum):
    """What the clock asks for."""

    NOTHING = "nothing"
    PING = "ping the peer"
    DEAD = "give the peer up"
    GIVE_UP_HANDSHAKE = "give the handshake up"


_DUE_AFTER_S = {
    Phase.PREFACE: limits.PREFACE_TIMEOUT_S,
    Phase.MESSAGE_1: limits.HANDSHAKE_TIMEOUT_S,
    Phase.MESSAGE_2: limits.HANDSHAKE_TIMEOUT_S,
    Phase.MESSAGE_3: limits.HANDSHAKE_TIMEOUT_S,
    Phase.SETTLING: limits.HANDSHAKE_TIMEOUT_S,
}  # counted from the start; in every other phase silence counts


class Liveness:
    """The clocks of one connection."""

    __slots__ = ("_heard_at", "_pinged_at", "_started_at")

    def __init__(self, now: float) -> None:
        self._started_at = self._heard_at = self._pinged_at = now

    def hear(self, now: float) -> None:
        """Count a sign of life."""
        self._heard_at = now

    def due(self, phase: Phase, now: float) -> Due:
        """Return what is to be done at ``now``; a ping counts as done."""
        if phase in _DUE_AFTER_S:
            return Due.GIVE_UP_HANDSHAKE if now >= self.deadline(phase) else Due.NOTHING
        if now >= self._heard_at + limits.DEAD_AFTER_S:
            return Due.DEAD
        if now >= self._ping_at:
            self._pinged_at = now
            return Due.PING
        return Due.NOTHING

    def deadline(self, phase: Phase) -> float:
        """Return when something will be due."""
        after_s = _DUE_AFTER_S.get(phase)
        if after_s is not None:
            return self._started_at + after_s
        return min(self._ping_at, self._heard_at + limits.DEAD_AFTER_S)

    @property
    def _ping_at(self) -> float:
        return max(self._heard_at, self._pinged_at) + limits.PING_AFTER_S
