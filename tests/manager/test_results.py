"""Results: values and exceptions out of rows; nothing of an untrusted node is unpickled."""

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager import errors, results
from alpyne_grid.manager.grid_events import Outcome
from alpyne_grid.manager.results import CommandResult, Failed, Place, Unreadable

from alpyne_proto import plain
from alpyne_proto.codec import encode_row
from alpyne_proto.messages import program as rows
from alpyne_proto.messages.compute import Cause, JobForm, JobState, ResultCodec

TRUSTED = Place(b"j" * 16, "node", ResultCodec.PICKLE)
UNTRUSTED = Place(b"j" * 16, "node", ResultCodec.PLAIN)


class Bomb:
    """Says that it was unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def outcome(
    body: bytes, state: JobState = JobState.DONE, cause: Cause = Cause.NONE, text: str = ""
) -> Outcome:
    return Outcome(state, cause, text, body, b"n" * 32, 1, 1)


def test_value_is_unpickled_when_its_node_is_trusted() -> None:
    body = encode_row(rows.Value(), pickle.dumps({1, 2}))
    assert results.decode(outcome(body), JobForm.CALL, TRUSTED) == {1, 2}


def test_value_takes_its_buffers_from_the_rows_behind_it() -> None:
    kept: list[pickle.PickleBuffer] = []
    large = pickle.PickleBuffer(bytearray(100_000))
    data = pickle.dumps(large, 5, buffer_callback=kept.append)
    body = encode_row(rows.Value(1), data) + encode_row(rows.Buffer(), kept[0].raw())
    value = results.decode(outcome(body), JobForm.CALL, TRUSTED)
    assert value == bytearray(100_000)
    value[0] = 1  # it can be written to


@pytest.mark.parametrize("row", [rows.Value(), rows.Values(0, 1)])
def test_value_of_an_untrusted_node_is_never_unpickled(
    row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    form = JobForm.CALL if isinstance(row, rows.Value) else JobForm.MAP
    with pytest.raises(Unreadable):
        results.decode(outcome(encode_row(row, pickle.dumps(Bomb()))), form, UNTRUSTED)
    assert not (tmp_path / "unpickled").exists()


def test_exception_of_an_untrusted_node_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = encode_row(rows.Failure(Cause.EXCEPTION, "E", "text"), pickle.dumps(Bomb()))
    failed = outcome(body, JobState.FAILED, Cause.EXCEPTION)
    with pytest.raises(errors.JobRaised):
        results.decode(failed, JobForm.CALL, UNTRUSTED)
    assert not (tmp_path / "unpickled").exists()


def test_plain_value_of_an_untrusted_node_is_decoded() -> None:
    body = encode_row(rows.Value(), plain.encode([1, (2, 3)]))
    assert results.decode(outcome(body), JobForm.CALL, UNTRUSTED) == [1, (2, 3)]


def test_exception_comes_with_its_cause_traceback_job_and_node() -> None:
    row = rows.Failure(Cause.EXCEPTION, "KeyError", "'x'", "Traceback: line 1\nKeyError: 'x'")
    body = encode_row(row, pickle.dumps(KeyError("x")))
    with pytest.raises(errors.JobRaised) as raised:
        results.decode(outcome(body, JobState.FAILED, Cause.EXCEPTION), JobForm.CALL, TRUSTED)
    error = raised.value
    assert isinstance(error.__cause__, KeyError)
    assert str(error) == (
        f"the program raised: KeyError: 'x' (job {'6a' * 16}, node node)\n"
        "--- traceback on the node ---\nTraceback: line 1\nKeyError: 'x'"
    )


@pytest.mark.parametrize(
    ("state", "cause", "kind"),
    [
        (JobState.FAILED, Cause.CRASH, errors.JobCrashed),
        (JobState.FAILED, Cause.BAD_PROGRAM, errors.BadProgram),
        (JobState.FAILED, Cause.MISSING_FILE, errors.MissingFile),
        (JobState.FAILED, Cause.PYTHON_VERSION, errors.WrongPython),
        (JobState.FAILED, Cause.BAD_ARGUMENTS, errors.BadArguments),
        (JobState.FAILED, Cause.UNPICKLABLE_RESULT, errors.UnpicklableResult),
        (JobState.FAILED, Cause.UNSAFE_RESULT, errors.UnsafeResult),
        (JobState.FAILED, Cause.EXIT_STATUS, errors.CommandFailed),
        (JobState.LIMIT, Cause.MEMORY, errors.LimitExceeded),
        (JobState.LIMIT, Cause.OUTPUT, errors.LimitExceeded),
        (JobState.LIMIT, Cause.PROCESSES, errors.LimitExceeded),
        (JobState.LIMIT, Cause.DISK, errors.LimitExceeded),
        (JobState.TIMEOUT, Cause.WALL_TIME, errors.JobTimeout),
        (JobState.KILLED, Cause.CANCELLED, errors.JobCancelled),
        (JobState.KILLED, Cause.REVOKED, errors.JobRefused),
        (JobState.LOST, Cause.NODE, errors.JobLost),
    ],
)
def test_failure_is_the_error_of_its_cause(
    state: JobState, cause: Cause, kind: type[errors.JobFailed]
) -> None:
    error = results.failure(outcome(b"", state, cause, "why"), TRUSTED)
    assert type(error) is kind
    assert "why" in str(error) and "node node" in str(error)


def test_output_refused_for_being_a_link_is_not_called_missing_only() -> None:
    text = "output 'x' is a link, a device or something else"
    error = results.failure(outcome(b"", JobState.FAILED, Cause.MISSING_FILE, text), TRUSTED)
    assert "missing or no regular file" in error.reason
    assert "copies instead of links" in error.remedy


@pytest.mark.parametrize(
    ("cause", "option"),
    [
        (Cause.MEMORY, "memory="),
        (Cause.OUTPUT, "output="),
        (Cause.PROCESSES, "processes="),
        (Cause.DISK, "disk="),
    ],
)
def test_limit_names_itself_and_the_option_that_raises_it(cause: Cause, option: str) -> None:
    error = results.failure(outcome(b"", JobState.LIMIT, cause, "12 of 10"), TRUSTED)
    assert error.cause is cause
    assert option in error.remedy
    assert option.rstrip("=") in error.reason or cause is Cause.OUTPUT


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ({}, "needs a memory limit"),  # the manager's own verdict: the nodes went away
        ({"node_failed": True}, "put right at the node what the reason names"),
        ({"from_node": True}, "put right at the node what the reason names"),
        ({"misfits": ("one: too small",)}, "ask for less"),
    ],
    ids=["nodes lost", "nodes failed", "told by a node", "no node fits"],
)
def test_hint_tells_nodes_that_went_away_from_nodes_that_could_not_run_it(
    more: dict[str, Any], hint: str
) -> None:
    lost = replace(outcome(b"", JobState.LOST, Cause.NODE, "no image"), **more)
    assert hint in results.failure(lost, TRUSTED).remedy


def test_every_cause_has_an_error_and_a_title() -> None:
    assert set(errors.BY_CAUSE) == set(Cause)
    for cause in set(Cause) - {Cause.NONE}:
        error = results.failure(outcome(b"", JobState.FAILED, cause, ""), TRUSTED)
        assert "ended as FAILED" not in error.reason, cause


def test_errors_survive_pickling() -> None:
    error = results.failure(outcome(b"", JobState.FAILED, Cause.CRASH, "why"), TRUSTED)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.node, str(again)) == (errors.JobCrashed, "node", str(error))


def test_map_outcomes_stand_in_order_with_failures_in_their_places() -> None:
    body = (
        encode_row(rows.Values(8, 1), pickle.dumps(["c"]))
        + encode_row(rows.Values(5, 2), pickle.dumps(["a", "b"]))
        + encode_row(rows.ItemFailed(7, Cause.EXCEPTION, "ValueError", "no"))
    )
    found = results.decode(outcome(body), JobForm.MAP, TRUSTED)
    assert found[:2] == ["a", "b"] and found[3] == "c"
    assert isinstance(found[2], Failed) and found[2].error.item == 7


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        encode_row(rows.Value(1), pickle.dumps(1)),
        encode_row(rows.OutputFile("a"), b""),
    ],
)
def test_call_result_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable):
        results.decode(outcome(body), JobForm.CALL, TRUSTED)


@pytest.mark.parametrize(
    "body",
    [
        encode_row(rows.Values(0, 2), pickle.dumps([1])),
        encode_row(rows.Values(0, 1), pickle.dumps("ab")),
        encode_row(rows.Values(0, 1), pickle.dumps([1]))
        + encode_row(rows.Values(2, 1), pickle.dumps([1])),
    ],
)
def test_map_result_with_wrong_counts_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable):
        results.decode(outcome(body), JobForm.MAP, TRUSTED)


def test_value_that_does_not_unpickle_here_says_so() -> None:
    body = encode_row(rows.Value(), b"cno.such.module\nname\n.")
    with pytest.raises(errors.UnpicklableResult, match="ModuleNotFoundError"):
        results.decode(outcome(body), JobForm.CALL, TRUSTED)


def test_command_result_is_its_status_and_files(tmp_path: Path) -> None:
    body = encode_row(rows.OutputFile("out/a"), b"A")
    made = results.decode(outcome(body), JobForm.COMMAND, TRUSTED)
    assert made == CommandResult(0, {"out/a": b"A"})
    made.save(tmp_path / "new")
    assert (tmp_path / "new/out/a").read_bytes() == b"A"


@pytest.mark.parametrize("path", ["../a", "/a", "a/../../b"])
def test_command_result_saves_nothing_when_a_path_would_leave_its_folder(
    path: str, tmp_path: Path
) -> None:
    made = CommandResult(0, {"ok": b"", path: b"x"})
    with pytest.raises(errors.UnsafePath):
        made.save(tmp_path / "folder")
    assert not (tmp_path / "folder").exists() and not (tmp_path / "a").exists()


def test_command_result_follows_no_link_when_it_is_saved(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    base = tmp_path / "base"
    base.mkdir()
    (base / "link").symlink_to(outside)
    with pytest.raises(errors.UnsafePath):
        CommandResult(0, {"link/a": b"x"}).save(base)
    assert list(outside.iterdir()) == []
