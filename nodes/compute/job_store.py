"""The job table's rows: writes to statements, and rows to jobs when a daemon starts.

A job's row never changes; attempt, end and mark stand in tables of their own, so that a large
payload or result is written once. Rows that belong to no job (their job's row was refused by the
disk, or an older allocation's) are deleted at the next start.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import ROW_BYTES
from alpyne_grid.nodes.compute.job import Job, Result, Settled
from alpyne_grid.nodes.store import CommitStore, Rows, Schema, Statement, StoreFailed
from alpyne_grid.wire import Log

from alpyne_proto.codec import decode, encode
from alpyne_proto.errors import CodecError
from alpyne_proto.messages.compute import Cause, JobSpec, JobState
from alpyne_proto.registry import Shape

_log = Log("compute.store")
# For jobs and their results to share a commit: its flush and its thread would disturb short calls.
# Nobody waits for it but who asked for an acknowledgement; programs and results overtake it.
GATHER_S = 0.01
NUMBERS_MAX = 10_000  # parameters of one DELETE

SCHEMA = Schema(
    "jobs",
    (
        """
        CREATE TABLE jobs (
            number INTEGER PRIMARY KEY,
            account BLOB NOT NULL,
            submitted_at_ms INTEGER NOT NULL,
            spec BLOB NOT NULL,
            payload BLOB NOT NULL
        );
        CREATE TABLE job_attempts (number INTEGER PRIMARY KEY, attempt INTEGER NOT NULL);
        CREATE TABLE job_ends (
            number INTEGER PRIMARY KEY,
            attempt INTEGER NOT NULL,
            state INTEGER NOT NULL,
            cause INTEGER NOT NULL,
            sequence INTEGER NOT NULL,
            finished_at_ms INTEGER NOT NULL,
            size INTEGER NOT NULL,
            sha256 BLOB NOT NULL,
            in_row INTEGER NOT NULL,
            event BLOB NOT NULL,
            result BLOB NOT NULL
        );
        CREATE TABLE job_marks (
            number INTEGER PRIMARY KEY,
            settled INTEGER NOT NULL,
            settled_at_ms INTEGER NOT NULL
        )
        """,
    ),
)
_TABLES = ("jobs", "job_attempts", "job_ends", "job_marks")

_LOAD = """
SELECT j.number, j.account, j.submitted_at_ms, j.spec, length(j.payload), coalesce(a.attempt, 1),
       e.attempt, e.state, e.cause, e.sequence, e.finished_at_ms, e.size, e.sha256, e.in_row,
       e.event, coalesce(m.settled, 0), coalesce(m.settled_at_ms, 0)
FROM jobs j LEFT JOIN job_attempts a USING (number) LEFT JOIN job_ends e USING (number)
     LEFT JOIN job_marks m USING (number)
WHERE j.number > ? ORDER BY j.number LIMIT 1000
"""


class JobStore:
    """Rows of the job table in the node's store; use from the loop's thread."""

    def __init__(self, store: CommitStore) -> None:
        self._store = store

    async def load(self) -> tuple[Job, ...]:
        """Return all jobs, in the order of their submission, and delete rows that have no job."""
        newest: dict[tuple[bytes, bytes], Job] = {}
        stale: list[int] = []
        for number, job in self._read_jobs():
            if job is None:
                stale.append(number)
                continue
            key = (job.account, job.spec.job_id)
            known = newest.pop(key, None)
            if known is not None and known.spec.allocation > job.spec.allocation:
                job, known = known, job
            newest[key] = job
            if known is not None:
                stale.append(known.number)
        orphans: list[Statement | Rows] = [
            (f"DELETE FROM {table} WHERE number NOT IN (SELECT number FROM jobs)", ())
            for table in _TABLES[1:]
        ]
        await self._store.commit([*_deletions(stale), *orphans])
        return tuple(sorted(newest.values(), key=lambda job: job.number))

    def write(
        self, writes: Iterable[ev.Write], done: Callable[[BaseException | None], None]
    ) -> None:
        """Make ``writes`` durable, all or none, then call ``done`` on the loop."""
        statements: list[Statement | Rows] = []
        for kind, alike in itertools.groupby(writes, type):
            statements += _TO_STATEMENTS[kind](list(alike))
        self._store.write(statements, done, within_s=GATHER_S)

    def payload(self, job: Job) -> bytes | None:
        """Return a job's payload from its row, or None where the row is gone."""
        return self._one("SELECT payload FROM jobs WHERE number = ?", job)

    def result(self, job: Job) -> bytes | None:
        """Return the bytes of a finished job's result that is in its row; None for none there."""
        result = job.result
        if result is None or not result.in_row:
            return None
        if len(result.data) == result.size:
            return result.data
        return self._one("SELECT result FROM job_ends WHERE number = ?", job)

    def _one(self, sql: str, job: Job) -> bytes | None:
        """Return a value of the job's row; None where it is gone, or damaged on the disk."""
        try:
            rows = self._store.read(sql, (job.number,))
        except StoreFailed as error:
            _log.error("row_not_read", job=job.spec.job_id, error=error)
            return None
        return rows[0][0] if rows else None

    def _read_jobs(self) -> Iterator[tuple[int, Job | None]]:
        last = 0
        while rows := self._store.read(_LOAD, (last,)):
            for row in rows:
                yield row[0], _job(row)
            last = rows[-1][0]


