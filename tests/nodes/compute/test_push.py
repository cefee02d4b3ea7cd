"""Subscriptions: each job's last state, in order, however fast the subscriber is."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from alpyne_grid.nodes.compute import push
from alpyne_grid.nodes.compute.push import Pusher, Subscription

from alpyne_proto.codec import read_rows
from alpyne_proto.errors import ConnectionLost
from alpyne_proto.messages.compute import (
    SUBSCRIBE_JOBS,
    SUBSCRIBE_LOAD,
    EventGap,
    JobEvent,
    JobState,
    LoadEvent,
    Subscribe,
)

ALICE, BOB = b"a" * 32, b"b" * 32
ROWS = (JobEvent.SPEC.code, LoadEvent.SPEC.code, EventGap.SPEC.code)


class Stream:
    """Records what is written; ``room`` says how much of it is taken at once."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.written: list[bytes] = []
        self.has_room = asyncio.Event()
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False

    def try_write(self, data: bytes) -> bool:
        if self.lost:
            raise ConnectionLost("gone")
        if len(data) > self.room:
            return False
        self.written.append(data)
        return True

    async def write(self, data: bytes) -> None:
        await self.has_room.wait()
        if self.lost:
            raise ConnectionLost("gone")
        self.written.append(data)

    @property
    def rows(self) -> list[Any]:
        return [row for row, _ in read_rows(b"".join(self.written), ROWS)]

    @property
    def jobs(self) -> list[tuple[int, JobState]]:
        return [(row.job_id[-1], row.state) for row in self.rows if isinstance(row, JobEvent)]


class Peer:
    """A connection as far as a Pusher needs one."""

    def __init__(self, account: bytes = ALICE) -> None:
        self.account = account
        self.stream = Stream()

    async def open(self, message: Any, *, urgency: int) -> Stream:
        return self.stream


def in_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


async def turn() -> None:
    """Let everything that is ready happen."""
    for _ in range(5):
        await asyncio.sleep(0)


def subscription(stream: Stream, kinds: int = SUBSCRIBE_JOBS, **more: Any) -> Subscription:
    request = Subscribe(kinds, **more)
    return Subscription(stream, request, 0, lambda job: job.result.data)  # type: ignore[arg-type]


def running(bench: Any, number: int) -> Any:
    """A job whose RUNNING was announced."""
    bench.accept(bench.spec(number))
    bench.started(bench.execution(number))
    bench.pass_time(1)
    return bench.job(number)


def test_subscriber_is_told_a_result_with_its_bytes(bench: Any) -> None:
    async def main() -> None:
        stream = Stream()
        bench.accept(bench.spec(1))
        bench.run(bench.execution(1), data=b"value")
        subscriber = subscription(stream)
        subscriber.tell(bench.job(1))
        subscriber.flush()
        ((row, payload),) = read_rows(b"".join(stream.written), ROWS)
        assert isinstance(row, JobEvent)
        assert (row.state, row.inline, payload) == (JobState.DONE, True, b"value")

    in_loop(main)


def test_subscriber_is_not_told_of_a_job_that_was_replaced_before_its_news_went_out(
    bench: Any,
) -> None:
    async def main() -> None:
        stream = Stream()
        subscriber = subscription(stream)
        old = running(bench, 1)
        subscriber.tell(old)
        bench.accept(bench.spec(1, allocation=2))  # the first one is ended, and is nobody's news
        bench.ended(bench.execution(1), state=JobState.KILLED)
        assert (old.finished, old.end) == (True, b"")
        subscriber.flush()
        assert stream.rows == []

    in_loop(main)


def test_subscriber_gets_what_happens_together_in_one_write(make_bench: Any) -> None:
    async def main() -> None:
        bench, stream = make_bench(slots=4), Stream()
        subscriber = subscription(stream)
        for number in (1, 2, 3):
            subscriber.tell(running(bench, number))
        subscriber.flush()
        assert len(stream.written) == 1
        assert [row.sequence for row in stream.rows] == [1, 2, 3]

    in_loop(main)


def test_slow_subscriber_gets_only_the_last_state_of_each_job(make_bench: Any) -> None:
    async def main() -> None:
        bench, stream = make_bench(slots=4), Stream(room=0)
        subscriber = subscription(stream)
        one = running(bench, 1)
        subscriber.tell(one)
        subscriber.flush()  # this row waits for room
        await turn()
        two = running(bench, 2)
        subscriber.tell(two)
        bench.ended(two.execution)
        subscriber.tell(two)
        bench.ended(one.execution)
        subscriber.tell(one)
        subscriber.flush()
        stream.has_room.set()
        await turn()
        assert stream.jobs == [(1, JobState.RUNNING), (2, JobState.DONE), (1, JobState.DONE)]
        numbers = [row.sequence for row in stream.rows]
        assert numbers == sorted(numbers)

    in_loop(main)


