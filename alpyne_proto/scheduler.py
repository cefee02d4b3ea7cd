"""Whose turn it is: deficit round robin over seven lanes of streams, one per urgency.

A lane of urgency 1 gets eight times the bytes of one of urgency 7, and no lane that has something
to send gets less than five percent. Within a lane streams take turns, a frame each. Urgency 0
(control frames, interrupts) never comes here: it goes ahead of everything.

Source: M. Shreedhar, G. Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995.
"""

from collections import deque

from alpyne_proto.errors import LocalProtocolError
from alpyne_proto.streams import Stream

MOST_URGENT, LEAST_URGENT = 1, 7
DEFAULT_URGENCY = 3
WEIGHTS = (0, 40, 20, 12, 8, 6, 5, 5)  # by urgency; the least is above 5 % of the sum
_UNIT = 4096  # bytes of one turn per weight


class Scheduler:
    """Streams that have something to send, in the order in which they get to send it."""

    __slots__ = ("_count", "_deficits", "_lanes", "_turn")

    def __init__(self) -> None:
        self._lanes: list[deque[Stream]] = [deque() for _ in WEIGHTS]
        self._deficits = [0] * len(WEIGHTS)
        self._turn = LEAST_URGENT
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, stream: Stream) -> None:
        """Let a stream wait for its turn; nothing happens where it waits already."""
        if not stream.scheduled:
            if not self._count:  # after a pause nobody owes anything: the most urgent begins
                self._turn = LEAST_URGENT
                self._deficits = [0] * len(WEIGHTS)
            stream.scheduled = True
            self._lanes[stream.urgency].append(stream)
            self._count += 1

    def next(self) -> Stream | None:
        """Return the stream whose turn it is; None where none waits."""
        if not self._count:
            return None
        while True:
            turn = self._turn
            lane = self._lanes[turn]
            if not lane:
                self._deficits[turn] = 0
            elif self._deficits[turn] > 0:
                return lane[0]
            self._turn = turn = turn + 1 if turn < LEAST_URGENT else MOST_URGENT
            if self._lanes[turn]:
                self._deficits[turn] += WEIGHTS[turn] * _UNIT

    def served(self, stream: Stream, size: int, *, again: bool) -> None:
        """Count ``size`` bytes that the stream whose turn it was has sent.

        again: it has more to send and can; otherwise it leaves until it is added.
        """
        lane = self._lanes[stream.urgency]
        if not lane or lane[0] is not stream:
            raise LocalProtocolError(f"scheduler: stream {stream.id} was served out of turn")
        self._deficits[stream.urgency] -= size
        if again:
            lane.rotate(-1)
        else:
            lane.popleft()
            stream.scheduled = False
            self._count -= 1
