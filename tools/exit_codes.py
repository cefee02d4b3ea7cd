"""The exit codes of the command `alpyne`, and which error ends in which."""

from enum import IntEnum

from alpyne_proto.errors import (
    AlpyneError,
    ConnectionLost,
    ErrorCode,
    HandshakeFailed,
)


class ExitCode(IntEnum):
    """What a run of `alpyne` ends with; ``meaning`` is the text of the help."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        """Make a member that is its number and carries its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "done"
    FAILED = 1, "the job or the command failed"
    USAGE = 2, "wrong arguments, or a file or address that cannot be read"
    UNREACHABLE = 3, "no node could be reached"
    NOT_PERMITTED = 4, "a node does not allow it"
    NOT_FOUND = 5, "no such job, object, container, node or account"
    TIMEOUT = 6, "the time given by --timeout is over; what runs goes on"
    PARTLY = 7, "done at some nodes; the others are named"
    CONFLICT = 8, "another version stands there, or something is there already"
    INTERRUPTED = 130, "interrupted with Ctrl-C"


_BY_ERROR_CODE = {
    ErrorCode.NOT_PERMITTED: ExitCode.NOT_PERMITTED,
    ErrorCode.REVOKED: ExitCode.NOT_PERMITTED,
    ErrorCode.TICKET_INVALID: ExitCode.NOT_PERMITTED,
    ErrorCode.CERTIFICATE_INVALID: ExitCode.NOT_PERMITTED,
    ErrorCode.INVITATION_INVALID: ExitCode.NOT_PERMITTED,
    ErrorCode.REGISTRATION_CLOSED: ExitCode.NOT_PERMITTED,
    ErrorCode.QUOTA_EXCEEDED: ExitCode.NOT_PERMITTED,
    ErrorCode.NOT_FOUND: ExitCode.NOT_FOUND,
    ErrorCode.VERSION_CONFLICT: ExitCode.CONFLICT,
    ErrorCode.IDLE_TIMEOUT: ExitCode.UNREACHABLE,
    ErrorCode.SHUTTING_DOWN: ExitCode.UNREACHABLE,
    ErrorCode.TOO_BUSY: ExitCode.UNREACHABLE,
    ErrorCode.BAD_REQUEST: ExitCode.USAGE,
}
_UNUSABLE_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code of a command that ended with ``error``."""
    if isinstance(error, TimeoutError):
        return ExitCode.TIMEOUT
    if isinstance(error, AlpyneError):
        lost = isinstance(error, (ConnectionLost, HandshakeFailed))
        default = ExitCode.UNREACHABLE if lost else ExitCode.FAILED
        return _BY_ERROR_CODE.get(error.code, default)
    if isinstance(error, ConnectionError):
        return ExitCode.UNREACHABLE
    return ExitCode.USAGE if isinstance(error, _UNUSABLE_FILE) else ExitCode.FAILED


def exit_code_table() -> str:
    """Return the lines that `alpyne --help` and docs/cli.md show."""
    return "\n".join(f"{code.value:>4}  {code.meaning}" for code in ExitCode)
