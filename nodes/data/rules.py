"""The rules of a data node's writes: versions, conditions, fences, quotas."""

from alpyne_grid.nodes.data.events import ContainerAsked, DeleteAsked, PutAsked
from alpyne_grid.nodes.data.records import (
    Change,
    Descriptor,
    JobEpoch,
    KeepContainer,
    ObjectRecord,
    Publish,
    RaiseFence,
    Refresh,
    Staged,
    Usage,
)

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.data import Expect

# Names of one account. A name costs some hundred bytes that no quota of bytes counts.
ROWS_MAX = 5_000_000


class Refusal(Exception):
    """An operation must not happen; it becomes a Refuse effect."""

    def __init__(self, code: ErrorCode, text: str, *, retryable: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retryable = retryable


def no_container(container_id: bytes) -> str:
    """Return the text for a container that is unknown, or somebody else's: the same for both."""
    return (
        f"container {container_id.hex()}: not known at this node; create it here first, or ask "
        "one of its members"
    )


def is_repeat(asked: PutAsked | DeleteAsked, current: ObjectRecord | None) -> bool:
    """Return whether ``asked`` is what stands there already, as far as is known without bytes."""
    if current is None or current.version != asked.version:
        return False
    if isinstance(asked, DeleteAsked):
        return current.deleted
    return not current.deleted and current.size == asked.size


def check_version(asked: PutAsked | DeleteAsked, current: ObjectRecord | None) -> None:
    """Raise Refusal where the version is not above ``current`` or the condition does not hold.

    A repeat of what stands there passes: its first answer may have been lost.
    """
    if is_repeat(asked, current):
        return
    name = f"object {asked.key.path!a}"
    if current is not None and asked.version <= current.version:
        raise Refusal(
            ErrorCode.VERSION_CONFLICT,
            f"{name}: version {asked.version} is not above the current one, {_said(current)}; "
            "a node never goes back; use a higher counter",
        )
    stands = f"its current version is {_said(current)}" if current is not None else "it has none"
    condition = asked.condition
    if condition.expect is Expect.ABSENT and current is not None and not current.deleted:
        raise Refusal(ErrorCode.VERSION_CONFLICT, f"{name}: expected to be absent, but {stands}")
    if condition.expect is Expect.VERSION and (
        current is None or current.version != condition.version
    ):
        raise Refusal(
            ErrorCode.VERSION_CONFLICT,
            f"{name}: expected version {condition.version}, but {stands}",
        )


def check_fence(epoch: JobEpoch, highest: tuple[int, int]) -> None:
    """Raise Refusal where a higher execution of the job has been seen here."""
    if (epoch.allocation, epoch.attempt) < highest:
        raise Refusal(
            ErrorCode.FENCED,
            f"job {epoch.job_id.hex()}: allocation {epoch.allocation} attempt {epoch.attempt} was "
            f"replaced by allocation {highest[0]} attempt {highest[1]}; what it writes is refused",
        )


def check_quota(size: int, used: Usage, reserved: int, quota_bytes: int) -> None:
    """Raise Refusal where ``size`` more bytes are over the quota; 0 = no limit."""
    if quota_bytes and used.size_bytes + reserved + size > quota_bytes:
        coming = f", {reserved} are on their way" if reserved else ""
        raise Refusal(
            ErrorCode.QUOTA_EXCEEDED,
            f"account: {size} bytes do not fit: {used.size_bytes} of {quota_bytes} bytes are used"
            f"{coming}; delete objects (their bytes count for one more hour), or ask the node's "
            "administrator for more",
        )


def object_changes(
    asked: PutAsked | DeleteAsked,
    current: ObjectRecord | None,
    staged: Staged | None,
    now_ms: int,
) -> tuple[ObjectRecord, list[Change]]:
    """Return what stands there afterwards, and the changes that bring it about.

    No changes: it stands there already. Raises Refusal for a repeat with other bytes.
    """
    if current is not None and is_repeat(asked, current):
        if staged is None:
            return current, []
        if staged.sha256 != current.sha256:
            raise Refusal(
                ErrorCode.VERSION_CONFLICT,
                f"object {asked.key.path!a}: version {asked.version} exists with other bytes; "
                "put with a higher counter",
            )
        return current, [Refresh(asked.key, staged)]
    record = ObjectRecord(asked.version, deleted=True, modified_at_ms=now_ms)
    if staged is not None:
        record = ObjectRecord(asked.version, staged.size, staged.sha256, False, now_ms)
    changes: list[Change] = [Publish(asked.key, record, current, staged, now_ms)]
    if asked.epoch is not None:
        changes.append(RaiseFence(asked.key.owner, asked.epoch, now_ms))
    return record, changes


def container_changes(
    asked: ContainerAsked, current: Descriptor | None
) -> tuple[Descriptor, list[Change]]:
    """Return the descriptor that stands there afterwards, and the changes: the higher one wins."""
    wanted = asked.descriptor
    if current is not None and wanted.version <= current.version:
        return current, []
    return wanted, [KeepContainer(asked.owner, wanted, current is None)]


def _said(record: ObjectRecord) -> str:
    return f"{record.version}{' (deleted)' if record.deleted else ''}"
