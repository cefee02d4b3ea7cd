"""The three cores as one grid: each scenario told in virtual time (see grid_simulation)."""

from collections import Counter

import pytest
from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.grid_jobs import Phase
from alpyne_grid.manager.grid_table import LOST_AFTER_S
from alpyne_grid.manager.journal import Kind
from alpyne_grid.nodes.compute.job import Settled
from grid_simulation import (  # type: ignore[import-not-found]
    OWNER,
    ComputeNode,
    Delays,
    Grid,
    Script,
)

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import Cause, JobState

QUICK = Script(work_s=0.05)
LARGE = Script(work_s=0.05, result_bytes=100_000)
SEEDS = 300
LONG_S = 200.0


def all_ended(grid: Grid) -> bool:
    return not grid.manager.table.jobs


def settled_at(grid: Grid, job: bytes) -> list[Settled]:
    """Return the marks of a job on the nodes that have it, in the order of the nodes."""
    return [
        found.settled for node in grid.compute if (found := node.table.job(OWNER, job)) is not None
    ]


def runner_of(grid: Grid, job: bytes) -> ComputeNode:
    """Return the node to which the manager gave the job."""
    key = grid.manager.table.jobs[job].node
    return next(node for node in grid.compute if node.key == key)


def other_than(grid: Grid, node: ComputeNode) -> ComputeNode:
    return next(each for each in grid.compute if each is not node)


def check_the_end(grid: Grid) -> None:
    """What must hold once all links are whole and nothing is under way."""
    manager = grid.manager
    ended = manager.delivered.keys() | manager.abandoned
    assert ended == manager.scripts.keys()
    settled = [record.counter for record in manager.journal if record.kind is Kind.SETTLED]
    assert len(settled) == len(set(settled)), "the journal names two results of one job"
    assert all(not n.jobs and not n.bytes_out for n in manager.table.nodes.values())
    for node in grid.compute:
        assert not node.running
        assert node.table.idle
        assert node.table.counts().busy_slots == 0
    for data in grid.data:
        assert data.table.in_flight == 0
        assert data.table.used_bytes(OWNER) == data.usage().size_bytes
    for job, outcome in manager.delivered.items():
        if outcome.state is JobState.DONE and manager.scripts[job].writes:
            pair = outcome.allocation, outcome.attempt
            assert all(data.version(job) >= pair for data in grid.data), "a result without object"


# --- without faults -------------------------------------------------------------------------------


def test_grid_runs_a_job_which_writes_as_its_execution_and_is_settled() -> None:
    grid = Grid(data=2)
    [job] = grid.manager.submit(QUICK)
    grid.run(2.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.state, outcome.allocation, outcome.attempt) == (JobState.DONE, 1, 1)
    assert [data.version(job) for data in grid.data] == [(1, 1), (1, 1)]
    assert [tuple(each) for data in grid.data for each in data.accepted] == [(job, 1, 1)] * 2
    assert grid.manager.records(Kind.SETTLED, job) == [(1, 1)]
    assert settled_at(grid, job) == [Settled.DELIVERED]
    check_the_end(grid)


def test_grid_runs_every_job_once_when_there_are_more_than_slots() -> None:
    grid = Grid()
    jobs = grid.manager.submit(*[QUICK] * 20, LARGE)
    grid.run(10.0, until=lambda: all_ended(grid))
    grid.run(1.0)
    assert sorted(e.job_id for node in grid.compute for e in node.begun) == sorted(jobs)
    assert len(grid.manager.delivered[jobs[-1]].body) == LARGE.result_bytes
    check_the_end(grid)


def test_grid_runs_a_job_anew_under_a_higher_allocation_when_it_is_to_be_retried() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(ends="FAILED", cause="EXCEPTION"), retries=2)
    grid.run(10.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.state, outcome.allocation) == (JobState.FAILED, 3)
    assert [tuple(each)[1:] for each in grid.data[0].accepted] == [(1, 1), (2, 1), (3, 1)]
    check_the_end(grid)


def test_cancel_ends_the_program_and_is_the_one_result_with_its_receipt() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(work_s=100.0))
    grid.run(1.0)
    grid.manager.cancel(job)
    grid.run(1.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.state, outcome.cause) == (JobState.KILLED, Cause.CANCELLED)
    assert outcome.receipt.ended == 1
    check_the_end(grid)


