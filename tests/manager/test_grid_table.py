"""GridTable: events in, effects out, on virtual time."""

import itertools
from collections.abc import Callable

import pytest
from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.grid_jobs import MOVES, GridJob, Phase, Trigger
from alpyne_grid.manager.grid_table import LOST_AFTER_S, MOVES_MAX, PAUSE_S, GridTable
from alpyne_grid.manager.journal import Kind
from alpyne_grid.manager.placement import LOCALITY_WAIT_S, NodeFacts, Wants
from alpyne_grid.manager.waiting import FIT_WAIT_S

from alpyne_proto.errors import ErrorCode, LocalProtocolError
from alpyne_proto.messages.compute import (
    Cause,
    JobEvent,
    JobState,
    Operator,
    Requirement,
    Usage,
    Verdict,
)

A, B, C = b"A" * 32, b"B" * 32, b"C" * 32
JOURNAL = b"journal."


def job_id(number: int) -> bytes:
    return JOURNAL + number.to_bytes(8, "big")


class Driver:
    """Feeds a table, keeps its effects, and lets the journal answer at once or when told."""

    def __init__(self, *, stores_at_once: bool = True) -> None:
        self.table = GridTable()
        self.now = 100.0
        self.effects: list[g.Effect] = []
        self.stores_at_once = stores_at_once

    def feed(self, *events: g.Event) -> list[g.Effect]:
        new: list[g.Effect] = []
        waiting = list(events)
        while waiting:
            some = self.table.handle(waiting.pop(0), self.now)
            assert not any(isinstance(effect, g.Misstep) for effect in some)
            new += some
            if self.stores_at_once:
                waiting += [g.Stored(e.job_id) for e in some if isinstance(e, g.Store)]
        self.effects += new
        return new

    def up(
        self, *nodes: bytes, slots: int = 2, fresh: bool = False, **facts: object
    ) -> list[g.Effect]:
        new = []
        for node in nodes:
            new += self.feed(
                g.NodeUp(node, NodeFacts(node[:1].decode(), slots, **facts), fresh)  # type: ignore[arg-type]
            )
        return new

    def add(self, number: int = 1, **plan: object) -> list[g.Effect]:
        return self.feed(g.JobsAdded((g.Plan(job_id(number), **plan),)))  # type: ignore[arg-type]

    def answer(
        self, node: bytes, number: int = 1, verdict: Verdict = Verdict.ACCEPTED, **more: object
    ) -> list[g.Effect]:
        return self.feed(g.JobAnswered(node, job_id(number), verdict, **more))  # type: ignore[arg-type]

    def event(
        self,
        node: bytes,
        state: JobState,
        number: int = 1,
        allocation: int = 1,
        attempt: int = 1,
        body: bytes = b"",
        **row: object,
    ) -> list[g.Effect]:
        row.setdefault("inline", True)
        made = JobEvent(1, job_id(number), allocation, attempt, state, **row)  # type: ignore[arg-type]
        return self.feed(g.JobChanged(node, made, body))

    def lose(self, node: bytes) -> list[g.Effect]:
        new = self.feed(g.NodeDown(node))
        self.now += LOST_AFTER_S + 0.1
        return new + self.feed(g.Tick())

    def delivered(self) -> list[g.Deliver]:
        return [e for e in self.effects if isinstance(e, g.Deliver)]

    def sent(self) -> list[tuple[bytes, int]]:
        return [(e.node, e.allocation) for e in self.effects if isinstance(e, g.Send)]


@pytest.fixture
def grid() -> Driver:
    return Driver()


# --- placing ------------------------------------------------------------------------------------


def test_table_sends_a_job_under_allocation_1_without_a_commit_when_a_node_is_up(
    grid: Driver,
) -> None:
    grid.up(A)
    assert grid.add() == [g.Send(A, job_id(1), 1)]


