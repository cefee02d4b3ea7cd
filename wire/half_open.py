"""HalfOpen: how many connections may be without a complete handshake, in all and per source."""

from collections import Counter


class HalfOpen:
    """Counts connections between accept and the end of their handshake."""

    def __init__(self, most: int, most_per_source: int) -> None:
        self._most = most
        self._most_per_source = most_per_source
        self._by_source: Counter[str] = Counter()
        self._total = 0

    def __len__(self) -> int:
        """How many there are now."""
        return self._total

    def admit(self, source: str) -> bool:
        """Count one more from `source`; return False, and count nothing, where it is too many."""
        if self._total >= self._most or self._by_source[source] >= self._most_per_source:
            return False
        self._by_source[source] += 1
        self._total += 1
        return True

    def leave(self, source: str) -> None:
        """Count one less: its handshake is complete, or it is gone."""
        self._total -= 1
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]