def runs_or_pauses(grid: Grid) -> tuple[bool, ...]:
    """Whether each program that is under way stands still."""
    return tuple(run.paused for node in grid.compute for run in node.running.values())


def test_suspended_program_stands_still_until_it_is_resumed() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(work_s=1.0))
    grid.run(0.5)
    grid.manager.suspend(job)
    grid.run(100.0)
    assert runs_or_pauses(grid) == (True,)
    assert job not in grid.manager.delivered
    grid.manager.resume(job)
    grid.run(1.0)
    assert grid.manager.delivered[job].state is JobState.DONE
    check_the_end(grid)


def test_suspended_job_stays_suspended_when_its_node_restarts_and_when_it_moves() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(work_s=1.0))
    grid.run(0.5)
    grid.manager.suspend(job)
    grid.run(0.5)
    first = runner_of(grid, job)
    first.crash(restart_after_s=0.5)
    grid.run(20.0)
    assert runs_or_pauses(grid) == (True,)
    first = runner_of(grid, job)
    grid.partition(grid.manager, first)
    grid.run(20.0)
    assert len(grid.manager.table.jobs) == 1
    grid.heal()
    grid.run(20.0)
    assert runs_or_pauses(grid) == (True,)
    grid.manager.resume(job)
    grid.run(20.0)
    assert grid.manager.delivered[job].allocation == 2
    check_the_end(grid)


def test_resume_that_a_lost_connection_swallowed_is_told_again() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(work_s=1.0))
    grid.run(0.5)
    grid.manager.suspend(job)
    grid.run(0.5)
    node = runner_of(grid, job)
    grid.partition(grid.manager, node)
    grid.manager.resume(job)
    grid.run(1.0)
    assert runs_or_pauses(grid) == (True,)
    grid.heal()
    grid.run(20.0)
    assert grid.manager.delivered[job].state is JobState.DONE
    check_the_end(grid)


def test_job_whose_nodes_cannot_run_it_ends_as_lost_after_its_moves() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(ends="FAILED", cause="NODE", writes=False))
    grid.run(60.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.state, outcome.cause) == (JobState.LOST, Cause.NODE)
    assert (outcome.allocation, grid.manager.table.counts["moved"]) == (6, 5)
    check_the_end(grid)


# --- partitions -----------------------------------------------------------------------------------


def test_partition_lets_two_executions_finish_of_which_one_is_delivered_and_one_fenced() -> None:
    grid = Grid()
    grid.compute[0].gates = grid.compute[1].gates = {"end"}
    [job] = grid.manager.submit(QUICK)
    grid.run(1.0, until=lambda: any(node.waits_at("end") for node in grid.compute))
    first = runner_of(grid, job)
    second = other_than(grid, first)
    grid.partition(grid.manager, first)
    grid.run(30.0, until=lambda: second.waits_at("end"))
    first.open_gate("end")
    second.open_gate("end")
    grid.run(1.0)
    assert [end.state for node in grid.compute for _, end in node.ended] == [JobState.DONE] * 2
    assert grid.manager.table.counts["fenced"] == 0
    grid.heal()
    grid.run(5.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.node, outcome.allocation) == (second.key, 2)
    assert grid.manager.table.counts["fenced"] == 1
    assert [tuple(each)[1:] for each in grid.data[0].accepted] == [(1, 1), (2, 1)]
    found = {node.key: node.table.job(OWNER, job) for node in grid.compute}
    assert found[first.key].settled is Settled.SUPERSEDED
    assert found[second.key].settled is Settled.DELIVERED
    check_the_end(grid)


def test_data_node_refuses_the_late_write_when_a_later_execution_has_written() -> None:
    grid = Grid()
    for node in grid.compute:
        node.gates = {"write"}
    [job] = grid.manager.submit(Script(work_s=0.05, ignores_refusals=True))
    grid.run(1.0, until=lambda: any(node.waits_at("write") for node in grid.compute))
    first = runner_of(grid, job)
    second = other_than(grid, first)
    grid.partition(grid.manager, first)
    grid.run(30.0, until=lambda: second.waits_at("write"))
    second.open_gate("write")
    grid.run(2.0, until=lambda: job in grid.manager.delivered)
    first.open_gate("write")
    grid.run(1.0)
    assert [error.code for error in first.refusals] == [ErrorCode.FENCED]
    assert grid.data[0].version(job) == (2, 1)
    assert [tuple(each)[1:] for each in grid.data[0].accepted] == [(2, 1)]
    grid.heal()
    grid.run(5.0)
    assert grid.manager.table.counts["fenced"] == 1
    check_the_end(grid)


