"""How many items a chunk of a map gets: doubling until a chunk takes about 50 ms. Pure."""

TARGET_MS = 50.0  # long enough that overhead does not count, short enough to balance and to lose
ITEMS_MAX = 16_384
PAYLOAD_TARGET = 512 * 1024  # bytes of one chunk's items; well within what a submission carries
BUFFERED_MAX = 64 << 20  # bytes of results that wait for a slow consumer
JOBS_PER_SLOT = 3  # one runs, one waits, one is on its way
WINDOW = 4  # chunks that may wait behind a slow first one, as a multiple of the chunks under way


class ChunkSizes:
    """The size of the next chunk, learnt from those before.

    ``fixed``: the caller's own choice, 0 to adapt.
    """

    def __init__(self, fixed: int = 0) -> None:
        self._fixed = fixed
        self._size = 1
        self._cap = ITEMS_MAX

    def next_size(self, left: int | None, slots: int) -> int:
        """Return how many items the next chunk gets.

        ``left``: items left, where known: then no chunk takes more than its share of them, so that
        all slots end at about the same time.
        """
        if self._fixed:
            return self._fixed
        size = min(self._size, self._cap)
        if left is not None:
            size = min(size, left // (2 * slots))
        return max(1, size)

    def learn(self, items: int, wall_ms: float) -> None:
        """Take how long a chunk of ``items`` took on its node."""
        if wall_ms <= TARGET_MS / 2:
            self._size = max(self._size, min(2 * items, ITEMS_MAX))
        elif wall_ms > 2 * TARGET_MS and items > 1:
            self._size = min(self._size, max(1, int(items * TARGET_MS / wall_ms)))

    def learn_bytes(self, items: int, payload: int) -> None:
        """Take how many bytes a chunk of ``items`` has."""
        if items and payload > PAYLOAD_TARGET:
            self._cap = max(1, min(self._cap, items * PAYLOAD_TARGET // payload))

    def shrink(self, items: int) -> None:
        """Take that a chunk of ``items`` had to be divided."""
        self._size = max(1, min(self._size, items // 2))

    def has_room(self, window: int, under_way: int, buffered: int, slots: int) -> bool:
        """Return whether one more chunk may be sent.

        ``window``: chunks sent and not handed out. ``under_way``: those of them not finished.
        ``buffered``: bytes of results that wait.
        """
        most = JOBS_PER_SLOT * slots + 2
        return under_way < most and window < WINDOW * most and buffered < BUFFERED_MAX
