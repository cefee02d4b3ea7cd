"""Shell: an asyncio protocol around a Session, which it feeds and whose records it writes.

What is legal, and what is sent first, the session decides. A record is asked of it only when the
transport can take one, so that an urgent frame never stands behind more bulk than the kernel holds;
all frames that become ready in one turn of the loop share records and one flush.
"""

import asyncio
from collections.abc import Iterable
from typing import cast

from alpyne_grid.wire.transport import peer_name, source_of, tune
from alpyne_grid.wire.writer import BodyWriter

from alpyne_proto.errors import AlpyneError, ErrorCode
from alpyne_proto.events import ConnectionClosed, Event
from alpyne_proto.handshake import SessionConfig
from alpyne_proto.limits import PREFACE
from alpyne_proto.session import Session

READ_MIN = 16 * 1024  # a quiet connection's buffer
READ_MAX = 512 * 1024  # bytes of one read; a buffer that a read filled doubles up to this
QUIET_READS = 8  # small ones in a row, after which the buffer is a quiet connection's again
FLUSH_MAX = 512 * 1024  # bytes written before other connections and timers get their turn
LINGER_S = 2.0  # for the last bytes of a closing connection to leave


class Shell(asyncio.BufferedProtocol):
    """The transport's side of a connection; Connection is the caller's."""

    def __init__(self, config: SessionConfig) -> None:
        self.loop = asyncio.get_running_loop()
        self.session = Session(config, self.loop.time())
        self.is_acceptor = not config.is_dialler
        self.source = ""  # whom it counts for; see transport.source_of
        self.peer_name = ""  # address and port, for people
        self.received_bytes = 0  # encrypted, headers included
        self.sent_bytes = 0  # the same
        self.records_written = 0
        self.blocked: dict[int, BodyWriter] = {}  # those that wait for room in the session
        self.error: AlpyneError | None = None  # why it ended; None after a clean end
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._over = False  # the session has said its last
        self._buffer = memoryview(bytearray(READ_MIN))
        self._quiet_reads = 0
        self._paused = False
        self._flush_scheduled = False
        self._emptied: asyncio.Future[None] | None = None
        self._handing_out = False  # events; whoever does that flushes afterwards
        self._deadline_moved = True  # forward, perhaps
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_preface(self) -> bool:
        """Whether as many bytes came as a preface has."""
        return self.received_bytes >= PREFACE

    async def wait_closed(self) -> None:
        """Return once the connection has ended; ``error`` says why."""
        if not self._closed.done():
            await asyncio.shield(self._closed)

    async def close(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """End the connection and return when it has ended; requests under way are lost."""
        self.close_nowait(code, text)
        await self.wait_closed()

    def close_nowait(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """End the connection: CLOSE with the code, and a text for people, leaves first."""
        if not self._over:
            self.session.close(code, text)
            self._end(None)

    def abort(self) -> None:
        """Drop the connection at once, without a word to the peer."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._lose_transport()

    async def flushed(self) -> None:
        """Return once the transport has taken all that is ready, or the connection has ended."""
        while self.session.has_output and not self._over:
            self._emptied = self._emptied or self.loop.create_future()
            await asyncio.shield(self._emptied)

    def schedule_flush(self) -> None:
        """Write what the session has ready: the first of a turn of the loop at once, so that a
        lone request does not wait, all that follows it together when the turn is over.
        """
        if not self._flush_scheduled and not self._handing_out:
            self._flush_scheduled = True
            try:
                self._flush()
            finally:  # behind it: what asks for another turn takes time, too
                self.loop.call_soon(self._end_turn)

    # ---- for the subclass ----

    def _handle(self, event: Event) -> None:
        """Act on one event."""
        raise NotImplementedError

    def _lost(self) -> None:
        """The transport is gone; called once."""
        raise NotImplementedError

    def _feed(self, events: Iterable[Event]) -> None:
        before, self._handing_out = self._handing_out, True
        try:
            for event in events:
                if type(event) is ConnectionClosed:
                    self._end(event.error)
                else:
                    self._handle(event)
        finally:
            self._handing_out = before

    # ---- asyncio's protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # other event loops have classes of their own
        self._transport = stream
        self.source = source_of(stream)
        self.peer_name = peer_name(stream)
        tune(stream)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received_bytes += nbytes
        buffer = self._buffer
        self._feed(self.session.receive_data(buffer[:nbytes], self.loop.time()))
        if nbytes == len(buffer) or len(buffer) > READ_MIN:
            self._resize_buffer(nbytes)
        self._flush()

    def eof_received(self) -> bool:
        self._feed(self.session.receive_eof(self.loop.time()))
        return False  # the transport closes itself

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()
        self._close_transport()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._feed(self.session.receive_eof(self.loop.time()))
        self._lose_transport()

    # ---- private ----

    def _resize_buffer(self, filled: int) -> None:
        """Fit the buffer to what comes; here only, where no read into it is under way."""
        size = len(self._buffer)
        self._quiet_reads = self._quiet_reads + 1 if filled < READ_MIN else 0
        if filled == size < READ_MAX:
            self._buffer = memoryview(bytearray(2 * size))
        elif self._quiet_reads >= QUIET_READS:
            self._buffer = memoryview(bytearray(READ_MIN))

    def _flush(self) -> None:
        """Write records for as long as the transport takes them, within one turn's share."""
        transport = self._transport
        if transport is None:
            return
        session = self.session
        now = self.loop.time()
        left = FLUSH_MAX
        while left > 0 and not self._paused and not transport.is_closing():
            record = session.next_record(now)
            if record is not None:
                self.records_written += 1
                left -= len(record)
                self.sent_bytes += len(record)
                transport.write(record)
            elif events := session.events():  # writers whose streams have room again, mostly
                self._feed(events)
            else:
                self._tell_emptied()
                break
        else:
            self._feed(session.events())
            if left <= 0 and not self._flush_scheduled:
                self._flush_scheduled = True
                self.loop.call_soon(self._end_turn)
        if self._timer is None or self._deadline_moved:
            self._arm_timer()

    def _tell_emptied(self) -> None:
        emptied, self._emptied = self._emptied, None
        if emptied is not None:
            emptied.set_result(None)

    def _end_turn(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _arm_timer(self) -> None:
        """Have `_on_timer` called at the session's deadline, or earlier.

        Each record moves the deadline back; the timer is not moved with it, which would cost more
        than to wake once too early. What may move it forward sets `_deadline_moved`.
        """
        self._deadline_moved = False
        deadline = self.session.next_deadline()
        if deadline is None or self._over:
            return
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self.loop.time()
        deadline = self.session.next_deadline()
        if deadline is not None and deadline <= now:
            self._feed(self.session.tick(now))
        self._flush()
        self._arm_timer()

    def _end(self, error: AlpyneError | None) -> None:
        """The session is over: send its last records, then close the transport."""
        if self._over:
            return
        self._over = True
        self.error = error
        self._flush()
        if self._transport is None:
            self._lose_transport()
        else:
            linger = self.loop.call_later(LINGER_S, self._transport.abort)
            self._closed.add_done_callback(lambda _: linger.cancel())
            self._close_transport()

    def _lose_transport(self) -> None:
        self._over = True
        self._tell_emptied()
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed.done():
            self._closed.set_result(None)
            self._lost()

    def _close_transport(self) -> None:
        """Close once the last record has left the session; a full transport delays that."""
        if self._over and not self._paused and self._transport is not None:
            self._transport.close()