def test_data_node_refuses_the_late_write_after_its_restart() -> None:
    grid = Grid()
    for node in grid.compute:
        node.gates = {"write"}
    [job] = grid.manager.submit(Script(work_s=0.05, ignores_refusals=True))
    grid.run(1.0, until=lambda: any(node.waits_at("write") for node in grid.compute))
    first = runner_of(grid, job)
    second = other_than(grid, first)
    grid.partition(grid.manager, first)
    grid.run(30.0, until=lambda: second.waits_at("write"))
    second.open_gate("write")
    grid.run(2.0, until=lambda: job in grid.manager.delivered)
    grid.data[0].crash(restart_after_s=0.1)
    grid.run(1.0)
    first.open_gate("write")
    grid.run(1.0)
    assert [error.code for error in first.refusals] == [ErrorCode.FENCED]
    assert grid.data[0].version(job) == (2, 1)


def test_data_node_refuses_a_late_write_when_a_later_execution_had_only_asked_before_a_crash() -> (
    None
):
    grid = Grid()
    for node in grid.compute:
        node.gates = {"write"}
    [job] = grid.manager.submit(Script(work_s=0.05, ignores_refusals=True))
    grid.run(1.0, until=lambda: any(node.waits_at("write") for node in grid.compute))
    first = runner_of(grid, job)
    second = other_than(grid, first)
    grid.partition(grid.manager, first)
    grid.run(30.0, until=lambda: second.waits_at("write"))
    second.open_gate("write")
    [data] = grid.data
    grid.run(1.0, until=lambda: data.fences.get(job) == (2, 1))
    assert data.version(job) == (0, 0)
    data.crash(restart_after_s=0.1)
    grid.run(1.0)
    first.open_gate("write")
    grid.run(1.0)
    assert [error.code for error in first.refusals] == [ErrorCode.FENCED]
    assert data.accepted == []


def test_partition_shorter_than_the_grace_moves_nothing() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(work_s=2.0))
    grid.run(0.5)
    grid.partition(grid.manager, runner_of(grid, job))
    grid.run(LOST_AFTER_S / 2)
    grid.heal()
    grid.run(5.0)
    assert grid.manager.delivered[job].allocation == 1
    assert grid.manager.table.counts["moved"] == 0
    check_the_end(grid)


def test_job_waits_for_its_node_when_it_was_asked_to() -> None:
    grid = Grid()
    [job] = grid.manager.submit(QUICK, on_lost=g.OnLost.WAIT)
    grid.compute[0].gates = grid.compute[1].gates = {"end"}
    grid.run(1.0)
    first = runner_of(grid, job)
    grid.partition(grid.manager, first)
    grid.run(30.0)
    first.open_gate("end")
    grid.run(1.0)
    assert job not in grid.manager.delivered
    grid.heal()
    grid.run(2.0)
    assert (grid.manager.delivered[job].node, grid.manager.delivered[job].allocation) == (
        first.key,
        1,
    )


def test_job_goes_on_at_its_node_when_that_comes_back_before_another_is_found() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.gates = {"end"}
    [job] = grid.manager.submit(QUICK)
    grid.run(1.0)
    grid.partition(grid.manager, node)
    grid.run(LOST_AFTER_S + 2.0)
    assert grid.manager.table.jobs[job].phase is Phase.STRANDED
    grid.heal()
    node.open_gate("end")
    grid.run(3.0)
    assert grid.manager.delivered[job].allocation == 1
    assert len(node.begun) == 1
    check_the_end(grid)


def test_large_result_is_fetched_when_its_node_was_lost_meanwhile_and_is_back() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    [job] = grid.manager.submit(LARGE)
    grid.run(1.0, until=lambda: grid.manager.table.jobs[job].phase is Phase.FETCHING)
    grid.partition(grid.manager, node)
    grid.run(LOST_AFTER_S + 2.0)
    assert grid.manager.table.jobs[job].phase is Phase.STRANDED
    grid.heal()
    grid.run(2.0)
    assert len(grid.manager.delivered[job].body) == LARGE.result_bytes
    assert len(node.begun) == 1
    check_the_end(grid)


