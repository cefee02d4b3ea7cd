"""Body bytes by the host label of the peer: how much data went between machines."""

from collections import defaultdict

from alpyne_proto.messages.access import LabelTraffic

LABELS_MAX = 32  # of one account; what NodeStatus can carry
OTHERS = "(others)"


class Traffic:
    """Counts since the daemon's start, per account and label; an empty label is a label too."""

    def __init__(self) -> None:
        self._counts: defaultdict[bytes, dict[str, list[int]]] = defaultdict(dict)

    def sent(self, owner: bytes, label: str, size: int) -> None:
        """Count body bytes that went to a peer on ``label``."""
        self._counter(owner, label)[0] += size

    def received(self, owner: bytes, label: str, size: int) -> None:
        """Count body bytes that came from a peer on ``label``."""
        self._counter(owner, label)[1] += size

    def of(self, owner: bytes) -> tuple[LabelTraffic, ...]:
        """Return the counts of one account, by label."""
        counts = self._counts.get(owner, {})
        return tuple(LabelTraffic(label, *counts[label]) for label in sorted(counts))

    def _counter(self, owner: bytes, label: str) -> list[int]:
        counts = self._counts[owner]
        if label not in counts and len(counts) >= LABELS_MAX - 1:
            label = OTHERS  # peers choose their labels: they must not fill the memory
        return counts.setdefault(label, [0, 0])
