"""What the manager raises, beside the errors of the protocol (alpyne_proto.errors).

AlpyneError
├── PoolError               the pool file, or an address in it, cannot be used
├── NotRegistered           a node does not know this account yet
├── NodeUnreachable         nobody answers at a node's address
├── JournalError            the journal cannot be written or read
├── ManagerClosed           the manager was closed while something waited
├── ProgramError            a function, file or bundle that cannot be sent
├── ResultTimeout           result(timeout) elapsed; the job goes on
├── UnknownJob              no reachable node has a job of this id
├── CannotSuspend           the job's node cannot suspend jobs
├── JobFailed               a job, or an item of a map, did not end as DONE
│   ├── JobRaised               the program raised; __cause__ is its exception
│   ├── JobCrashed              the interpreter or command died
│   ├── BadProgram              no program: syntax error, no main, not a script
│   ├── MissingFile             a file, module or object that it names is not there
│   ├── WrongPython             no node's Python can run the code
│   ├── BadArguments            the arguments do not unpickle there
│   ├── UnpicklableResult       the value cannot be sent back
│   ├── UnsafeResult            not a plain value, on a node that is not trusted
│   ├── CommandFailed           a command ended with a status other than 0
│   ├── LimitExceeded           memory, processes, disk or output over its limit
│   ├── JobTimeout              it ran longer than its timeout
│   ├── JobCancelled            it was cancelled; .receipt says what was ended
│   ├── JobLost                 its nodes were lost, or could not run it, more often than allowed
│   ├── JobRefused              the node did not take it
│   └── NoNodeFits              no compute node of the pool satisfies its requirements
└── ObjectError             an object or container
    ├── ObjectNotFound          nothing under this path, or no such version
    ├── VersionConflict         if_version or if_absent does not hold
    ├── NotEnoughCopies         fewer copies could be made than the container asks
    ├── MaybeStale              too few members answered to know the newest version
    ├── ObjectUnavailable       no member that holds the version can serve it
    ├── ContainerError          a container's descriptor: missing, or another one
    └── UnsafePath              a path that would leave its folder
"""

from collections.abc import Mapping
from dataclasses import dataclass

from alpyne_proto.errors import AlpyneError, ErrorCode
from alpyne_proto.messages.compute import Cause

TRACEBACK_TITLE = "--- traceback on the node ---"


class PoolError(AlpyneError):
    """The pool file, or an address in it, cannot be used."""

    code = ErrorCode.BAD_REQUEST


class NotRegistered(AlpyneError):
    """A node does not know this account, and did not let it register."""

    code = ErrorCode.REGISTRATION_CLOSED


class NodeUnreachable(AlpyneError):
    """Nobody answers at a node's address, or somebody else does."""

    code = ErrorCode.IDLE_TIMEOUT


class JournalError(AlpyneError):
    """The journal cannot be written or read."""

    code = ErrorCode.STORE_FAILED


class ManagerClosed(AlpyneError):
    """The manager was closed while something waited; jobs that were accepted go on."""

    code = ErrorCode.SHUTTING_DOWN


class ProgramError(AlpyneError):
    """A function, file or bundle cannot be sent; nothing was submitted."""

    code = ErrorCode.BAD_REQUEST


class ResultTimeout(AlpyneError, TimeoutError):
    """``result(timeout)`` elapsed; the job goes on and can be waited for again."""

    code = ErrorCode.IDLE_TIMEOUT


class UnknownJob(AlpyneError):
    """No reachable node has a job of this id that belongs to this account."""

    code = ErrorCode.NOT_FOUND


class CannotSuspend(AlpyneError):
    """The node that has the job cannot suspend jobs; the job goes on."""

    code = ErrorCode.UNSUPPORTED


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the end of a job's processes looked like.

    ``ended``: processes that were ended. ``left``: processes that could not be. ``confirmed``:
    whether the node said so; False where it was lost, or where the job never reached one.
    """

    ended: int = 0
    left: int = 0
    confirmed: bool = False


class JobFailed(AlpyneError):
    """A job, or one item of a map, did not end as DONE.

    Attributes: ``reason`` (one line), ``job_id`` (hex), ``node`` (its address or name), ``cause``
    (Cause), ``traceback`` (the remote one, or ""), ``remedy`` (what to do), ``item`` (index in its
    map, or None), ``exit_status`` (of a command), ``receipt`` (Receipt).
    """

    remedy = ""

    def __init__(
        self,
        reason: str,
        *,
        job_id: str = "",
        node: str = "",
        cause: Cause = Cause.NONE,
        traceback: str = "",
        remedy: str = "",
        item: int | None = None,
        exit_status: int = 0,
        receipt: Receipt | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.job_id = job_id
        self.node = node
        self.cause = cause
        self.traceback = traceback
        self.remedy = remedy or _REMEDIES.get(cause) or type(self).remedy
        self.item = item
        self.exit_status = exit_status
        self.receipt = receipt or Receipt()

    def __str__(self) -> str:
        place = [f"job {self.job_id}"] if self.job_id else []
        place += [f"item {self.item}"] if self.item is not None else []
        place += [f"node {self.node}"] if self.node else []
        lines = [f"{self.reason} ({', '.join(place)})" if place else self.reason]
        if self.remedy:
            lines.append(f"What to do: {self.remedy}")
        if self.traceback:
            lines += [TRACEBACK_TITLE, self.traceback.rstrip()]
        return "\n".join(lines)


class JobRaised(JobFailed):
    """The program raised; ``__cause__`` is its exception, where it could be sent."""


class JobCrashed(JobFailed):
    """The interpreter or the command died of a signal, or left by os._exit."""

    remedy = (
        "run it on this machine with faulthandler, or give it more memory; retries=N tries anew"
    )


class BadProgram(JobFailed):
    """What was sent is no program: a syntax error, or no function main."""

    remedy = "a .py file for the grid defines main(...); its arguments follow the file's name"


class MissingFile(JobFailed):
    """A file, module or object that the program names is not there, or is no regular file."""

    remedy = (
        "send modules with modules=[...], files with inputs=[...]; objects by their container; "
        "have outputs written as regular files, copies instead of links"
    )


class WrongPython(JobFailed):
    """The node's Python cannot run the code."""

    remedy = "run the manager with a Python version that a node has (`alpyne nodes` shows them)"