# --- crashes of compute nodes ---------------------------------------------------------------------


def test_job_is_run_again_when_its_node_crashes_between_start_and_commit() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.disk.held = True
    [job] = grid.manager.submit(Script(work_s=1.0))
    grid.run(0.5)
    assert [execution[1:] for execution in node.begun] == [(job, 1, 1)]
    assert job not in grid.manager.accepted
    node.disk.held = False
    node.crash(restart_after_s=0.5)
    assert node.rows.jobs == {}
    grid.run(10.0)
    assert len(node.begun) == 2
    assert grid.manager.delivered[job].state is JobState.DONE
    check_the_end(grid)


def test_accepted_job_survives_the_crash_of_its_node_under_the_next_attempt() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.gates = {"end"}
    [job] = grid.manager.submit(QUICK)
    grid.run(0.5)
    assert job in grid.manager.accepted
    node.crash(restart_after_s=0.5)
    node.gates = set()
    grid.run(10.0)
    assert [execution[2:] for execution in node.begun] == [(1, 1), (1, 2)]
    outcome = grid.manager.delivered[job]
    assert (outcome.allocation, outcome.attempt) == (1, 2)
    assert [tuple(each)[1:] for each in grid.data[0].accepted] == [(1, 1), (1, 2)]
    assert settled_at(grid, job) == [Settled.DELIVERED]
    check_the_end(grid)


def test_every_crash_of_a_node_begins_another_attempt() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.gates = {"end"}
    [job] = grid.manager.submit(QUICK)
    for _ in range(4):
        grid.run(1.0)
        node.crash(restart_after_s=0.2)
    node.gates = set()
    grid.run(10.0)
    assert [execution.attempt for execution in node.begun] == [1, 2, 3, 4, 5]
    assert grid.manager.delivered[job].attempt == 5


def test_result_that_was_pushed_and_then_lost_by_a_crash_is_delivered_once() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.gates = {"end"}
    [job] = grid.manager.submit(QUICK)
    grid.run(0.5)
    node.disk.held = True  # the result is told before it is durable
    node.open_gate("end")
    grid.run(0.5)
    assert grid.manager.delivered[job].attempt == 1
    node.disk.held = False
    node.crash(restart_after_s=0.2)
    grid.run(10.0)
    assert [execution.attempt for execution in node.begun] == [1, 2]
    assert grid.manager.records(Kind.SETTLED, job) == [(1, 1)]
    assert settled_at(grid, job) == [Settled.SUPERSEDED]
    check_the_end(grid)


def test_large_result_that_was_lost_by_a_crash_before_it_was_fetched_is_made_again() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.gates = {"end"}
    [job] = grid.manager.submit(LARGE)
    grid.run(0.5)
    node.disk.held = True
    node.open_gate("end")
    grid.run(1.0, until=lambda: grid.manager.table.jobs[job].phase is Phase.FETCHING)
    node.disk.held = False
    node.crash(restart_after_s=0.2)
    grid.run(10.0)
    outcome = grid.manager.delivered[job]
    assert len(outcome.body) == LARGE.result_bytes
    assert (outcome.allocation, outcome.attempt) > (1, 1)
    check_the_end(grid)


def test_job_moves_when_its_node_does_not_come_back() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(work_s=1.0))
    grid.run(0.5)
    first = runner_of(grid, job)
    first.crash(restart_after_s=None)
    grid.run(20.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.node, outcome.allocation) == (other_than(grid, first).key, 2)
    assert grid.manager.table.counts["moved"] == 1


def test_job_is_sent_anew_when_its_node_comes_back_with_another_store() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    [job] = grid.manager.submit(Script(work_s=1.0))
    grid.run(0.5)
    node.crash(restart_after_s=0.2, lose_store=True)
    grid.run(10.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.state, outcome.allocation, outcome.attempt) == (JobState.DONE, 2, 1)
    check_the_end(grid)


# --- stores that refuse ---------------------------------------------------------------------------


