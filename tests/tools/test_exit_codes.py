"""Which error ends in which exit code."""

import pytest
from alpyne_grid.manager import errors as manager_errors
from alpyne_grid.tools.exit_codes import ExitCode, exit_code_of, exit_code_table

from alpyne_proto.errors import AddressError, AlpyneError, ErrorCode, KeyFileError, RequestFailed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AddressError("x"), ExitCode.USAGE),
        (KeyFileError("x"), ExitCode.USAGE),
        (manager_errors.PoolError("x"), ExitCode.USAGE),
        (manager_errors.UnsafePath("x"), ExitCode.USAGE),
        (FileNotFoundError(2, "x"), ExitCode.USAGE),
        (manager_errors.NodeUnreachable("x"), ExitCode.UNREACHABLE),
        (ConnectionRefusedError(), ExitCode.UNREACHABLE),
        (RequestFailed(ErrorCode.NOT_PERMITTED, "x"), ExitCode.NOT_PERMITTED),
        (manager_errors.NotRegistered("x"), ExitCode.NOT_PERMITTED),
        (RequestFailed(ErrorCode.NOT_FOUND, "x"), ExitCode.NOT_FOUND),
        (manager_errors.UnknownJob("x"), ExitCode.NOT_FOUND),
        (manager_errors.ObjectNotFound("x"), ExitCode.NOT_FOUND),
        (manager_errors.ResultTimeout("x"), ExitCode.TIMEOUT),
        (manager_errors.VersionConflict("x"), ExitCode.CONFLICT),
        (manager_errors.JobRaised("x"), ExitCode.FAILED),
        (AlpyneError("x"), ExitCode.FAILED),
        (OSError(28, "full"), ExitCode.FAILED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_error_ends_in_its_exit_code(error: BaseException, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_table_says_what_each_code_means() -> None:
    lines = exit_code_table().splitlines()
    assert len(lines) == len(ExitCode)
    assert lines[0].split(maxsplit=1) == ["0", "done"]
