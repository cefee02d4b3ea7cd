"""Credit: absolute limits in uncompressed body bytes, for a stream or the whole connection.

A limit only ever rises. The receiver raises it as bytes are consumed (handed to the caller or
written, not merely queued), so a slow reader slows its sender and nobody else.

Source: spec/PROTOCOL.md, "Flow control"; RFC 9000, section 4.
"""

from alpyne_proto.errors import FlowError

_PART = 4  # a new limit is sent when a quarter of the window was consumed,
_SMALL_PART = 16  # or a sixteenth, where the sender has less than a quarter left


class SendCredit:
    """What the peer lets us send."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def left(self) -> int:
        """Bytes that may be sent now."""
        return self.limit - self.used

    def raise_to(self, limit: int) -> bool:
        """Take a limit from the peer; return whether it is a higher one."""
        if limit <= self.limit:
            return False
        self.limit = limit
        return True


class ReceiveCredit:
    """What we let the peer send, ``window`` bytes ahead of what was consumed."""

    __slots__ = ("announced", "consumed", "received", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.announced = window
        self.received = 0
        self.consumed = 0

    @property
    def outstanding(self) -> int:
        """Bytes that came and were not consumed."""
        return self.received - self.consumed

    def take(self, size: int, stream_id: int) -> None:
        """Count ``size`` bytes that came; FlowError where the peer had no credit for them.

        stream_id: for the error's text; 0 is the connection.
        """
        self.received += size
        if self.received > self.announced:
            where = f"stream {stream_id}" if stream_id else "connection"
            raise FlowError(
                f"{where}: {self.received} bytes came, credit was given for {self.announced}"
            )

    def consume(self, size: int) -> bool:
        """Count ``size`` bytes as consumed; return whether a new limit should be announced."""
        self.consumed += size
        owed = self.consumed + self.window - self.announced
        quarter = self.window // _PART
        if owed >= quarter:
            return True
        return owed >= self.window // _SMALL_PART and self.announced - self.received < quarter

    def announce(self) -> int:
        """Return the new limit, and hold the peer to it."""
        self.announced = self.consumed + self.window
        return self.announced