def test_table_keeps_a_job_when_no_node_is_up_and_sends_it_when_one_comes(grid: Driver) -> None:
    grid.feed(g.NodesExpected(frozenset({A})))
    assert grid.add() == []
    assert grid.up(A) == [g.Send(A, job_id(1), 1)]


def test_table_fills_the_node_that_ends_first_by_slots_and_score(grid: Driver) -> None:
    grid.up(A, slots=1, score=100.0)
    grid.up(B, slots=2, score=100.0)
    grid.feed(g.JobsAdded(tuple(g.Plan(job_id(n)) for n in range(6))))
    assert sorted(node for node, _ in grid.sent()) == [A, A, B, B, B, B]


def test_table_sends_no_more_than_the_pipeline_takes_until_a_job_ends(grid: Driver) -> None:
    grid.up(A, slots=1)
    grid.feed(g.JobsAdded(tuple(g.Plan(job_id(n), kind="f") for n in range(1, 4))))
    assert len(grid.sent()) == 2
    grid.event(A, JobState.DONE, 1, usage=Usage(wall_ms=10_000))
    assert len(grid.sent()) == 3


def test_table_deepens_the_pipeline_when_jobs_of_a_kind_are_short(grid: Driver) -> None:
    grid.up(A, slots=1)
    grid.feed(g.JobsAdded(tuple(g.Plan(job_id(n), kind="f") for n in range(1, 100))))
    grid.event(A, JobState.DONE, 1, usage=Usage(wall_ms=1))
    assert len(grid.sent()) == 1 + 50


def test_table_places_no_job_on_a_node_that_lacks_what_it_requires(grid: Driver) -> None:
    wants = Wants(requirements=(Requirement("gpu", Operator.EQUAL, "yes"),))
    grid.up(A)
    grid.up(B, attributes={"gpu": "yes"})
    grid.add(wants=wants)
    assert grid.sent() == [(B, 1)]