def test_job_that_its_node_cannot_store_is_ended_there_and_runs_under_a_higher_allocation() -> None:
    grid = Grid()
    for node in grid.compute:
        node.disk.refuse_next = 1
    [job] = grid.manager.submit(Script(work_s=0.3))
    grid.run(20.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.state, outcome.allocation > 1) == (JobState.DONE, True)
    ends = [(e.allocation, end.state) for node in grid.compute for e, end in node.ended]
    assert sorted(ends)[0] == (1, JobState.KILLED)
    check_the_end(grid)


def test_job_that_its_node_refuses_after_it_told_that_it_runs_is_run_again() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.disk.held = True
    [job] = grid.manager.submit(Script(work_s=1.0))
    grid.run(0.5)
    assert grid.manager.table.jobs[job].phase is Phase.RUNNING
    node.disk.refuse_next = 1
    node.disk.release()
    grid.run(10.0)
    outcome = grid.manager.delivered[job]
    assert (outcome.state, outcome.allocation) == (JobState.DONE, 2)
    check_the_end(grid)


def test_result_that_its_node_cannot_store_is_delivered_and_stored_later() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.gates = {"end"}
    [job] = grid.manager.submit(QUICK)
    grid.run(0.5)
    node.disk.refuse_next = 3
    node.open_gate("end")
    grid.run(1.0)
    assert grid.manager.delivered[job].state is JobState.DONE
    assert node.rows.ends == {}
    grid.run(30.0)
    assert [end.state for end in node.rows.ends.values()] == [JobState.DONE]


def test_settlement_that_its_node_cannot_store_is_not_confirmed() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    [job] = grid.manager.submit(QUICK)
    grid.run(0.5, until=lambda: bool(node.rows.ends))
    node.disk.refuse_next = 1
    grid.run(0.3)
    assert node.rows.marks == {}
    assert settled_at(grid, job) == [Settled.NO]


def test_attempt_that_its_node_cannot_store_does_not_begin() -> None:
    grid = Grid(compute=1)
    [node] = grid.compute
    node.gates = {"end"}
    grid.manager.submit(QUICK)
    grid.run(0.5)
    node.disk.fails = 1.0
    node.crash(restart_after_s=0.1)
    grid.run(2.0)
    assert [execution.attempt for execution in node.begun] == [1]


def test_job_is_abandoned_when_the_journal_cannot_settle_it() -> None:
    grid = Grid()
    grid.manager.disk.refuse_next = 1
    [job] = grid.manager.submit(QUICK)
    grid.run(5.0)
    assert grid.manager.abandoned == {job}
    assert grid.manager.delivered == {}
    assert settled_at(grid, job) == [Settled.NO]  # the result stays where it is


def test_job_is_abandoned_when_the_journal_cannot_mint_its_next_allocation() -> None:
    grid = Grid()
    [job] = grid.manager.submit(Script(work_s=50.0))
    grid.run(0.5)
    first = runner_of(grid, job)
    grid.manager.disk.refuse_next = 1
    first.crash(restart_after_s=None)
    grid.run(10.0)
    assert grid.manager.abandoned == {job}
    assert other_than(grid, first).begun == []


def test_write_that_its_data_node_cannot_store_is_not_acknowledged() -> None:
    grid = Grid()
    grid.data[0].disk.fails = 1.0
    [job] = grid.manager.submit(QUICK)
    grid.run(5.0)
    assert grid.manager.delivered[job].state is JobState.FAILED
    assert grid.data[0].version(job) == (0, 0)
    assert [e.code for n in grid.compute for e in n.refusals] == [ErrorCode.STORE_FAILED]
    grid.data[0].disk.fails = 0.0
    check_the_end(grid)


def test_write_is_whole_or_not_at_all_when_its_data_node_crashes() -> None:
    grid = Grid()
    for node in grid.compute:
        node.gates = {"write"}
    [job] = grid.manager.submit(QUICK)
    grid.run(1.0, until=lambda: any(node.waits_at("write") for node in grid.compute))
    grid.data[0].disk.held = True
    runner_of(grid, job).open_gate("write")
    grid.run(0.05)
    assert grid.data[0].table.in_flight == 1
    grid.data[0].disk.held = False
    grid.data[0].crash(restart_after_s=0.2)
    grid.run(5.0)
    assert grid.data[0].version(job) == (0, 0)
    assert grid.data[0].accepted == []
    assert grid.manager.delivered[job].state is JobState.FAILED
    check_the_end(grid)


