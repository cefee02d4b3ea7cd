"""Jobs that pause: orders to the back end, states by what it reports, and what ends them."""

from dataclasses import replace
from typing import Any

import pytest
from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import Offer
from alpyne_grid.nodes.compute.job import MOVES, SuspendReason

from alpyne_proto.messages.compute import Cause, JobState

ALICE, BOB = b"a" * 32, b"b" * 32


def suspend(bench: Any, *numbers: int, account: bytes = ALICE) -> list[ev.Effect]:
    effects: list[ev.Effect] = bench.handle(
        ev.JobsSuspended(account, tuple(bench.job_id(number) for number in numbers))
    )
    return effects


def resume(bench: Any, *numbers: int, account: bytes = ALICE) -> list[ev.Effect]:
    effects: list[ev.Effect] = bench.handle(
        ev.JobsResumed(account, tuple(bench.job_id(number) for number in numbers))
    )
    return effects


def paused(bench: Any, **more: Any) -> Any:
    """Job 1 of ``bench``, which its account has suspended."""
    bench.accept(bench.spec(1, **more))
    bench.started(bench.execution(1))
    suspend(bench, 1)
    bench.handle(ev.ExecutionSuspended(bench.execution(1)))
    return bench.job(1)


def test_table_orders_a_running_job_to_be_suspended(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    assert suspend(bench, 1) == [ev.SuspendTask(bench.execution(1))]
    assert bench.job(1).state is JobState.RUNNING


def test_table_tells_of_a_suspension_when_the_back_end_has_done_it(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    suspend(bench, 1)
    job = bench.job(1)
    assert bench.handle(ev.ExecutionSuspended(bench.execution(1))) == [ev.Publish(job)]
    assert (job.state, job.announced) == (JobState.SUSPENDED, JobState.SUSPENDED)


def test_table_orders_once_when_it_is_asked_twice(bench: Any) -> None:
    job = paused(bench)
    assert suspend(bench, 1) == []
    assert resume(bench, 1) == [ev.ResumeTask(job.execution)]
    assert resume(bench, 1) == []


def test_table_tells_that_a_job_goes_on_when_the_back_end_says_so(bench: Any) -> None:
    job = paused(bench)
    resume(bench, 1)
    assert job.state is JobState.SUSPENDED
    assert bench.handle(ev.ExecutionResumed(job.execution)) == [ev.Publish(job)]
    assert (job.state, job.announced) == (JobState.RUNNING, JobState.RUNNING)


def test_table_resumes_only_when_nobody_wants_a_pause_any_more(bench: Any) -> None:
    job = paused(bench)
    job.reasons |= {SuspendReason.DRAIN}
    assert resume(bench, 1) == []
    assert job.reasons == {SuspendReason.DRAIN}


def test_table_takes_a_suspension_back_that_the_back_end_has_not_reported_yet(bench: Any) -> None:
    bench.accept(bench.spec(1))
    execution = bench.execution(1)
    bench.started(execution)
    suspend(bench, 1)
    assert resume(bench, 1) == [ev.ResumeTask(execution)]
    bench.handle(ev.ExecutionSuspended(execution))
    bench.handle(ev.ExecutionResumed(execution))
    assert bench.job(1).state is JobState.RUNNING


@pytest.mark.parametrize("starting", [False, True])
def test_table_suspends_a_job_that_does_not_run_yet_as_soon_as_it_runs(
    make_bench: Any, starting: bool
) -> None:
    bench = make_bench(slots=1)
    bench.accept(bench.spec(1), bench.spec(2))
    number = 1 if starting else 2
    assert suspend(bench, number) == []
    if not starting:
        bench.run(bench.execution(1))
    assert bench.job(number).state is JobState.STARTING
    execution = bench.execution(number)
    assert bench.started(execution) == [ev.SuspendTask(execution)]


def test_table_forgets_the_wish_that_is_taken_back_before_the_job_runs(bench: Any) -> None:
    bench.accept(bench.spec(1))
    suspend(bench, 1)
    assert resume(bench, 1) == []
    assert bench.started(bench.execution(1)) == []


def test_table_passes_over_foreign_unknown_and_finished_jobs(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    assert suspend(bench, 1, account=BOB) == []
    assert suspend(bench, 7) == []
    bench.ended(bench.execution(1))
    assert suspend(bench, 1) == []
    assert resume(bench, 1) == []


@pytest.mark.parametrize("attributes", [{}, {"suspend": "none"}])
def test_table_orders_nothing_of_a_back_end_that_cannot_suspend(
    make_bench: Any, attributes: dict[str, str]
) -> None:
    bench = make_bench(offer=replace(Offer(slots=1), attributes=attributes))
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    assert suspend(bench, 1) == []
    assert bench.job(1).reasons == frozenset()


def test_table_kills_a_suspended_job_and_passes_its_receipt_on(bench: Any) -> None:
    job = paused(bench)
    cancelled = ev.JobsCancelled(ALICE, (bench.job_id(1),))
    assert bench.handle(cancelled) == [ev.CancelTask(job.execution)]
    assert resume(bench, 1) == []  # it ends: nothing is to go on
    bench.ended(job.execution, JobState.KILLED, Cause.CANCELLED, ended=2)
    assert (job.state, job.cause) == (JobState.KILLED, Cause.CANCELLED)


def test_table_kills_the_suspended_jobs_of_an_account_that_is_revoked(bench: Any) -> None:
    job = paused(bench)
    assert bench.handle(ev.AccountRevoked(ALICE)) == [ev.CancelTask(job.execution)]
    bench.ended(job.execution, JobState.KILLED)
    assert (job.state, job.cause) == (JobState.KILLED, Cause.REVOKED)


def test_table_does_not_suspend_a_job_that_is_being_ended(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    bench.handle(ev.JobsCancelled(ALICE, (bench.job_id(1),)))
    assert suspend(bench, 1) == []


def test_table_counts_no_pause_towards_the_timeout(bench: Any) -> None:
    job = paused(bench, timeout_ms=10_000)
    for _ in range(3):  # a job may pause often: 3 s of running each time
        assert bench.pass_time(100) == []
        resume(bench, 1)
        bench.handle(ev.ExecutionResumed(job.execution))
        bench.pass_time(3)
        suspend(bench, 1)
        bench.handle(ev.ExecutionSuspended(job.execution))
    resume(bench, 1)
    bench.handle(ev.ExecutionResumed(job.execution))
    assert bench.pass_time(0.9) != [ev.CancelTask(job.execution)]
    assert ev.CancelTask(job.execution) in bench.pass_time(0.2)


def test_table_ends_a_suspended_job_whose_node_failed(bench: Any) -> None:
    job = paused(bench)
    bench.ended(job.execution, JobState.FAILED, Cause.NODE, text="the engine stopped")
    assert (job.state, job.cause) == (JobState.FAILED, Cause.NODE)


def test_table_runs_a_job_that_was_suspended_again_when_the_daemon_starts_anew(
    make_bench: Any,
) -> None:
    job = paused(make_bench())
    fresh = make_bench()
    restored = replace(job, state=JobState.QUEUED, reasons=frozenset(), story=[])
    fresh.handle(ev.JobsRestored((restored,)))
    fresh.stored()
    execution = fresh.execution(1, attempt=2)
    assert fresh.job(1).state is JobState.STARTING
    assert fresh.started(execution) == []  # it is not suspended: nobody has asked this daemon


def test_table_keeps_the_slot_of_a_suspended_job(bench: Any) -> None:
    paused(bench)
    effects = bench.accept(bench.spec(2))
    assert not any(isinstance(effect, ev.StartTask) for effect in effects)


def test_every_move_out_of_suspended_is_one_that_the_table_makes() -> None:
    assert {after for before, after in MOVES if before is JobState.SUSPENDED} == {
        JobState.RUNNING,
        JobState.DONE,
        JobState.FAILED,
        JobState.KILLED,
        JobState.LIMIT,
        JobState.TIMEOUT,
    }