def test_slow_subscriber_is_told_which_events_were_left_out(
    make_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "WAITING_MAX", 2)

    async def main() -> None:
        bench, stream = make_bench(slots=8), Stream(room=0)
        subscriber = subscription(stream)
        subscriber.tell(running(bench, 1))
        subscriber.flush()
        await turn()
        for number in (2, 3, 4, 5):
            subscriber.tell(running(bench, number))
        stream.has_room.set()
        await turn()
        assert [type(row) for row in stream.rows] == [JobEvent, EventGap, JobEvent, JobEvent]
        assert stream.rows[1] == EventGap(first=2, last=3)
        assert [number for number, _ in stream.jobs] == [1, 4, 5]

    in_loop(main)


def test_subscriber_of_a_journal_is_told_of_its_jobs_only(bench: Any) -> None:
    async def main() -> None:
        own, other = Stream(), Stream()
        job = running(bench, 1)
        for stream, journal in ((own, job.spec.job_id[:8]), (other, b"another!")):
            subscriber = subscription(stream, journal=journal)
            subscriber.tell(job)
            subscriber.flush()
        assert (len(own.jobs), len(other.jobs)) == (1, 0)

    in_loop(main)


# ---- the pusher ----


def pusher(bench: Any, load: Callable[[], LoadEvent] = lambda: LoadEvent(1, 0, 0)) -> Pusher:
    class Rows:
        def result(self, job: Any) -> bytes:
            data: bytes = job.result.data
            return data

    return Pusher(bench.table, Rows(), level=0, load=load)  # type: ignore[arg-type]


def test_subscriber_is_told_first_of_every_job_that_is_newer(make_bench: Any) -> None:
    async def main() -> None:
        bench, peer = make_bench(slots=4), Peer()
        for number in (1, 2, 3):
            running(bench, number)
        bench.ended(bench.execution(1))
        pushing = pusher(bench)
        await pushing.begin(peer, 1, Subscribe(SUBSCRIBE_JOBS, after=2))  # type: ignore[arg-type]
        await turn()
        assert peer.stream.jobs == [(3, JobState.RUNNING), (1, JobState.DONE)]

    in_loop(main)


def test_subscriber_is_never_told_of_another_accounts_jobs(make_bench: Any) -> None:
    async def main() -> None:
        bench, bob = make_bench(slots=4), Peer(BOB)
        pushing = pusher(bench)
        running(bench, 1)
        await pushing.begin(bob, 1, Subscribe(SUBSCRIBE_JOBS))  # type: ignore[arg-type]
        pushing.publish(running(bench, 2))
        pushing.flush()
        assert bob.stream.written == []

    in_loop(main)


def test_results_go_out_at_once_when_nothing_waits_and_together_when_something_does(
    make_bench: Any,
) -> None:
    async def main() -> None:
        bench, peer = make_bench(slots=1), Peer()
        pushing = pusher(bench)
        await pushing.begin(peer, 1, Subscribe(SUBSCRIBE_JOBS))  # type: ignore[arg-type]
        bench.accept(bench.spec(1), bench.spec(2), bench.spec(3))
        for number, writes in ((1, 0), (2, 1), (3, 2)):  # with the second end, nothing waits
            bench.run(bench.execution(number))
            pushing.publish(bench.job(number))
            pushing.flush()
            assert len(peer.stream.written) == writes
        assert [number for number, _ in peer.stream.jobs] == [1, 2, 3]

    in_loop(main)


def test_subscriber_is_told_the_load_when_it_is_another(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "LOAD_INTERVAL_S", 0.0)

    async def main() -> None:
        peer = Peer()
        loads = [LoadEvent(1, 0, 0)]
        pushing = pusher(bench, lambda: loads[-1])
        await pushing.begin(peer, 1, Subscribe(SUBSCRIBE_LOAD))  # type: ignore[arg-type]
        await turn()
        pushing.load_changed()
        await turn()
        loads.append(LoadEvent(1, 1, 5))
        pushing.load_changed()
        pushing.load_changed()
        await turn()
        assert peer.stream.rows == loads

    in_loop(main)


def test_pusher_forgets_a_subscriber_whose_stream_or_connection_has_ended(bench: Any) -> None:
    async def main() -> None:
        pushing = pusher(bench)
        stopped, gone = Peer(), Peer()
        for peer in (stopped, gone):
            await pushing.begin(peer, 1, Subscribe(SUBSCRIBE_LOAD))  # type: ignore[arg-type]
        assert pushing.wants_load
        stopped.stream.answered.set_result(None)
        gone.stream.lost = True
        await turn()
        pushing.forget(gone)  # type: ignore[arg-type]
        assert not pushing.wants_load
        pushing.publish(running(bench, 1))
        pushing.flush()
        assert stopped.stream.jobs == gone.stream.jobs == []

    in_loop(main)
