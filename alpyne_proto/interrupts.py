"""Interrupts: 50 a second with a burst of 64, kept by the sender and enforced by the receiver.

Both count with a token bucket. The network may bring closer together what was sent apart, so a
sender that only looked at its own clock would be punished for a delay on the way. It therefore
counts an unacknowledged interrupt as taken, and lets its token grow back only from the moment of
the acknowledgement, which is never earlier than the receiver's own count. It also fills its bucket
one percent slower, because two clocks differ.

Source: spec/PROTOCOL.md, "Interrupts".
"""

from collections import deque

from alpyne_proto import limits
from alpyne_proto.errors import ErrorCode, FrameError, RemoteProtocolError
from alpyne_proto.frame import FrameType, pack

_SENDER_RATE_PER_S = limits.INTERRUPT_RATE_PER_S * 0.99


class TokenBucket:
    """``burst`` tokens, growing back at ``rate`` a second; it begins full."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._level = float(burst)
        self._at: float | None = None

    def level(self, now: float) -> float:
        """Return the tokens at ``now``, in seconds of a monotonic clock."""
        if self._at is not None and now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def take(self, now: float) -> bool:
        """Take one token; return False, and take none, where there is not a whole one."""
        if self.level(now) < 1:
            return False
        self._level -= 1
        return True

    def force(self, now: float) -> None:
        """Take one token whether or not it is there."""
        self.level(now)
        self._level -= 1

    def time_of(self, tokens: float, now: float) -> float:
        """Return when the bucket will hold ``tokens``."""
        # A millisecond more: rounding must not leave the bucket a hair short of a whole token.
        return now + max(0.0, tokens - self.level(now)) / self._rate + 0.001


class InterruptSender:
    """Interrupts of ours: waiting for a token, or sent and waiting for their acknowledgement."""

    __slots__ = ("_bucket", "_last_id", "_unacked", "_waiting")

    def __init__(self) -> None:
        self._bucket = TokenBucket(_SENDER_RATE_PER_S, limits.INTERRUPT_BURST)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._unacked: deque[int] = deque()
        self._last_id = 0

    @property
    def waiting(self) -> bool:
        """Whether interrupts wait to be sent."""
        return bool(self._waiting)

    def queue(self, meta: bytes) -> int:
        """Let a message wait for its token; return its id, from 1."""
        self._last_id += 1
        frame = pack(FrameType.INTERRUPT, 0, self._last_id, meta)
        self._waiting.append((self._last_id, frame))
        return self._last_id

    def take(self, now: float, room: int) -> list[bytes]:
        """Return the frames that may be sent at ``now``, at most ``room`` bytes of them."""
        frames = []
        while self._waiting and self._bucket.level(now) - len(self._unacked) >= 1:
            interrupt_id, frame = self._waiting[0]
            room -= len(frame)
            if room < 0:
                break
            self._waiting.popleft()
            self._unacked.append(interrupt_id)
            frames.append(frame)
        return frames

    def ready_at(self, now: float) -> float | None:
        """Return when the next one may be sent.

        None where it may be sent already, where none waits, or where an acknowledgement must come
        first.
        """
        wanted = len(self._unacked) + 1
        if not self._waiting or wanted > limits.INTERRUPT_BURST:
            return None
        return None if self._bucket.level(now) >= wanted else self._bucket.time_of(wanted, now)

    def acknowledge(self, interrupt_id: int, now: float) -> None:
        """Take an acknowledgement; FrameError unless it is for the oldest one on the way."""
        if not self._unacked or self._unacked[0] != interrupt_id:
            raise FrameError(f"INTERRUPT_ACK {interrupt_id}: no interrupt of that id is next")
        self._unacked.popleft()
        self._bucket.force(now)


class InterruptReceiver:
    """Interrupts of the peer: at its rate, each one once."""

    __slots__ = ("_bucket", "_last_id")

    def __init__(self) -> None:
        self._bucket = TokenBucket(limits.INTERRUPT_RATE_PER_S, limits.INTERRUPT_BURST)
        self._last_id = 0

    def is_new(self, interrupt_id: int, now: float) -> bool:
        """Count an interrupt; return False for one that came before.

        Raises FrameError for id 0, RemoteProtocolError (TOO_BUSY) where the peer sends too many.
        """
        if not self._bucket.take(now):
            error = RemoteProtocolError(
                f"INTERRUPT {interrupt_id}: more than {limits.INTERRUPT_RATE_PER_S} a second "
                f"and a burst of {limits.INTERRUPT_BURST}"
            )
            error.code = ErrorCode.TOO_BUSY
            raise error
        if not interrupt_id:
            raise FrameError("INTERRUPT: its id is 0, expected 1 or higher")
        if interrupt_id <= self._last_id:
            return False
        self._last_id = interrupt_id
        return True
