"""Connection: what callers do with it: calls, pushes, interrupts, and what they say of it."""

import asyncio

from alpyne_grid.wire.call import Answer, OutgoingStream, RequestTimedOut
from alpyne_grid.wire.dispatch import Dispatch
from alpyne_grid.wire.writer import Body, Data, Trailer, is_small, write_body

from alpyne_proto.errors import ErrorCode, Outcome, RequestFailed
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.registry import Message, State


class Connection(Dispatch):
    """One encrypted connection to one peer; made by `serve` and `dial`.

    ``account`` is for the layer that decides who the peer is.
    """

    # ---- what it is doing ----

    @property
    def has_work(self) -> bool:
        """Whether a request of either side is under way."""
        return bool(self._requests or self._streams)

    async def wait_ready(self) -> None:
        """Return once the acceptor has said what the dialler is; raises why the connection ended.

        ``state`` and ``role`` then stand.
        """
        if not self._ready.done():
            await asyncio.shield(self._ready)
        if self._over:
            raise self._why_lost()

    async def drain(self) -> None:
        """Return once all requests of the peer are answered and sent, or the connection has ended.

        Our own requests do not count: a push, for instance, ends when its owner ends it.
        """
        while self._requests and not self._over:
            self._idle = self._idle or self.loop.create_future()
            await asyncio.shield(self._idle)
        await self.flushed()

    # ---- what we ask of the peer ----

    async def call(
        self,
        message: Message,
        body: Body = b"",
        *,
        timeout_s: float | None = None,
        trailer: Trailer | None = None,
        urgency: int = 3,
    ) -> Answer:
        """Send a request and return its answer, whose body may still be coming.

        body: bytes, or an iterable or asynchronous iterable of bytes, taken as fast as the peer
        takes them; trailer: called at its end. timeout_s: for the answer to begin, not for its
        body. Raises RequestFailed for an Error (RequestTimedOut after timeout_s), RequestLost where
        the connection ended first; ``outcome`` says whether the request may have had effect.
        Cancelling the call cancels the request at the peer.
        """
        if timeout_s is None:
            return await self._call(message, body, trailer, urgency)
        try:
            async with asyncio.timeout(timeout_s) as timer:
                return await self._call(message, body, trailer, urgency)
        except TimeoutError:
            if not timer.expired():  # it is the body's source that raised it
                raise
            name = type(message).__name__
            raise RequestTimedOut(f"{name}: no answer within {timeout_s:g} s") from None

    def send(self, message: Message, body: Data = b"", *, urgency: int = 3) -> OutgoingStream:
        """Send a request whose body fits into its frame (48 KiB), without waiting for anything.

        The stream's ``answered`` is done when the answer, or what prevents it, is there;
        ``result`` then returns or raises it. Raises as ``call`` does where nothing can be sent.
        """
        stream = self._open(message, bytes(body), end=True, urgency=urgency)
        stream.has_ended = True
        self.schedule_flush()
        return stream

    async def open(
        self, message: Message, *, urgency: int = 3, want_ack: bool = False
    ) -> OutgoingStream:
        """Send a request whose body is written bit by bit: for pushes, for instance."""
        stream = self._open(message, b"", end=False, urgency=urgency, want_ack=want_ack)
        self.schedule_flush()
        return stream

    async def interrupt(self, message: Message) -> None:
        """Send an interrupt and return when the peer has handed it to its handler."""
        interrupt_id = self.interrupt_nowait(message)
        acknowledged: asyncio.Future[None] = self.loop.create_future()
        self._interrupts[interrupt_id] = acknowledged
        try:
            await acknowledged
        finally:
            self._interrupts.pop(interrupt_id, None)
        if self._over:
            raise self._why_lost()

    def interrupt_nowait(self, message: Message) -> int:
        """Send an interrupt, ahead of everything else, and return its number.

        Legal while either side goes away: what is to be cancelled may still be running.
        """
        self._check_open()
        interrupt_id = self.session.interrupt(message)
        self._deadline_moved = True
        self.schedule_flush()
        return interrupt_id

    # ---- what we say of the connection ----

    def promote(self, state: State, role: AccountRole = AccountRole.NONE) -> None:
        """Acceptor only: tell the dialler what it is here; requests that waited are handled."""
        self.session.promote(state, role=role)
        self.role = role
        self._set_ready()
        self.schedule_flush()

    def go_away(self) -> None:
        """Take no new requests; those under way go on."""
        if self.is_open and not self.is_going_away:
            self.is_going_away = True
            self.session.go_away()
            self.schedule_flush()

    # ---- private: our requests ----

    def _check_open(self) -> None:
        if self._over or not self._connected:
            raise self._why_lost()

    def _check_usable(self) -> None:
        self._check_open()
        if self.is_going_away:
            raise RequestFailed(
                ErrorCode.SHUTTING_DOWN,
                "the connection takes no new requests: one side is ending; dial again",
                retryable=True,
                outcome=Outcome.NOT_STARTED,
            )

    def _open(
        self, message: Message, payload: bytes, *, end: bool, urgency: int, want_ack: bool = False
    ) -> OutgoingStream:
        self._check_usable()
        stream_id = self.session.open_stream(
            message, payload, end=end, urgency=urgency, want_ack=want_ack
        )
        stream = OutgoingStream(self, stream_id, message)
        self._streams[stream_id] = stream
        return stream

    async def _call(
        self, message: Message, body: Body, trailer: Trailer | None, urgency: int
    ) -> Answer:
        feeding = None
        if trailer is None and is_small(body):
            stream = self.send(message, body, urgency=urgency)
        else:
            stream = self._open(message, b"", end=False, urgency=urgency)
            feeding = self.loop.create_task(write_body(stream, body, trailer))
            feeding.add_done_callback(stream.take_source_end)
        try:
            await stream.answered
        except BaseException:
            stream.cancel()
            raise
        finally:
            if feeding is not None and not feeding.done():
                feeding.cancel()
        return stream.result()
