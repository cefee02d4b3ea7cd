"""Two honest sessions under random work, delays and cuts: nothing is lost, nobody is refused.

Windows are small, so that every limit is reached again and again. Whatever the applications do
within the rules, the connection stays; each body arrives as a prefix of what was sent, whole where
nobody gave it up; and in the end nothing is left: no stream, no queue, no credit.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from alpyne_proto.compression import Compression
from alpyne_proto.errors import ErrorCode
from alpyne_proto.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    HandshakeCompleted,
    InterruptAcked,
    InterruptReceived,
    RequestAcked,
    RequestReceived,
    ResponseReceived,
    StateChanged,
    StopReceived,
    StreamReset,
    StreamWritable,
)
from alpyne_proto.messages.compute import CancelJobs
from alpyne_proto.messages.control import BodyDigest, Error
from alpyne_proto.messages.data import GetObject, ObjectInfo, PutObject, StatObject
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello, NodeKind
from alpyne_proto.registry import State
from alpyne_proto.session import Session, SessionConfig

KEYS = (b"\x11" * 32, b"\x22" * 32)
NODE_PUBLIC = bytes.fromhex("7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13")
REQUESTS = (
    PutObject(b"c" * 16, "path", 1, b"w" * 16, 1 << 20),
    GetObject(b"c" * 16, "path"),
    StatObject(b"c" * 16, "path"),
)
CANCEL = CancelJobs((b"j" * 16,))


@dataclass
class Body:
    """One direction of one stream, as both applications see it."""

    sent: bytearray = field(default_factory=bytearray)
    got: bytearray = field(default_factory=bytearray)
    owed: int = 0  # received and not consumed
    begun: bool = False  # the sender may send
    finished: bool = False  # the sender has given everything
    given_up: bool = False  # one of the two wants no more of it
    arrived: bool = False  # the receiver was told that it is complete
    dropped: bool = False  # the receiver does not consume it any more


class Application:
    """Uses one session at random, within the rules."""

    def __init__(self, session: Session, chance: random.Random) -> None:
        self.session = session
        self.chance = chance
        self.peer: Application
        self.sending: dict[int, Body] = {}
        self.unanswered: set[int] = set()
        self.at_work: set[int] = set()
        self.interrupts = [0, 0, 0]  # sent, acknowledged, received
        self.peer_goes = False

    def receiving(self, stream: int) -> Body:
        return self.peer.sending.setdefault(stream, Body())

    # --- what it is told ---------------------------------------------------------------------

    def take(self, events: list[Event]) -> None:
        for event in events:
            self._told[type(event)](self, event)

    def _request(self, event: Any) -> None:
        self.unanswered.add(event.stream_id)
        self.at_work.add(event.stream_id)
        self.sending.setdefault(event.stream_id, Body())
        self._bytes(event.stream_id, event.payload, event.end)

    def _response(self, event: Any) -> None:
        self._bytes(event.stream_id, event.payload, event.end)

    def _data(self, event: Any) -> None:
        assert (event.trailer is not None) <= event.end
        self._bytes(event.stream_id, event.data, event.end)

    def _bytes(self, stream: int, data: Any, end: bool) -> None:
        body = self.receiving(stream)
        assert not body.dropped
        assert not body.arrived
        body.got += data
        body.owed += len(data)
        assert body.sent[: len(body.got)] == body.got
        body.arrived = end
        if end:
            assert body.got == body.sent

    def _reset(self, event: Any) -> None:
        body = self.receiving(event.stream_id)
        body.given_up = True
        self.drop(event.stream_id)

    def _stop(self, event: Any) -> None:
        self.sending[event.stream_id].given_up = True

    def _goes(self, event: Any) -> None:
        self.peer_goes = True

    def _acked(self, event: Any) -> None:
        self.interrupts[1] += 1

    def _interrupted(self, event: Any) -> None:
        self.interrupts[2] += 1

    def _nothing(self, event: Any) -> None:
        pass

    _told = {  # noqa: RUF012 - one table for all
        RequestReceived: _request,
        ResponseReceived: _response,
        DataReceived: _data,
        StreamReset: _reset,
        StopReceived: _stop,
        GoAwayReceived: _goes,
        InterruptAcked: _acked,
        InterruptReceived: _interrupted,
        HandshakeCompleted: _nothing,
        StateChanged: _nothing,
        RequestAcked: _nothing,
        StreamWritable: _nothing,
    }

    # --- what it does -------------------------------------------------------------------------

    def act(self) -> None:
        self.chance.choice(self._acts)(self)

    def open(self) -> None:
        if self.peer_goes or len(self.sending) > 60:
            return
        message = self.chance.choice(REQUESTS)
        payload = self.some() if message.SPEC.body else b""
        end = not message.SPEC.body or self.chance.random() < 0.5
        stream = self.session.open_stream(
            message,
            payload,
            end=end,
            urgency=self.chance.randint(1, 7),
            want_ack=self.chance.random() < 0.2,
        )
        self.sending[stream] = Body(bytearray(payload), begun=True, finished=end)

    def answer(self) -> None:
        if not self.unanswered:
            return
        stream = self.chance.choice(sorted(self.unanswered))
        self.unanswered.discard(stream)
        body = self.sending[stream]
        if self.chance.random() < 0.3:
            self.session.respond(stream, Error(ErrorCode.NOT_FOUND))
            body.begun = body.finished = True
            return
        payload, end = self.some(), self.chance.random() < 0.5
        body.sent += payload
        body.begun, body.finished = True, end
        self.session.respond(stream, ObjectInfo(1), payload, end=end)

    def send(self) -> None:
        going = [i for i, b in self.sending.items() if b.begun and not b.finished]
        if not going:
            return
        stream = self.chance.choice(going)
        body = self.sending[stream]
        data, end = self.some(), self.chance.random() < 0.3
        if self.chance.random() < 0.5:
            data = data[: self.session.send_room(stream)]
        body.sent += data
        body.finished = end
        trailer = BodyDigest(bytes(32)) if end and self.chance.random() < 0.5 else None
        self.session.send_data(stream, data, end=end, trailer=trailer)

    def consume(self) -> None:
        owing = [i for i, body in self.peer.sending.items() if body.owed]
        if not owing:
            return
        stream = self.chance.choice(owing)
        size = self.chance.randint(1, self.peer.sending[stream].owed)
        self.session.consume(stream, size)
        self.peer.sending[stream].owed -= size

    def give_up(self) -> None:
        stream = self.chance.choice([*self.sending, 0])
        if not stream or self.chance.random() < 0.5:
            return
        body = self.sending[stream]
        if body.begun:
            body.given_up = body.finished = True
            self.session.reset(stream, ErrorCode.CANCELLED)
            if stream in self.unanswered:
                self.unanswered.discard(stream)

    def stop(self) -> None:
        known = [i for i, body in self.peer.sending.items() if body.got or body.arrived]
        if known and self.chance.random() < 0.5:
            self.drop(self.chance.choice(known))

    def drop(self, stream: int) -> None:
        body = self.receiving(stream)
        if not body.dropped:
            body.given_up = body.given_up or not body.arrived
            body.dropped = True
            body.owed = 0
            self.session.stop(stream, ErrorCode.CANCELLED)

    def end_work(self) -> None:
        done = [i for i in self.at_work if i not in self.unanswered and self.sending[i].finished]
        if done:
            self.release(self.chance.choice(sorted(done)))

    def release(self, stream: int) -> None:
        self.at_work.discard(stream)
        self.unanswered.discard(stream)
        body = self.sending[stream]
        if not body.finished:
            body.given_up = body.finished = True
        body = self.receiving(stream)
        body.given_up = body.given_up or not body.arrived
        body.dropped = True
        body.owed = 0
        self.session.release(stream)

    def interrupt(self) -> None:
        if self.session._config.is_dialler and self.chance.random() < 0.2:
            self.session.interrupt(CANCEL)
            self.interrupts[0] += 1

    def go_away(self) -> None:
        if self.chance.random() < 0.002:
            self.session.go_away()

    _acts = (  # more of what there should be more of
        *(open, open, answer, answer, send, send, send, consume, consume, consume, consume),
        *(give_up, stop, end_work, end_work, interrupt, go_away),
    )

    def some(self) -> bytes:
        size = self.chance.choice((0, 1, 10, 500, 2_000, 5_000, 20_000))
        if self.chance.random() < 0.5:
            return bytes(size)
        return self.chance.randbytes(size)

    def finish(self) -> None:
        """Bring everything to its end, consuming all."""
        for stream in sorted(self.unanswered):
            self.session.respond(stream, Error(ErrorCode.INTERNAL))
            self.sending[stream].begun = self.sending[stream].finished = True
        self.unanswered.clear()
        for stream, body in self.sending.items():
            if body.begun and not body.finished:
                body.finished = True
                self.session.send_data(stream, b"", end=True)
        for stream, body in self.peer.sending.items():
            if body.owed:
                self.session.consume(stream, body.owed)
                body.owed = 0
        for stream in sorted(self.at_work):
            if self.receiving(stream).arrived or self.receiving(stream).given_up:
                self.release(stream)


class Way:
    """The way between two applications: it holds bytes up and cuts them anywhere."""

    def __init__(self, chance: random.Random) -> None:
        small = {"max_streams": 8, "max_data": 20_000, "max_stream_data": 6_000}
        node = AcceptorHello(NodeKind.DATA, bytes(16), bytes(16), 1, 1, bytes(32), codecs=1)
        manager = DiallerHello(3, bytes(16), b"", codecs=1)
        mode = chance.choice(list(Compression))
        acceptor = Session(
            SessionConfig(replace(node, **small), KEYS[0], chance.randbytes, compression=mode), 0.0
        )
        dialler = Session(
            SessionConfig(
                replace(manager, **small), KEYS[1], chance.randbytes, NODE_PUBLIC, compression=mode
            ),
            0.0,
        )
        self.now = 0.0
        self.chance = chance
        self.sides = (Application(dialler, chance), Application(acceptor, chance))
        self.sides[0].peer, self.sides[1].peer = self.sides[1], self.sides[0]
        self.under_way = (bytearray(), bytearray())  # from the dialler, from the acceptor
        for side in (0, 1, 0):
            self.carry(side, whole=True)
        acceptor.promote(State.OPEN)
        self.carry(1, whole=True)

    def carry(self, side: int, *, whole: bool = False) -> bool:
        """Carry bytes from one side to the other; return whether there were any."""
        sender, receiver = self.sides[side], self.sides[1 - side]
        for _ in range(1000 if whole else self.chance.randint(0, 3)):
            record = sender.session.next_record(self.now)
            if record is None:
                break
            self.under_way[side].extend(record)
        sender.take(sender.session.events())
        held = self.under_way[side]
        size = len(held) if whole else self.chance.randint(0, len(held))
        data = bytes(held[:size])
        del held[:size]
        receiver.take(receiver.session.receive_data(data, self.now))
        return bool(data)

    def settle(self) -> None:
        while self.carry(0, whole=True) | self.carry(1, whole=True):
            pass


@pytest.mark.parametrize("seed", range(40))
def test_honest_sessions_lose_nothing_and_keep_nothing(seed: int) -> None:
    chance = random.Random(seed)
    way = Way(chance)
    for _ in range(400):
        if chance.random() < 0.6:
            chance.choice(way.sides).act()
        else:
            way.carry(chance.randint(0, 1))
        if chance.random() < 0.05:
            way.now += 0.2
    for _ in range(200):
        way.settle()
        for side in way.sides:
            side.finish()
        way.now += 1
    way.settle()
    for side in way.sides:
        session = side.session
        assert not session.closed
        assert session._streams.live == {}
        assert session._bodies.queued == 0
        assert session._outbox.receive_credit.outstanding == 0
        assert not session.has_output
        assert side.interrupts[0] == side.interrupts[1] == side.peer.interrupts[2]
        for body in side.sending.values():
            assert body.arrived or body.given_up or not body.begun or side.peer_goes
