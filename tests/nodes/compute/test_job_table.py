"""The job table: events in, whole lists of effects out."""

from typing import Any

import pytest
from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import Offer
from alpyne_grid.nodes.compute.backends.base import TaskEnd
from alpyne_grid.nodes.compute.deadlines import ANNOUNCE_S
from alpyne_grid.nodes.compute.job import MOVES, Ending, IllegalMove, Job, Settled
from alpyne_grid.nodes.compute.job_book import UNSAVED_MAX
from alpyne_grid.nodes.compute.job_table import RETRY_STORE_S

from alpyne_proto.codec import decode_as
from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import (
    Cause,
    JobAnswer,
    JobEvent,
    JobState,
    Operator,
    Requirement,
    SettleRow,
    Verdict,
)

ALICE, BOB = b"a" * 32, b"b" * 32
WALL_MS = 1_700_000_000_000
DAY_S, HOUR_S = 86_400, 3_600


def of_kind(effects: list[Any], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def verdicts(effects: list[Any]) -> list[Verdict]:
    (answer,) = of_kind(effects, ev.Answer)
    return [one.verdict for one in answer.answers]


def answer_of(effects: list[Any]) -> JobAnswer:
    (answer,) = of_kind(effects, ev.Answer)
    (one,) = answer.answers
    return one


def last_event(job: Job) -> JobEvent:
    return decode_as(job.end, JobEvent, lenient=False)


# ---- submission ----


def test_table_starts_a_job_at_once_and_answers_only_when_it_is_stored(bench: Any) -> None:
    spec = bench.spec(1)
    effects = bench.submit(spec)
    job = bench.job(1)
    assert effects == [
        ev.StartTask(job, b"program"),
        ev.Store(1, (ev.JobAdded(1, ALICE, spec, b"program", WALL_MS),)),
    ]
    assert bench.stored() == [ev.Answer(1, (JobAnswer(spec.job_id, Verdict.ACCEPTED),))]


def test_table_stores_a_submission_of_many_jobs_as_one_batch(bench: Any) -> None:
    effects = bench.submit(*(bench.spec(n) for n in range(256)))
    (store,) = of_kind(effects, ev.Store)
    assert len(store.writes) == 256
    assert len(of_kind(effects, ev.StartTask)) == 1
    assert verdicts(bench.stored()) == [Verdict.ACCEPTED] * 256


def test_table_lets_a_result_overtake_the_acknowledgement(bench: Any) -> None:
    bench.submit(bench.spec(1))
    effects = bench.run(bench.execution(1))
    job = bench.job(1)
    assert effects[0] == ev.Publish(job)
    assert job.state is JobState.DONE
    assert verdicts(bench.stored()) == [Verdict.ACCEPTED]


def test_table_answers_duplicate_when_the_same_allocation_comes_again(bench: Any) -> None:
    bench.accept(bench.spec(1))
    assert bench.submit(bench.spec(1)) == [
        ev.Answer(2, (JobAnswer(bench.job_id(1), Verdict.DUPLICATE),))
    ]


def test_table_holds_the_answer_duplicate_back_until_the_first_one_is_stored(bench: Any) -> None:
    bench.submit(bench.spec(1))
    assert of_kind(bench.submit(bench.spec(1)), ev.Answer) == []
    assert verdicts(bench.stored()) == [Verdict.ACCEPTED]
    assert verdicts(bench.stored()) == [Verdict.DUPLICATE]


def test_table_refuses_a_repeated_id_when_the_first_one_could_not_be_stored(bench: Any) -> None:
    bench.submit(bench.spec(1))
    bench.submit(bench.spec(1))
    bench.failed()
    assert answer_of(bench.stored()).code is ErrorCode.STORE_FAILED


def test_table_takes_an_id_once_when_a_batch_holds_it_twice(bench: Any) -> None:
    bench.submit(bench.spec(1), bench.spec(1))
    assert verdicts(bench.stored()) == [Verdict.ACCEPTED, Verdict.DUPLICATE]


def test_table_keeps_two_accounts_jobs_of_one_id_apart(make_bench: Any) -> None:
    bench = make_bench(slots=2)
    bench.accept(bench.spec(1))
    effects = bench.submit(bench.spec(1), account=BOB)
    assert of_kind(effects, ev.StartTask) == [ev.StartTask(bench.job(1, BOB), b"program")]


def test_table_forgets_and_ends_a_job_when_it_could_not_be_stored(bench: Any) -> None:
    bench.submit(bench.spec(1))
    bench.started(bench.execution(1))
    effects = bench.failed("no room")
    assert answer_of(effects) == JobAnswer(
        bench.job_id(1),
        Verdict.REFUSED,
        ErrorCode.STORE_FAILED,
        "no room",
        retryable=True,
        retry_after_ms=1000,
    )
    assert effects[1:] == [ev.CancelTask(bench.execution(1))]
    assert bench.table.job(ALICE, bench.job_id(1)) is None
    assert bench.ended(bench.execution(1), JobState.KILLED) == []
    assert bench.table.counts().busy_slots == 0
    assert bench.table.bytes_kept(ALICE) == 0


def test_table_starts_a_job_that_comes_again_only_when_its_refused_run_has_ended(
    make_bench: Any,
) -> None:
    bench = make_bench(slots=4)
    bench.submit(bench.spec(1))
    bench.started(bench.execution(1))
    bench.failed()
    assert of_kind(bench.submit(bench.spec(1)), ev.StartTask) == []
    effects = bench.ended(bench.execution(1), JobState.KILLED)
    assert effects == [ev.StartTask(bench.job(1), b"program")]
    bench.run(bench.execution(1))
    assert bench.job(1).state is JobState.DONE


def test_table_names_missing_blobs_and_keeps_nothing(bench: Any) -> None:
    effects = bench.submit(bench.spec(1, bundle=b"\x05" * 32), missing=(b"\x05" * 32,))
    assert answer_of(effects) == JobAnswer(
        bench.job_id(1), Verdict.NEED_BLOB, missing=(b"\x05" * 32,)
    )
    assert bench.table.job(ALICE, bench.job_id(1)) is None


@pytest.mark.parametrize(
    ("more", "code", "word"),
    [
        ({"allocation": 0}, ErrorCode.BAD_REQUEST, "allocation"),
        ({"cpus": 0}, ErrorCode.BAD_REQUEST, "cpus"),
        ({"payload_sha256": b"\x01" * 32}, ErrorCode.BAD_REQUEST, "payload"),
        ({"cpus": 5}, ErrorCode.UNSUPPORTED, "5 slots, this node has 4"),
        ({"memory_bytes": 2 << 30}, ErrorCode.UNSUPPORTED, "1073741824 bytes of memory, asked"),
        ({"disk_bytes": 1}, ErrorCode.UNSUPPORTED, "this node does not enforce a limit on disk"),
        ({"network": "wan"}, ErrorCode.UNSUPPORTED, "the network 'wan' for jobs (networks: lan)"),
        ({"image": "big"}, ErrorCode.UNSUPPORTED, "image 'big' for jobs (images: plain, science)"),
        ({"python": "2.7"}, ErrorCode.UNSUPPORTED, "needs Python 2.7, this node has 3.11"),
        (
            {"requirements": (Requirement("gpus", Operator.AT_LEAST, "3"),)},
            ErrorCode.UNSUPPORTED,
            "gpus is '2', asked AT_LEAST '3'",
        ),
    ],
)
def test_table_refuses_a_job_that_the_node_never_runs(
    bench: Any, more: dict[str, Any], code: ErrorCode, word: str
) -> None:
    answer = answer_of(bench.submit(bench.spec(1, **more)))
    assert (answer.verdict, answer.code) == (Verdict.REFUSED, code)
    assert word in answer.text
    assert answer.retryable is (code is ErrorCode.UNSUPPORTED)


def test_table_takes_a_job_whose_limits_network_and_image_the_node_has(bench: Any) -> None:
    spec = bench.spec(1, memory_bytes=1, processes=9, network="lan", image="science")
    assert verdicts(bench.accept(spec)) == [Verdict.ACCEPTED]


def test_table_refuses_with_a_time_to_wait_when_an_account_has_too_many_jobs(
    make_bench: Any,
) -> None:
    bench = make_bench(unsettled_jobs=2)
    answers = bench.submit(*(bench.spec(n) for n in range(3))) and bench.stored()
    assert verdicts(answers) == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.REFUSED]
    refused = of_kind(answers, ev.Answer)[0].answers[2]
    assert (refused.code, refused.retryable) == (ErrorCode.OVERLOADED, True)
    assert refused.retry_after_ms > 0
    assert verdicts(bench.submit(bench.spec(9), account=BOB) and bench.stored()) == [
        Verdict.ACCEPTED
    ]


