"""Whether a node takes a job at all: what the job asks against what the node is and has."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from alpyne_grid.nodes.compute.job_queue import Ledger

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import JobAnswer, JobForm, JobSpec, Verdict
from alpyne_proto.offer import asked_by, unkept, unmet

ROW_BYTES = 512  # what a job counts against its account's quota beside payload and result
RETRY_AFTER_MS = 1000


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node has for jobs.

    ``attributes``: what it says of itself, with which all that a job asks is compared.
    ``memory_bytes``: what jobs with a memory limit may claim together; 0 = not counted.
    """

    slots: int = 1
    memory_bytes: int = 0
    pythons: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the table takes, so that its memory is bounded.

    ``unsettled_jobs`` counts an account's jobs from submission until they are settled.
    """

    unsettled_jobs: int = 100_000
    settled_jobs: int = 100_000  # all accounts; the oldest go before their hour
    spec_bytes: int = 128 << 20  # tickets and addresses of all unfinished jobs
    payload_bytes: int = 16 << 20  # payloads in memory; those of more jobs are read from their rows
    unsettled_ms: int = 7 * 86_400_000
    settled_ms: int = 3_600_000


def refuse(
    spec: JobSpec, code: ErrorCode, text: str, *, retryable: bool = False, retry_after_ms: int = 0
) -> JobAnswer:
    """Return the answer REFUSED."""
    return JobAnswer(
        spec.job_id,
        Verdict.REFUSED,
        code,
        text.encode()[:1024].decode(errors="ignore"),
        retryable=retryable,
        retry_after_ms=retry_after_ms,
    )


def misfit(spec: JobSpec, payload: bytes, offer: Offer) -> JobAnswer | None:
    """Return the refusal of a job that this node never runs; None for one that it can run."""
    wrong = _malformed(spec, payload)
    if wrong:
        return refuse(spec, ErrorCode.BAD_REQUEST, wrong)
    lacking = _lacking(spec, offer)
    if lacking:
        return refuse(spec, ErrorCode.UNSUPPORTED, lacking, retryable=True)
    return None


def _malformed(spec: JobSpec, payload: bytes) -> str:
    if spec.allocation == 0:
        return "allocation: expected 1 or more, got 0"
    if spec.cpus == 0:
        return "cpus: expected 1 or more, got 0"
    if spec.payload_sha256 and payload:
        return "payload: the row holds one and names one by its hash; send one of them"
    return ""


def _lacking(spec: JobSpec, offer: Offer) -> str:
    if spec.cpus > offer.slots:
        return f"cpus: the job asks for {spec.cpus} slots, this node has {offer.slots}"
    lacking = unkept(offer.attributes, asked_by(spec))
    if lacking:
        return f"this node {lacking}; ask for less, or use another node"
    if spec.python and spec.form is not JobForm.COMMAND and spec.python not in offer.pythons:
        return (
            f"python: the job's code needs Python {spec.python}, this node has "
            f"{', '.join(offer.pythons) or 'none'}; run it from one of these versions, or add a "
            "node that has it"
        )
    return unmet(offer.attributes, spec.requirements)


def overfull(
    spec: JobSpec,
    ledger: Ledger,
    bounds: Bounds,
    *,
    spec_bytes: int,
    payload_size: int,
    room_bytes: int | None,
) -> JobAnswer | None:
    """Return the refusal of a job for which there is no room now; None where there is."""
    if ledger.unsettled >= bounds.unsettled_jobs:
        return refuse(
            spec,
            ErrorCode.OVERLOADED,
            f"the account has {ledger.unsettled} jobs here that are not settled, at most "
            f"{bounds.unsettled_jobs}; fetch and settle results, or wait",
            retryable=True,
            retry_after_ms=RETRY_AFTER_MS,
        )
    if spec_bytes > bounds.spec_bytes:
        return refuse(
            spec,
            ErrorCode.OVERLOADED,
            "the node's queue is full; wait, or use another node",
            retryable=True,
            retry_after_ms=RETRY_AFTER_MS,
        )
    if room_bytes is not None and ledger.bytes_kept + payload_size + ROW_BYTES > room_bytes:
        return refuse(
            spec,
            ErrorCode.QUOTA_EXCEEDED,
            f"the account keeps {ledger.bytes_kept} bytes of jobs and results here and its quota "
            f"leaves {max(0, room_bytes - ledger.bytes_kept)} more; settle results, or ask the "
            "node's administrator for a larger quota",
            retryable=True,
            retry_after_ms=RETRY_AFTER_MS,
        )
    return None


def held_bytes(spec: JobSpec) -> int:
    """Return about how much memory the long parts of a waiting job's spec take, bytes."""
    return 512 + sum(map(len, spec.tickets)) + sum(map(len, spec.data_nodes))
