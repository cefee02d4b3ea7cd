"""Results: the rows that a job left, as values or as exceptions.

What a trusted node sent is unpickled; a node that is not trusted was asked for plain values, and
nothing of its bytes is ever unpickled, whatever they claim to be.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpyne_grid.manager import errors
from alpyne_grid.manager.grid_events import Outcome
from alpyne_grid.manager.safe_files import Place as FilePlace

from alpyne_proto import plain
from alpyne_proto.codec import read_rows
from alpyne_proto.errors import AlpyneError, CodecError, ErrorCode
from alpyne_proto.messages import program as rows
from alpyne_proto.messages.compute import Cause, JobForm, JobState, ResultCodec
from alpyne_proto.registry import Message

_ROWS = (
    rows.Value.SPEC.code,
    rows.Values.SPEC.code,
    rows.ItemFailed.SPEC.code,
    rows.Failure.SPEC.code,
    rows.Buffer.SPEC.code,
    rows.OutputFile.SPEC.code,
)
_TITLES = {
    Cause.EXCEPTION: "the program raised",
    Cause.CRASH: "the interpreter or command died",
    Cause.BAD_PROGRAM: "this is no program for the grid",
    Cause.MISSING_FILE: "what the program names is missing or no regular file on the node",
    Cause.PYTHON_VERSION: "the node's Python cannot run the code",
    Cause.BAD_ARGUMENTS: "the function or its arguments cannot be unpickled on the node",
    Cause.UNPICKLABLE_RESULT: "the result cannot be pickled",
    Cause.UNSAFE_RESULT: "the result is not a plain value, and the node is not trusted",
    Cause.EXIT_STATUS: "the command failed",
    Cause.MEMORY: "the job used more memory than allowed",
    Cause.OUTPUT: "the job wrote more than allowed",
    Cause.WALL_TIME: "the job ran longer than its timeout",
    Cause.CANCELLED: "the job was cancelled",
    Cause.REVOKED: "the account was revoked at the node",
    Cause.NODE: "the node could not run or keep the job",
    Cause.PROCESSES: "the job started more processes than allowed",
    Cause.DISK: "the job wrote more to disk than allowed",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result comes from, for decoding and for errors."""

    job_id: bytes
    node: str
    codec: ResultCodec  # that the node was asked for; pickles only of trusted nodes


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command left. ``files``: path -> content of what matched its output patterns."""

    exit_status: int
    files: dict[str, bytes]

    def save(self, folder: str | Path) -> list[Path]:
        """Write the files below ``folder``, which is made where missing; return their paths.

        Raises UnsafePath for a path that would leave the folder, before anything is written, and
        for one that leads over a link.
        """
        base = Path(folder)
        places = [(FilePlace.below(base, path), data) for path, data in self.files.items()]
        base.mkdir(parents=True, exist_ok=True)
        for place, data in places:
            place.write(data)
        return [place.path for place, _ in places]


@dataclass(frozen=True, slots=True)
class Failed:
    """The place of an item that failed, in a chunk's outcomes."""

    error: errors.JobFailed


class Unreadable(AlpyneError):
    """A result that is not what its form says; the node, or the bytes, are to blame."""

    code = ErrorCode.CODEC_ERROR


def decode(outcome: Outcome, form: JobForm, place: Place) -> Any:
    """Return the value of a DONE job, or raise the JobFailed that its outcome means.

    CALL and SOURCE: the value. COMMAND: CommandResult. MAP: a list with one value, or Failed, per
    item, in order. Raises Unreadable for bytes that are no such result.
    """
    if outcome.state is not JobState.DONE:
        raise failure(outcome, place)
    try:
        parts = _read(outcome.body)
    except CodecError as error:
        raise Unreadable(f"job {place.job_id.hex()} on {place.node}: {error}") from None
    if form is JobForm.MAP:
        return _map_outcomes(parts, place)
    if form is JobForm.COMMAND:
        files = {row.path: data for row, data in parts if isinstance(row, rows.OutputFile)}
        return CommandResult(outcome.exit_status, files)
    for at, (row, data) in enumerate(parts):
        if isinstance(row, rows.Value):
            return _value(data, _buffers(parts, at, row.buffers), place)
        if isinstance(row, rows.Failure):
            raise _failure_row(row, data, outcome, place)
    raise Unreadable(f"job {place.job_id.hex()} on {place.node}: the result holds no value")


def decode_value(body: bytes, codec: int) -> Any:
    """Return the value of a value object's rows (see alpyne_proto.jobobject)."""
    place = Place(b"", "a data node", ResultCodec(codec))
    parts = _read(body)
    for at, (row, data) in enumerate(parts):
        if isinstance(row, rows.Value):
            return _value(data, _buffers(parts, at, row.buffers), place)
    raise Unreadable("the object holds no value; value() is for what a map or reduce wrote into=")