def test_table_fails_a_job_at_once_when_every_node_has_spoken_and_none_fits(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add(wants=Wants(python="9.9"))
    assert grid.delivered()[0].outcome.misfits == ("A: has Python unknown, the code needs 9.9",)


def test_table_waits_for_a_node_that_has_not_spoken_before_it_fails_a_job(grid: Driver) -> None:
    grid.feed(g.NodesExpected(frozenset({A, B})))
    grid.up(A)
    grid.add(wants=Wants(python="9.9"))
    assert grid.delivered() == []
    grid.now += FIT_WAIT_S
    grid.feed(g.Tick())
    assert len(grid.delivered()) == 1


def test_table_keeps_a_job_beside_its_data_until_it_has_waited_long_enough(grid: Driver) -> None:
    grid.up(A, slots=1, label="here")
    grid.up(B, slots=1, label="there")
    wants = Wants(labels=frozenset({"here"}))
    grid.feed(g.JobsAdded(tuple(g.Plan(job_id(n), wants=wants) for n in range(1, 4))))
    assert grid.sent() == [(A, 1), (A, 1)]
    grid.now += LOCALITY_WAIT_S
    grid.feed(g.Tick())
    assert grid.sent()[2:] == [(B, 1)]


def test_table_runs_a_job_elsewhere_when_no_node_is_beside_its_data(grid: Driver) -> None:
    grid.up(B, label="there")
    grid.add(wants=Wants(labels=frozenset({"here"})))
    assert grid.sent() == [(B, 1)]


# --- one result, ever ---------------------------------------------------------------------------


def test_table_commits_the_execution_before_it_delivers() -> None:
    grid = Driver(stores_at_once=False)
    grid.up(A)
    grid.add()
    grid.answer(A)
    effects = grid.event(A, JobState.DONE, attempt=2, body=b"result", sha256=b"h" * 32)
    assert [type(e) for e in effects] == [g.Store]
    store = effects[0]
    assert isinstance(store, g.Store)
    assert store.record == (Kind.SETTLED, 1, 1, 2, b"h" * 32)
    deliver, settle = grid.feed(g.Stored(job_id(1)))
    assert isinstance(deliver, g.Deliver) and deliver.outcome.body == b"result"
    assert settle == g.Settle(A, job_id(1), 1, 2)
    assert grid.table.jobs == {} and grid.table.nodes[A].jobs == set()


def test_table_delivers_a_result_that_overtakes_the_acknowledgement(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.event(A, JobState.DONE)
    assert len(grid.delivered()) == 1
    assert grid.answer(A) == []


def test_table_delivers_one_and_fences_one_when_both_executions_finish_after_a_partition(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.event(A, JobState.RUNNING)
    grid.up(B)
    grid.lose(A)
    assert grid.sent() == [(A, 1), (B, 2)]
    grid.answer(B)
    grid.event(B, JobState.DONE, allocation=2, body=b"second")
    assert [d.outcome.body for d in grid.delivered()] == [b"second"]
    grid.up(A)
    late = grid.event(A, JobState.DONE, allocation=1, body=b"first")
    assert late == [g.Settle(A, job_id(1), 2, 1)]  # so that A marks its own as superseded
    assert [d.outcome.body for d in grid.delivered()] == [b"second"]
    assert grid.table.counts["fenced"] == 1


def test_table_fences_a_late_result_that_comes_before_the_second_execution_ends(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.up(B)
    grid.lose(A)
    grid.up(A)
    grid.event(A, JobState.DONE, allocation=1, body=b"first")
    assert grid.delivered() == [] and grid.table.counts["fenced"] == 1
    grid.event(B, JobState.DONE, allocation=2, body=b"second")
    assert [d.outcome.body for d in grid.delivered()] == [b"second"]


def test_table_counts_a_fenced_execution_once_when_its_node_tells_it_again(grid: Driver) -> None:
    grid.up(A, B)
    grid.add(wants=Wants(only=frozenset({A, B})))
    node = grid.sent()[0][0]
    grid.answer(node)
    grid.lose(node)
    grid.up(node)
    for _ in range(3):
        grid.event(node, JobState.DONE, allocation=1)
    assert grid.table.counts["fenced"] == 1


def test_table_commits_a_higher_allocation_before_it_sends_the_job_again() -> None:
    grid = Driver(stores_at_once=False)
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.up(B)
    effects = grid.lose(A)
    assert [type(e) for e in effects] == [g.Store]
    assert isinstance(effects[0], g.Store) and effects[0].record[:3] == (Kind.ALLOCATED, 1, 2)
    assert grid.feed(g.Stored(job_id(1))) == [g.Send(B, job_id(1), 2)]


def test_table_abandons_a_result_when_the_journal_cannot_be_written() -> None:
    grid = Driver(stores_at_once=False)
    grid.up(A)
    grid.add()
    grid.event(A, JobState.DONE)
    assert grid.feed(g.StoreFailed(job_id(1), "disk full")) == [g.Abandon(job_id(1), "disk full")]
    assert grid.table.jobs == {} and grid.table.nodes[A].cpus_out == 0


# --- nodes come and go --------------------------------------------------------------------------


def test_table_sends_an_unacknowledged_job_again_when_its_node_is_back(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.feed(g.NodeDown(A))
    assert grid.up(A) == [g.Send(A, job_id(1), 1)]


def test_table_leaves_an_acknowledged_job_alone_when_its_node_is_back_in_time(
    grid: Driver,
) -> None:
    grid.up(A, B)
    grid.add()
    node = grid.sent()[0][0]
    grid.answer(node)
    grid.feed(g.NodeDown(node))
    grid.now += LOST_AFTER_S / 2
    grid.feed(g.Tick())
    assert grid.up(node) == []
    assert len(grid.sent()) == 1


def test_table_takes_a_new_attempt_of_the_same_allocation_when_its_node_was_restarted(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.event(A, JobState.RUNNING, attempt=1)
    grid.event(A, JobState.RUNNING, attempt=2)
    grid.event(A, JobState.DONE, attempt=2)
    assert grid.delivered()[0].outcome.attempt == 2


def test_table_lets_a_lost_job_stay_when_its_node_is_back_before_another_has_room(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.lose(A)
    assert grid.up(A) == [g.Send(A, job_id(1), 1)]  # its node says DUPLICATE, and goes on
    grid.answer(A, verdict=Verdict.DUPLICATE)
    grid.event(A, JobState.DONE)
    assert grid.delivered()[0].outcome.allocation == 1
    assert grid.table.counts["moved"] == 0


def test_table_waits_for_the_same_node_when_the_job_asks_for_it(grid: Driver) -> None:
    grid.up(A)
    grid.add(on_lost=g.OnLost.WAIT)
    grid.answer(A)
    grid.up(B)
    assert grid.lose(A) == []
    grid.up(A)
    grid.event(A, JobState.DONE)
    assert grid.delivered()[0].outcome.node == A


def test_table_ends_a_job_as_lost_when_it_has_moved_five_times(grid: Driver) -> None:
    grid.up(A, B)
    grid.add()
    for allocation in itertools.count(1):
        if grid.delivered():
            break
        node = grid.sent()[-1][0]
        grid.answer(node)
        grid.event(node, JobState.RUNNING, allocation=allocation)
        grid.lose(node)
        grid.up(node)
    assert grid.delivered()[0].outcome.state is JobState.LOST
    assert grid.table.counts["moved"] == MOVES_MAX


def test_table_runs_an_accepted_job_anew_when_its_node_has_lost_its_store(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.feed(g.NodeDown(A))
    effects = grid.up(A, fresh=True)
    assert g.Send(A, job_id(1), 2) in effects


def test_table_ends_what_still_runs_on_a_node_that_is_back_when_the_job_has_moved(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.up(B)
    grid.lose(A)
    assert grid.up(A) == [g.Cancel(A, job_id(1))]
    assert grid.event(A, JobState.RUNNING, allocation=1) == [g.Cancel(A, job_id(1))]


# --- refusals, failures, retries ----------------------------------------------------------------


def test_table_tries_another_node_when_one_refuses_a_job_for_good(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.up(B)
    grid.answer(A, verdict=Verdict.REFUSED, code=ErrorCode.UNSUPPORTED, text="no", retryable=True)
    assert grid.sent() == [(A, 1), (B, 2)]


def test_table_fails_a_job_in_the_words_of_the_node_when_all_refuse_it(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A, verdict=Verdict.REFUSED, code=ErrorCode.BAD_REQUEST, text="too odd")
    outcome = grid.delivered()[0].outcome
    assert (outcome.refused, outcome.text) == (ErrorCode.BAD_REQUEST, "too odd")


def test_table_asks_a_full_node_again_after_a_pause(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    full = {"code": ErrorCode.OVERLOADED, "retryable": True, "retry_after_s": 2.0}
    grid.answer(A, verdict=Verdict.REFUSED, **full)
    grid.feed(g.Tick())
    assert len(grid.sent()) == 1
    grid.now += 2.0
    grid.feed(g.Tick())
    assert grid.sent() == [(A, 1), (A, 2)]


@pytest.mark.parametrize("cause", [Cause.EXCEPTION, Cause.CRASH, Cause.EXIT_STATUS])
def test_table_retries_an_exception_or_crash_as_often_as_allowed(
    grid: Driver, cause: Cause
) -> None:
    grid.up(A)
    grid.add(retries=2)
    for allocation in (1, 2, 3):
        assert grid.delivered() == []
        grid.answer(A)
        grid.event(A, JobState.FAILED, allocation=allocation, cause=cause)
    assert grid.delivered()[0].outcome.cause is cause
    assert grid.sent() == [(A, 1), (A, 2), (A, 3)]


@pytest.mark.parametrize(
    ("state", "cause"), [(JobState.LIMIT, Cause.MEMORY), (JobState.TIMEOUT, Cause.WALL_TIME)]
)
def test_table_retries_no_job_that_hit_a_limit(grid: Driver, state: JobState, cause: Cause) -> None:
    grid.up(A)
    grid.add(retries=2)
    grid.event(A, state, cause=cause)
    assert grid.delivered()[0].outcome.state is state


# --- a node that could not run a job ------------------------------------------------------------


def test_table_moves_a_job_that_its_node_could_not_run(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.up(B)
    grid.answer(A)
    grid.event(A, JobState.FAILED, cause=Cause.NODE, text="the container engine stopped")
    assert grid.sent() == [(A, 1), (B, 2)]
    assert grid.table.counts["moved"] == 1
    assert grid.delivered() == []


def test_table_tries_the_same_node_again_after_a_pause_that_grows(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    for allocation, pause_s in ((1, PAUSE_S), (2, 2 * PAUSE_S), (3, 4 * PAUSE_S)):
        grid.answer(A)
        grid.event(A, JobState.FAILED, allocation=allocation, cause=Cause.NODE)
        grid.now += pause_s - 0.01
        grid.feed(g.Tick())
        assert len(grid.sent()) == allocation
        grid.now += 0.02
        grid.feed(g.Tick())
        assert len(grid.sent()) == allocation + 1


def test_table_pauses_no_node_for_a_program_that_it_no_longer_has(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.event(A, JobState.LOST, cause=Cause.NODE)
    assert grid.sent() == [(A, 1), (A, 2)]


def test_table_fails_a_job_in_the_nodes_words_when_nodes_failed_too_often(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    for allocation in range(1, MOVES_MAX + 2):
        assert grid.delivered() == []
        grid.answer(A)
        grid.event(A, JobState.FAILED, allocation=allocation, cause=Cause.NODE, text="no engine")
        grid.now += 60
        grid.feed(g.Tick())
    outcome = grid.delivered()[0].outcome
    assert (outcome.state, outcome.cause) == (JobState.LOST, Cause.NODE)
    assert outcome.text == "no engine; it had moved 5 times before"
    assert outcome.node_failed


def test_table_does_not_try_a_cancelled_job_again_when_its_node_failed(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.feed(g.CancelAsked(job_id(1)))
    grid.event(A, JobState.FAILED, cause=Cause.NODE)
    assert len(grid.delivered()) == 1


# --- suspending ---------------------------------------------------------------------------------


def paused(grid: Driver) -> None:
    """Job 1 at A, suspended by the program."""
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.event(A, JobState.RUNNING)
    grid.feed(g.SuspendAsked(job_id(1)))
    grid.event(A, JobState.SUSPENDED)


def test_table_tells_the_node_to_suspend_and_resume(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    assert grid.feed(g.SuspendAsked(job_id(1))) == [g.Suspend(A, job_id(1))]
    assert grid.feed(g.ResumeAsked(job_id(1))) == [g.Resume(A, job_id(1))]


def test_table_tells_that_a_job_is_suspended(grid: Driver) -> None:
    paused(grid)
    assert grid.effects[-1] == g.Changed(job_id(1), JobState.SUSPENDED, A, True)


def test_table_takes_a_suspended_job_that_was_never_said_to_run(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.feed(g.SuspendAsked(job_id(1)))
    grid.event(A, JobState.SUSPENDED)
    assert grid.table.jobs[job_id(1)].phase is Phase.RUNNING


def test_table_suspends_only_after_the_answer_because_an_interrupt_overtakes(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    assert grid.feed(g.SuspendAsked(job_id(1))) == []
    assert grid.answer(A)[-1] == g.Suspend(A, job_id(1))


def test_table_suspends_a_job_that_waits_once_a_node_has_it(grid: Driver) -> None:
    grid.feed(g.NodesExpected(frozenset({A})))
    grid.add()
    grid.feed(g.SuspendAsked(job_id(1)))
    grid.up(A)
    assert grid.answer(A)[-1] == g.Suspend(A, job_id(1))


def test_table_suspends_a_job_again_where_it_has_moved(grid: Driver) -> None:
    paused(grid)
    grid.up(B)
    grid.lose(A)
    assert grid.sent()[-1] == (B, 2)
    assert grid.answer(B)[-1] == g.Suspend(B, job_id(1))


def test_table_suspends_a_job_again_when_its_node_was_restarted(grid: Driver) -> None:
    paused(grid)
    effects = grid.event(A, JobState.QUEUED, attempt=2)
    assert g.Suspend(A, job_id(1)) in effects


@pytest.mark.parametrize(
    ("asked", "told"), [(g.SuspendAsked, g.Suspend), (g.ResumeAsked, g.Resume)]
)
def test_table_repeats_a_wish_that_the_lost_connection_may_have_swallowed(
    grid: Driver,
    asked: type[g.SuspendAsked | g.ResumeAsked],
    told: type[g.Suspend | g.Resume],
) -> None:
    paused(grid)
    grid.feed(asked(job_id(1)), g.NodeDown(A))
    assert grid.up(A) == [told(A, job_id(1))]


def test_table_lets_a_job_go_on_when_that_was_asked_while_its_node_was_away(grid: Driver) -> None:
    paused(grid)
    grid.feed(g.NodeDown(A))
    grid.feed(g.ResumeAsked(job_id(1)))
    assert grid.up(A) == [g.Resume(A, job_id(1))]


def test_table_forgets_the_wish_when_somebody_else_has_resumed_the_job(grid: Driver) -> None:
    paused(grid)
    grid.event(A, JobState.RUNNING)
    grid.feed(g.NodeDown(A))
    assert grid.up(A) == []


def test_table_keeps_the_wish_when_the_end_of_an_earlier_pause_is_told_late(grid: Driver) -> None:
    paused(grid)
    grid.feed(g.ResumeAsked(job_id(1)), g.SuspendAsked(job_id(1)))
    grid.event(A, JobState.RUNNING)
    grid.event(A, JobState.SUSPENDED)
    grid.feed(g.NodeDown(A))
    assert grid.up(A) == [g.Suspend(A, job_id(1))]


def test_table_says_nothing_of_pauses_for_jobs_that_nobody_suspended(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.event(A, JobState.RUNNING)
    grid.event(A, JobState.QUEUED, attempt=2)
    grid.feed(g.NodeDown(A))
    assert grid.up(A) == []


def test_table_passes_over_a_job_that_it_does_not_have(grid: Driver) -> None:
    assert grid.feed(g.SuspendAsked(job_id(7)), g.ResumeAsked(job_id(7))) == []


def test_table_cancels_a_suspended_job(grid: Driver) -> None:
    paused(grid)
    assert grid.feed(g.CancelAsked(job_id(1))) == [g.Cancel(A, job_id(1))]
    grid.event(A, JobState.KILLED, cause=Cause.CANCELLED)
    assert grid.delivered()[0].outcome.state is JobState.KILLED


# --- retries, once more -------------------------------------------------------------------------


def test_table_takes_no_result_of_an_older_allocation_from_the_node_that_has_the_newer(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add(retries=1)
    grid.answer(A)
    grid.event(A, JobState.FAILED, allocation=1, cause=Cause.CRASH)
    grid.answer(A)
    grid.event(A, JobState.DONE, allocation=1, attempt=2)
    assert grid.delivered() == []


# --- large results ------------------------------------------------------------------------------


def large(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.event(A, JobState.DONE, inline=False, result_bytes=1 << 20)


def test_table_fetches_a_result_that_is_not_with_its_event(grid: Driver) -> None:
    large(grid)
    assert grid.effects[-1] == g.Fetch(A, job_id(1), 1, 1)
    grid.feed(g.ResultFetched(A, job_id(1), 1, 1, b"large", b"h" * 32))
    assert grid.delivered()[0].outcome.body == b"large"


def test_table_fetches_again_when_the_node_is_back(grid: Driver) -> None:
    large(grid)
    grid.feed(g.NodeDown(A))
    assert grid.up(A) == [g.Fetch(A, job_id(1), 1, 1)]


def test_table_executes_again_when_a_result_cannot_be_had(grid: Driver) -> None:
    large(grid)
    effects = grid.feed(g.FetchFailed(A, job_id(1), 1, 1, "damaged"))
    assert g.Send(A, job_id(1), 2) in effects


def test_table_takes_no_result_that_was_fetched_too_late(grid: Driver) -> None:
    large(grid)
    grid.up(B)
    grid.lose(A)
    grid.feed(g.ResultFetched(A, job_id(1), 1, 1, b"large"))
    assert grid.delivered() == []


# --- cancelling ---------------------------------------------------------------------------------


def test_table_cancels_only_after_the_answer_because_an_interrupt_overtakes(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    assert grid.feed(g.CancelAsked(job_id(1))) == []
    assert grid.answer(A)[-1] == g.Cancel(A, job_id(1))


def test_table_hands_out_the_receipt_of_a_cancelled_job(grid: Driver) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    assert grid.feed(g.CancelAsked(job_id(1))) == [g.Cancel(A, job_id(1))]
    grid.event(A, JobState.KILLED, cause=Cause.CANCELLED, ended=3)
    receipt = grid.delivered()[0].outcome.receipt
    assert (receipt.ended, receipt.left, receipt.confirmed) == (3, 0, True)


def test_table_ends_a_job_at_once_when_it_is_cancelled_before_it_has_a_node(
    grid: Driver,
) -> None:
    grid.feed(g.NodesExpected(frozenset({A})))
    grid.add()
    grid.feed(g.CancelAsked(job_id(1)))
    assert grid.delivered()[0].outcome.state is JobState.KILLED
    assert grid.up(A) == []


def test_table_ends_a_cancelled_job_when_its_node_is_lost_and_kills_it_there_later(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.feed(g.CancelAsked(job_id(1)))
    grid.lose(A)
    assert not grid.delivered()[0].outcome.receipt.confirmed
    assert grid.up(A) == [g.Cancel(A, job_id(1))]


def test_table_delivers_the_value_of_a_job_that_was_done_before_the_cancel_came(
    grid: Driver,
) -> None:
    grid.up(A)
    grid.add()
    grid.answer(A)
    grid.feed(g.CancelAsked(job_id(1)))
    grid.event(A, JobState.DONE)
    assert grid.delivered()[0].outcome.state is JobState.DONE


def test_table_does_not_retry_a_cancelled_job(grid: Driver) -> None:
    grid.up(A)
    grid.add(retries=5)
    grid.answer(A)
    grid.feed(g.CancelAsked(job_id(1)))
    grid.event(A, JobState.FAILED, cause=Cause.CRASH)
    assert len(grid.delivered()) == 1


# --- the moves themselves -----------------------------------------------------------------------


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("trigger", Trigger)
def test_job_refuses_every_move_that_the_table_of_moves_lacks(
    phase: Phase, trigger: Trigger
) -> None:
    job = GridJob(g.Plan(job_id(1)), 0.0)
    job.phase = phase
    move: Callable[[Trigger], None] = job.move
    if (phase, trigger) in MOVES:
        move(trigger)
        assert job.phase is MOVES[phase, trigger]
    else:
        with pytest.raises(LocalProtocolError, match=f"{trigger.name} in {phase.name}"):
            move(trigger)
        assert job.phase is phase