class BadArguments(JobFailed):
    """The function or its arguments do not unpickle on the node."""

    remedy = "send the modules that define them with modules=[...], or install them on the node"


class UnpicklableResult(JobFailed):
    """The value cannot be pickled on the node."""

    remedy = "return plain values, or write the result into a container with into="


class UnsafeResult(JobFailed):
    """The value is not a plain one, and the node is not trusted to send pickles."""

    remedy = (
        "return None, bool, int, float, str, bytes, list, tuple, dict, set or arrays, or pair "
        "the node as trusted (`alpyne pair`)"
    )


class CommandFailed(JobFailed):
    """A command ended with a status other than 0."""


class LimitExceeded(JobFailed):
    """The job used more than it was allowed; ``cause`` says of what."""

    remedy = "raise the limit of the job, or give it less to do"


class JobTimeout(JobFailed):
    """The job ran longer than its timeout."""

    remedy = "raise timeout= of the job, or give it less to do"


class JobCancelled(JobFailed):
    """The job was cancelled."""


class JobLost(JobFailed):
    """The job's nodes were lost, or could not run it, more often than a job may move."""

    remedy = "look at the nodes (`alpyne nodes`); a job that ends its nodes needs a memory limit"


class JobRefused(JobFailed):
    """The node did not take the job."""


class NoNodeFits(JobFailed):
    """No compute node of the pool satisfies the job's requirements."""

    remedy = "ask for less, or add a node that has it (`alpyne nodes` shows what there is)"


class ObjectError(AlpyneError):
    """Something about an object or container."""

    code = ErrorCode.NOT_FOUND


class ObjectNotFound(ObjectError):
    """There is nothing under this path, or not the version asked for."""


class VersionConflict(ObjectError):
    """``if_version`` or ``if_absent`` does not hold; nothing was written."""

    code = ErrorCode.VERSION_CONFLICT


class NotEnoughCopies(ObjectError):
    """Fewer copies could be made than the container asks.

    Attributes: ``holders`` (names of the nodes that have the new version), ``failures`` (name of a
    node -> why it does not).
    """

    code = ErrorCode.STORE_FAILED

    def __init__(
        self, text: str, *, holders: tuple[str, ...] = (), failures: dict[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.holders = holders
        self.failures = failures or {}

    @staticmethod
    def reasons(failures: Mapping[str, str]) -> str:
        """Return why which nodes failed, each reason once: "one, two: reason; three: another"."""
        nodes: dict[str, list[str]] = {}
        for node, reason in failures.items():
            nodes.setdefault(reason, []).append(node)
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in nodes.items())


class MaybeStale(ObjectError):
    """Too few members answered to know that the newest version is among their answers."""

    code = ErrorCode.IDLE_TIMEOUT


class ObjectUnavailable(ObjectError):
    """No member that holds the version can serve it: lost, or its bytes are damaged."""

    code = ErrorCode.CORRUPT


class ContainerError(ObjectError):
    """A container's descriptor is missing, or says something else than was asked."""

    code = ErrorCode.BAD_REQUEST


class UnsafePath(ObjectError):
    """A path that is not legal, or that would leave its folder."""

    code = ErrorCode.BAD_REQUEST


# For a JobLost whose reason is that of a node which was there.
NODE_FAILED_REMEDY = (
    "put right at the node what the reason names, then submit the job again; or add a node that "
    "can run it (`alpyne nodes` shows what there is)"
)
# Where the cause says more than the class of the error.
_REMEDIES = {
    Cause.MEMORY: "raise memory= of the job, or give it less to do at once",
    Cause.OUTPUT: "raise output= or result= of the job, or have it print or return less",
    Cause.PROCESSES: "raise processes= of the job (threads count too), or start fewer at once",
    Cause.DISK: "raise disk= of the job, or keep less in files; large data belongs in a container",
}
BY_CAUSE: dict[Cause, type[JobFailed]] = {
    Cause.NONE: JobFailed,
    Cause.EXCEPTION: JobRaised,
    Cause.CRASH: JobCrashed,
    Cause.BAD_PROGRAM: BadProgram,
    Cause.MISSING_FILE: MissingFile,
    Cause.PYTHON_VERSION: WrongPython,
    Cause.BAD_ARGUMENTS: BadArguments,
    Cause.UNPICKLABLE_RESULT: UnpicklableResult,
    Cause.UNSAFE_RESULT: UnsafeResult,
    Cause.EXIT_STATUS: CommandFailed,
    Cause.MEMORY: LimitExceeded,
    Cause.OUTPUT: LimitExceeded,
    Cause.WALL_TIME: JobTimeout,
    Cause.CANCELLED: JobCancelled,
    Cause.REVOKED: JobRefused,
    Cause.NODE: JobLost,
    Cause.PROCESSES: LimitExceeded,
    Cause.DISK: LimitExceeded,
}