def failure(outcome: Outcome, place: Place) -> errors.JobFailed:
    """Return the exception that a job's failed outcome means."""
    try:
        parts = _read(outcome.body)
    except CodecError:
        parts = []
    for row, data in parts:
        if isinstance(row, rows.Failure):
            return _failure_row(row, data, outcome, place)
    title = _TITLES.get(outcome.cause, f"the job ended as {outcome.state.name}")
    reason = f"{title}: {outcome.text}" if outcome.text else title
    kind = errors.BY_CAUSE.get(outcome.cause, errors.JobFailed)
    if outcome.misfits:
        kind = errors.NoNodeFits
        reason = "no compute node fits: " + "; ".join(outcome.misfits)
    elif outcome.refused is not ErrorCode.NO_ERROR:
        kind, reason = errors.JobRefused, f"the node refused the job: {outcome.text}"
    elif outcome.state is JobState.KILLED and outcome.cause is Cause.CANCELLED:
        reason = outcome.text or "the job was cancelled"
    # A node that was there told what it lacks; JobLost itself speaks of nodes that went away.
    is_nodes_fault = kind is errors.JobLost and (outcome.from_node or outcome.node_failed)
    return kind(
        reason,
        job_id=place.job_id.hex(),
        node=place.node,
        cause=outcome.cause,
        remedy=errors.NODE_FAILED_REMEDY if is_nodes_fault else "",
        exit_status=outcome.exit_status,
        receipt=outcome.receipt,
    )


def _read(body: bytes) -> list[tuple[Message, bytes]]:
    return read_rows(body, _ROWS)


def _buffers(parts: list[tuple[Message, bytes]], at: int, count: int) -> list[bytes]:
    found = [data for row, data in parts[at + 1 : at + 1 + count] if isinstance(row, rows.Buffer)]
    if len(found) != count:
        raise Unreadable(f"the result names {count} buffers and holds {len(found)}")
    return found


def _value(data: bytes, buffers: list[bytes], place: Place) -> Any:
    if place.codec is ResultCodec.PLAIN:
        try:
            return plain.decode(data)
        except CodecError as error:
            raise Unreadable(f"job {place.job_id.hex()} on {place.node}: {error}") from None
    try:
        # Only for nodes that the user trusts: they run his code and read his objects anyway.
        return pickle.loads(data, buffers=[bytearray(buffer) for buffer in buffers])
    except Exception as error:
        raise errors.UnpicklableResult(
            f"the result cannot be unpickled here: {type(error).__name__}: {error}",
            job_id=place.job_id.hex(),
            node=place.node,
            remedy="import the modules that define its types in this program too",
        ) from error


def _map_outcomes(parts: list[tuple[Message, bytes]], place: Place) -> list[Any]:
    found: dict[int, Any] = {}
    for at, (row, data) in enumerate(parts):
        if isinstance(row, rows.Values):
            values = _value(data, _buffers(parts, at, row.buffers), place)
            if type(values) is not list or len(values) != row.count:
                raise Unreadable(f"job {place.job_id.hex()}: not {row.count} values in a list")
            found.update(zip(range(row.first, row.first + row.count), values, strict=True))
        elif isinstance(row, rows.ItemFailed):
            found[row.index] = Failed(_item_failure(row, data, place))
    first = min(found, default=0)
    if sorted(found) != list(range(first, first + len(found))):
        raise Unreadable(f"job {place.job_id.hex()} on {place.node}: items are missing")
    return [found[index] for index in range(first, first + len(found))]


def _item_failure(row: rows.ItemFailed, data: bytes, place: Place) -> errors.JobFailed:
    return _exception(row.cause, row.type, row.text, row.traceback, data, place, item=row.index)


def _failure_row(
    row: rows.Failure, data: bytes, outcome: Outcome, place: Place
) -> errors.JobFailed:
    error = _exception(row.cause, row.type, row.text, row.traceback, data, place)
    error.exit_status, error.receipt = outcome.exit_status, outcome.receipt
    return error


def _exception(
    cause: Cause,
    type_name: str,
    text: str,
    traceback: str,
    data: bytes,
    place: Place,
    item: int | None = None,
) -> errors.JobFailed:
    said = ": ".join(part for part in (type_name, text) if part)
    title = _TITLES.get(cause, "the job failed")
    error = errors.BY_CAUSE.get(cause, errors.JobFailed)(
        f"{title}: {said}" if said else title,
        job_id=place.job_id.hex(),
        node=place.node,
        cause=cause,
        traceback=traceback,
        item=item,
    )
    error.__cause__ = _original(data, place) if cause is Cause.EXCEPTION else None
    return error


def _original(data: bytes, place: Place) -> BaseException | None:
    """Return the remote exception itself, where it was sent, is trusted, and unpickles here."""
    if not data or place.codec is not ResultCodec.PICKLE:
        return None
    try:
        found = pickle.loads(data)
    except Exception:  # noqa: BLE001 - an exception type that this program lacks: the text is there
        return None
    return found if isinstance(found, BaseException) else None