# --- anything at all ------------------------------------------------------------------------------


def _misfortune(grid: Grid) -> None:
    """Let one thing go wrong, or right again."""
    random = grid.random
    node, data = random.choice(grid.compute), random.choice(grid.data)
    kind = random.randrange(14)
    if kind < 2:
        grid.partition(grid.manager, node)
    elif kind == 2:
        grid.partition(node, data)
    elif kind < 5:
        grid.heal()
    elif kind == 5:
        grid.break_wires(grid.manager, node)
    elif kind < 8 and node.alive:
        lose = random.random() < 0.1
        node.crash(restart_after_s=random.choice((0.1, 1.0, 6.0)), lose_store=lose)
    elif kind == 8 and data.alive:
        data.crash(restart_after_s=random.choice((0.1, 1.0)))
    elif kind == 9:
        node.disk.fails = data.disk.fails = random.choice((0.0, 0.2, 0.6))
    elif kind == 10 and grid.manager.table.jobs:
        grid.manager.cancel(random.choice(list(grid.manager.table.jobs)))
    elif 10 < kind < 13 and grid.manager.table.jobs:
        order = random.choice((grid.manager.suspend, grid.manager.suspend, grid.manager.resume))
        order(random.choice(list(grid.manager.table.jobs)))
    else:
        scripts = [_script(grid) for _ in range(random.randrange(1, 4))]
        on_lost = random.choice((g.OnLost.MOVE, g.OnLost.MOVE, g.OnLost.WAIT))
        grid.manager.submit(*scripts, retries=random.randrange(3), on_lost=on_lost)


def _script(grid: Grid) -> Script:
    random = grid.random
    ends, cause = random.choice(
        (("DONE", "NONE"),) * 8 + (("FAILED", "EXCEPTION"),) * 2 + (("FAILED", "NODE"),)
    )
    return Script(
        work_s=random.choice((0.01, 0.1, 1.0, 5.0)),
        writes=random.random() < 0.7,
        ends=ends,
        cause=cause,
        result_bytes=random.choice((0, 8, 100_000)),
    )


def _go_through(seed: int) -> Grid:
    quick = Delays(pace=(0.1, 3.0))
    slow = Delays((0.001, 0.3), (0.001, 0.2), (0.01, 3.0), pace=(0.1, 3.0))
    delays = slow if seed % 3 == 0 else quick
    grid = Grid(seed, compute=2 + seed % 2, data=1 + seed % 2, delays=delays)
    grid.manager.submit(*[_script(grid) for _ in range(4)])
    for _ in range(grid.random.randrange(4, 16)):
        grid.run(grid.random.choice((0.01, 0.1, 1.0, 4.0)))
        _misfortune(grid)
    for party in (*grid.compute, *grid.data):
        party.disk.fails = 0.0
    grid.heal()
    grid.run(10.0)  # whoever crashed is back
    for job in list(grid.manager.table.jobs):
        grid.manager.resume(job)
    grid.run(LONG_S, until=lambda: all_ended(grid))
    grid.run(40.0)  # what is under way beside the results ends too
    check_the_end(grid)
    return grid


@pytest.fixture(scope="module")
def grids() -> list[Grid]:
    """Many random runs, each checked at every step and at its end."""
    made = []
    for seed in range(SEEDS):
        try:
            made.append(_go_through(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    return made


def test_grid_ends_each_job_exactly_once_whatever_goes_wrong(grids: list[Grid]) -> None:
    for grid in grids:
        delivered, abandoned = grid.manager.delivered.keys(), grid.manager.abandoned
        assert delivered.isdisjoint(abandoned)
        assert delivered | abandoned == grid.manager.scripts.keys()


def test_random_runs_meet_what_they_are_there_for(grids: list[Grid]) -> None:
    counts = sum((grid.manager.table.counts for grid in grids), start=Counter[str]())
    for what in ("moved", "retried", "lost", "fenced", "done", "failed"):
        assert counts[what] > 0, what
    refused = {error.code for grid in grids for node in grid.compute for error in node.refusals}
    assert refused == {ErrorCode.FENCED, ErrorCode.STORE_FAILED}
    attempts = {each.attempt for grid in grids for node in grid.compute for each in node.begun}
    assert max(attempts) > 1
    assert sum(node.pauses for grid in grids for node in grid.compute) > 10