def _added(writes: list[ev.JobAdded]) -> list[Statement | Rows]:
    rows = [(w.number, w.account, w.submitted_at_ms, encode(w.spec), w.payload) for w in writes]
    return [Rows("INSERT INTO jobs", rows)]


def _finished(writes: list[ev.JobFinished]) -> list[Statement | Rows]:
    rows = [
        (
            w.number,
            w.attempt,
            int(w.state),
            int(w.cause),
            w.sequence,
            w.finished_at_ms,
            w.result.size,
            w.result.sha256,
            int(w.result.in_row),
            w.end,
            w.result.data,
        )
        for w in writes
    ]
    return [Rows("INSERT OR REPLACE INTO job_ends", rows)]


def _marked(writes: list[ev.JobMarked]) -> list[Statement | Rows]:
    rows = [(w.number, int(w.settled), w.settled_at_ms) for w in writes]
    return [Rows("INSERT OR REPLACE INTO job_marks", rows)]


def _raised(writes: list[ev.AttemptsRaised]) -> list[Statement | Rows]:
    return [
        (
            "INSERT OR REPLACE INTO job_attempts "
            "SELECT j.number, coalesce(a.attempt, 1) + 1 "
            "FROM jobs j LEFT JOIN job_attempts a USING (number) "
            "WHERE j.number NOT IN (SELECT number FROM job_ends)",
            (),
        )
    ]


def _dropped(writes: list[ev.JobsDropped]) -> list[Statement | Rows]:
    return _deletions([number for w in writes for number in w.numbers])


_TO_STATEMENTS: dict[type, Callable[[list[Any]], list[Statement | Rows]]] = {
    ev.JobAdded: _added,
    ev.JobFinished: _finished,
    ev.JobMarked: _marked,
    ev.AttemptsRaised: _raised,
    ev.JobsDropped: _dropped,
}


def _deletions(numbers: list[int]) -> list[Statement | Rows]:
    statements: list[Statement | Rows] = []
    for at in range(0, len(numbers), NUMBERS_MAX):
        chunk = numbers[at : at + NUMBERS_MAX]
        places = ",".join("?" * len(chunk))
        statements += [(f"DELETE FROM {t} WHERE number IN ({places})", chunk) for t in _TABLES]
    return statements


def _job(row: tuple[Any, ...]) -> Job | None:
    """Return the job of a row of _LOAD; None where its spec cannot be read."""
    number, account, submitted_at_ms, meta, payload_size, attempt, *end = row
    try:
        spec = decode(meta, (Shape.ROW,), lenient=True)
    except CodecError:
        return None
    if not isinstance(spec, JobSpec):
        return None
    job = Job(number, account, spec, submitted_at_ms, payload_size + ROW_BYTES, attempt=attempt)
    if end[0] is not None:
        _read_end(job, end)
    return job


def _read_end(job: Job, end: list[Any]) -> None:
    job.attempt, state, cause, job.sequence, job.finished_at_ms, size, sha256, in_row = end[:8]
    job.end, settled, job.settled_at_ms = end[8:]
    job.state, job.cause, job.settled = JobState(state), Cause(cause), Settled(settled)
    job.result = Result(size, sha256, bool(in_row))
    job.bytes_kept += size
    if job.spec.tickets or job.spec.data_nodes:
        job.spec = replace(job.spec, tickets=(), data_nodes=())