def test_table_refuses_new_work_and_drops_nothing_when_the_quota_is_full(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.run(bench.execution(1), data=b"x" * 1000)
    room = bench.table.bytes_kept(ALICE) + 100
    answer = answer_of(bench.submit(bench.spec(2), room_bytes=room))
    assert (answer.code, answer.retryable) == (ErrorCode.QUOTA_EXCEEDED, True)
    assert bench.job(1).result.size == 1000


# ---- order and places ----


def test_table_serves_accounts_in_turn(bench: Any) -> None:
    bench.accept(*(bench.spec(n) for n in (1, 2, 3)))
    bench.accept(*(bench.spec(n) for n in (1, 2)), account=BOB)
    order = []
    running = bench.execution(1)
    for _ in range(4):
        (start,) = of_kind(bench.run(running), ev.StartTask)
        running = start.job.execution
        order.append((running.account[:1], running.job_id[-1]))
    assert order == [(b"a", 2), (b"b", 1), (b"a", 3), (b"b", 2)]


def test_table_waits_for_enough_slots_and_does_not_pass_the_large_job_over(
    make_bench: Any,
) -> None:
    bench = make_bench(slots=2)
    bench.accept(bench.spec(1), bench.spec(2, cpus=2), bench.spec(3))
    assert bench.table.counts().busy_slots == 1
    effects = bench.run(bench.execution(1))
    assert [start.job for start in of_kind(effects, ev.StartTask)] == [bench.job(2)]
    effects = bench.run(bench.execution(2))
    assert [start.job for start in of_kind(effects, ev.StartTask)] == [bench.job(3)]


def test_table_waits_for_memory_that_running_jobs_have_claimed(make_bench: Any) -> None:
    bench = make_bench(slots=4)
    bench.accept(*(bench.spec(n, memory_bytes=600 << 20) for n in (1, 2)))
    assert bench.job(2).state is JobState.QUEUED
    bench.run(bench.execution(1))
    assert bench.job(2).state is JobState.STARTING


def test_table_starts_nothing_with_no_slots_and_goes_on_with_more(make_bench: Any) -> None:
    bench = make_bench(slots=0)
    assert of_kind(bench.accept(bench.spec(1), bench.spec(2)), ev.StartTask) == []
    started = bench.handle(ev.SlotsChanged(2))
    assert [effect.job for effect in started] == [bench.job(1), bench.job(2)]
    bench.handle(ev.SlotsChanged(0))
    assert bench.job(1).state is JobState.STARTING  # what runs goes on
    assert of_kind(bench.run(bench.execution(1)), ev.StartTask) == []


# ---- announcements ----


def test_table_announces_a_state_only_when_it_lasts(bench: Any) -> None:
    bench.accept(bench.spec(1), bench.spec(2))
    bench.run(bench.execution(1))
    job = bench.job(2)
    bench.started(job.execution)
    assert bench.table.next_due_s(bench.now) == pytest.approx(bench.monotonic_s + ANNOUNCE_S)
    assert bench.pass_time(ANNOUNCE_S) == [ev.Publish(job)]
    assert job.announced is JobState.RUNNING


def test_table_numbers_events_in_the_order_in_which_it_publishes_them(make_bench: Any) -> None:
    bench = make_bench(slots=3)
    bench.accept(*(bench.spec(n) for n in (1, 2, 3)))
    for n in (1, 2, 3):
        bench.started(bench.execution(n))
    published = of_kind(bench.ended(bench.execution(2)), ev.Publish)
    published += of_kind(bench.pass_time(1), ev.Publish)
    published += of_kind(bench.ended(bench.execution(1)), ev.Publish)
    assert [effect.job for effect in published] == [bench.job(n) for n in (2, 1, 3, 1)]
    assert (bench.job(2).sequence, bench.job(3).sequence, bench.job(1).sequence) == (1, 3, 4)


# ---- ends ----


def test_table_stores_the_end_behind_the_start_of_the_next_job(bench: Any) -> None:
    bench.accept(bench.spec(1), bench.spec(2))
    bench.started(bench.execution(1))
    effects = bench.ended(bench.execution(1), data=b"value")
    done = bench.job(1)
    assert effects == [
        ev.StartTask(bench.job(2), b"program"),
        ev.Publish(done),
        ev.Store(
            2,
            (ev.JobFinished(1, 1, JobState.DONE, Cause.NONE, 1, WALL_MS, done.end, done.result),),
        ),
    ]
    assert done.result.data == b"value"
    assert bench.stored() == []
    assert done.result.data == b""  # its row has it now
    event = last_event(done)
    assert (event.state, event.inline, event.result_bytes) == (JobState.DONE, True, 5)


def test_table_tries_again_to_store_a_result_and_keeps_it_until_then(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.run(bench.execution(1))
    write = bench.stores[0].writes
    assert bench.failed() == []
    assert bench.job(1).result.data == b"value"
    (again,) = bench.pass_time(RETRY_STORE_S)
    assert again.writes == write
    bench.stored()
    assert bench.job(1).result.data == b""


def test_table_starts_nothing_while_many_results_cannot_be_stored(make_bench: Any) -> None:
    bench = make_bench(slots=UNSAVED_MAX, offer=Offer(slots=UNSAVED_MAX))
    bench.accept(*(bench.spec(n) for n in range(UNSAVED_MAX + 1)))
    for n in range(UNSAVED_MAX - 1):
        bench.run(bench.execution(n))
        bench.failed()
    last = bench.job(UNSAVED_MAX)
    assert last.state is JobState.STARTING
    bench.accept(bench.spec(500), bench.spec(501))
    bench.run(bench.execution(UNSAVED_MAX))
    bench.failed()
    effects = bench.run(bench.execution(UNSAVED_MAX - 1))
    assert of_kind(effects, ev.StartTask) == []


def test_table_ends_a_job_as_the_back_end_says(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.run(
        bench.execution(1), state=JobState.LIMIT, cause=Cause.MEMORY, text="too much", ended=3
    )
    event = last_event(bench.job(1))
    assert (event.state, event.cause, event.text, event.ended) == (
        JobState.LIMIT,
        Cause.MEMORY,
        "too much",
        3,
    )


def test_table_times_out_by_the_time_in_running_only(bench: Any) -> None:
    bench.accept(bench.spec(1, timeout_ms=10_000))
    bench.pass_time(60)  # in STARTING
    bench.started(bench.execution(1))
    assert of_kind(bench.pass_time(4), ev.CancelTask) == []
    bench.handle(ev.ExecutionSuspended(bench.execution(1)))
    assert of_kind(bench.pass_time(60), ev.CancelTask) == []
    bench.handle(ev.ExecutionResumed(bench.execution(1)))
    assert of_kind(bench.pass_time(5), ev.CancelTask) == []
    assert of_kind(bench.pass_time(1), ev.CancelTask) == [ev.CancelTask(bench.execution(1))]
    bench.ended(bench.execution(1), JobState.KILLED, Cause.CANCELLED, ended=2)
    event = last_event(bench.job(1))
    assert (event.state, event.cause, event.ended) == (JobState.TIMEOUT, Cause.WALL_TIME, 2)
    assert "10 s" in event.text


def test_table_takes_a_result_that_came_in_the_moment_of_the_timeout(bench: Any) -> None:
    bench.accept(bench.spec(1, timeout_ms=1000))
    bench.started(bench.execution(1))
    bench.pass_time(1)
    bench.ended(bench.execution(1))
    assert bench.job(1).state is JobState.DONE
    assert bench.job(1).result.size == 5


def test_table_ends_a_condemned_execution_as_the_first_reason_says(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    ending = Ending(JobState.LIMIT, Cause.OUTPUT, "wrote too much")
    condemned = ev.ExecutionCondemned(bench.execution(1), ending)
    assert bench.handle(condemned) == [ev.CancelTask(bench.execution(1))]
    assert bench.handle(condemned) == []
    bench.handle(ev.JobsCancelled(ALICE, (bench.job_id(1),)))
    bench.ended(bench.execution(1))
    job = bench.job(1)
    assert (job.state, job.cause, job.result.size) == (JobState.LIMIT, Cause.OUTPUT, 0)


def test_table_raises_with_the_jobs_story_when_a_move_is_illegal(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    with pytest.raises(IllegalMove, match="RUNNING to RUNNING; it went QUEUED > STARTING > RUNN"):
        bench.started(bench.execution(1))


def test_moves_lead_from_no_finished_state() -> None:
    assert {before for before, _ in MOVES} == {
        JobState.QUEUED,
        JobState.STARTING,
        JobState.RUNNING,
        JobState.SUSPENDED,
    }


# ---- cancel and revoke ----


def test_table_kills_a_waiting_job_at_once(bench: Any) -> None:
    bench.accept(bench.spec(1), bench.spec(2))
    effects = bench.handle(ev.JobsCancelled(ALICE, (bench.job_id(2),)))
    job = bench.job(2)
    assert [type(effect) for effect in effects] == [ev.Publish, ev.Store]
    assert (job.state, job.cause) == (JobState.KILLED, Cause.CANCELLED)
    assert of_kind(bench.run(bench.execution(1)), ev.StartTask) == []


def test_table_kills_a_running_job_and_passes_its_receipt_on(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    cancelled = ev.JobsCancelled(ALICE, (bench.job_id(1),))
    assert bench.handle(cancelled) == [ev.CancelTask(bench.execution(1))]
    assert bench.handle(cancelled) == []
    bench.ended(bench.execution(1), JobState.KILLED, Cause.CANCELLED, ended=4, left=1)
    event = last_event(bench.job(1))
    assert (event.state, event.cause, event.ended, event.left, event.result_bytes) == (
        JobState.KILLED,
        Cause.CANCELLED,
        4,
        1,
        0,
    )


def test_table_passes_over_foreign_and_unknown_ids_alike(bench: Any) -> None:
    bench.accept(bench.spec(1))
    assert bench.handle(ev.JobsCancelled(BOB, (bench.job_id(1),))) == []
    assert bench.handle(ev.JobsCancelled(ALICE, (bench.job_id(7),))) == []
    assert bench.table.job(BOB, bench.job_id(1)) is None


def test_table_kills_all_jobs_of_a_revoked_account(make_bench: Any) -> None:
    bench = make_bench(slots=1)
    bench.accept(bench.spec(1), bench.spec(2))
    bench.accept(bench.spec(3), account=BOB)
    effects = bench.handle(ev.AccountRevoked(ALICE))
    assert of_kind(effects, ev.CancelTask) == [ev.CancelTask(bench.execution(1))]
    assert bench.job(2).cause is Cause.REVOKED
    effects = bench.ended(bench.execution(1), JobState.KILLED)
    assert (bench.job(1).state, bench.job(1).cause) == (JobState.KILLED, Cause.REVOKED)
    assert of_kind(effects, ev.StartTask) == [ev.StartTask(bench.job(3, BOB), b"program")]


# ---- allocations ----


def test_table_fences_a_lower_allocation(bench: Any) -> None:
    bench.accept(bench.spec(1, allocation=3))
    assert answer_of(bench.submit(bench.spec(1, allocation=2))).verdict is Verdict.FENCED


def test_table_replaces_a_running_allocation_once_the_higher_is_stored(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    assert of_kind(bench.submit(bench.spec(1, allocation=2)), ev.CancelTask) == []
    effects = bench.stored()
    assert [type(effect) for effect in effects] == [ev.Answer, ev.CancelTask]
    effects = bench.ended(bench.execution(1), JobState.KILLED)
    assert effects == [
        ev.StartTask(bench.job(1), b"program"),
        ev.Store(3, (ev.JobsDropped((1,)),)),
    ]
    assert bench.job(1).execution == bench.execution(1, allocation=2)
    assert bench.stored() == [ev.DropFiles((1,))]


def test_table_replaces_a_waiting_allocation(bench: Any) -> None:
    bench.accept(bench.spec(1), bench.spec(2))
    bench.accept(bench.spec(2, allocation=2))
    (start,) = of_kind(bench.run(bench.execution(1)), ev.StartTask)
    assert start.job.execution == bench.execution(2, allocation=2)
    assert bench.table.counts().queued == 0


def test_table_runs_a_finished_job_again_under_a_higher_allocation(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.run(bench.execution(1), state=JobState.FAILED, cause=Cause.EXCEPTION)
    bench.all_stored()
    effects = bench.accept(bench.spec(1, allocation=2))
    assert of_kind(effects, ev.StartTask) == [ev.StartTask(bench.job(1), b"program")]
    bench.run(bench.execution(1, allocation=2))
    assert bench.job(1).state is JobState.DONE
    assert len(list(bench.table.all_jobs())) == 1


def test_table_goes_back_to_the_lower_allocation_when_the_higher_is_not_stored(
    bench: Any,
) -> None:
    bench.accept(bench.spec(1))
    bench.run(bench.execution(1))
    bench.all_stored()
    kept = bench.table.bytes_kept(ALICE)
    bench.submit(bench.spec(1, allocation=2))
    assert answer_of(bench.failed()).code is ErrorCode.STORE_FAILED
    assert bench.job(1).state is JobState.DONE
    assert bench.table.bytes_kept(ALICE) == kept
    assert bench.table.counts().queued == 0


def test_table_keeps_a_result_of_the_lower_allocation_when_it_came_before_the_store_failed(
    bench: Any,
) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    bench.submit(bench.spec(1, allocation=2))
    assert of_kind(bench.ended(bench.execution(1)), ev.Store) != []
    bench.failed()
    assert bench.job(1).state is JobState.DONE


def test_table_asks_for_patience_when_an_allocation_is_still_being_replaced(bench: Any) -> None:
    bench.accept(bench.spec(1))
    bench.started(bench.execution(1))
    bench.accept(bench.spec(1, allocation=2))
    answer = answer_of(bench.submit(bench.spec(1, allocation=3)))
    assert (answer.code, answer.retryable) == (ErrorCode.OVERLOADED, True)


# ---- settling and retention ----


def settle(bench: Any, number: int, attempt: int = 1, account: bytes = ALICE) -> list[Any]:
    bench.requests += 1
    row = SettleRow(bench.job_id(number), 1, attempt)
    return bench.handle(ev.JobsSettled(bench.requests, account, (row,)))


def finish(bench: Any, number: int) -> None:
    bench.accept(bench.spec(number))
    bench.run(bench.execution(number))
    bench.all_stored()


def test_table_confirms_a_settling_when_it_is_stored(bench: Any) -> None:
    finish(bench, 1)
    assert settle(bench, 1) == [
        ev.Store(3, (ev.JobMarked(1, Settled.DELIVERED, WALL_MS),)),
    ]
    assert bench.stored() == [ev.Confirm(2)]


def test_table_marks_another_executions_delivery_as_superseded(bench: Any) -> None:
    finish(bench, 1)
    settle(bench, 1, attempt=2)
    assert bench.job(1).settled is Settled.SUPERSEDED


def test_table_takes_marks_back_when_they_are_not_stored(bench: Any) -> None:
    finish(bench, 1)
    settle(bench, 1)
    (refused,) = bench.failed("disk full")
    assert (refused.code, refused.text) == (ErrorCode.STORE_FAILED, "disk full")
    assert bench.job(1).settled is Settled.NO
    assert of_kind(bench.pass_time(HOUR_S + 1), ev.Store) == []


def test_table_confirms_foreign_and_unknown_ids_alike_and_marks_nothing(bench: Any) -> None:
    finish(bench, 1)
    foreign, unknown = settle(bench, 1, account=BOB), settle(bench, 9)
    assert [effect.writes for effect in foreign + unknown] == [(), ()]
    assert bench.job(1).settled is Settled.NO


@pytest.mark.parametrize(("is_settled", "kept_s"), [(True, HOUR_S), (False, 7 * DAY_S)])
def test_table_drops_a_result_only_after_its_time(
    bench: Any, is_settled: bool, kept_s: int
) -> None:
    finish(bench, 1)
    if is_settled:
        settle(bench, 1)
        bench.stored()
    assert of_kind(bench.pass_time(kept_s - 1), ev.Store) == []
    due = bench.table.next_due_s(bench.now)
    assert bench.monotonic_s < due <= bench.monotonic_s + 60
    (store,) = bench.pass_time(61)
    assert store.writes == (ev.JobsDropped((1,)),)
    assert bench.stored() == [ev.DropFiles((1,))]
    assert bench.table.bytes_kept(ALICE) == 0


def test_table_keeps_a_job_when_its_row_could_not_be_dropped(bench: Any) -> None:
    finish(bench, 1)
    bench.pass_time(8 * DAY_S)
    assert bench.failed() == []
    assert bench.job(1).state is JobState.DONE
    assert of_kind(bench.pass_time(61), ev.Store) != []


def test_table_drops_the_oldest_settled_results_above_its_bound(make_bench: Any) -> None:
    bench = make_bench(settled_jobs=2)
    for number in (1, 2, 3):
        finish(bench, number)
        settle(bench, number)
    effects = bench.all_stored()
    assert of_kind(effects, ev.DropFiles) == [ev.DropFiles((1,))]
    assert [job.number for job in bench.table.jobs(ALICE)] == [2, 3]


# ---- restart ----


def restored(bench: Any, number: int, **more: Any) -> Job:
    return Job(number, ALICE, bench.spec(number), WALL_MS, 600, **more)


def test_table_runs_unfinished_jobs_again_only_when_their_next_attempt_is_stored(
    make_bench: Any,
) -> None:
    bench = make_bench(slots=1)
    jobs = (restored(bench, 1), restored(bench, 2, attempt=3))
    assert bench.handle(ev.JobsRestored(jobs)) == [ev.Store(1, (ev.AttemptsRaised(),))]
    assert bench.stored() == [
        ev.Publish(jobs[0]),
        ev.Publish(jobs[1]),
        ev.StartTask(jobs[0], None),  # the program is in its row
    ]
    assert [job.attempt for job in jobs] == [2, 4]


def test_table_offers_finished_jobs_after_a_restart_and_numbers_on(make_bench: Any) -> None:
    bench = make_bench(slots=1)
    job = restored(bench, 7, state=JobState.DONE, sequence=40, finished_at_ms=WALL_MS)
    assert bench.handle(ev.JobsRestored((job,))) == []
    assert bench.table.sequence(ALICE) == 40
    effects = bench.submit(bench.spec(8))
    assert of_kind(effects, ev.Store)[0].writes[0].number == 8
    bench.run(bench.execution(8))
    assert bench.job(8).sequence == 41


def test_table_ends_a_job_as_lost_when_its_program_is_gone(bench: Any) -> None:
    bench.accept(bench.spec(1))
    end = TaskEnd(JobState.LOST, Cause.NODE, "gone")
    bench.ended(bench.execution(1), end.state, end.cause, data=b"")
    assert bench.job(1).state is JobState.LOST
