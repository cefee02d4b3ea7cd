"""What the object table counts: bytes and names of accounts, and executions of jobs."""

from collections.abc import Mapping
from dataclasses import dataclass

from alpyne_grid.nodes.data.records import JobEpoch, Usage
from alpyne_grid.nodes.data.rules import ROWS_MAX, Refusal, check_fence, check_quota

from alpyne_proto.errors import ErrorCode


@dataclass(slots=True)
class _Account:
    used: Usage
    reserved: int = 0


class Accounts:
    """What each account keeps, and what is on its way."""

    def __init__(self, usages: Mapping[bytes, Usage]) -> None:
        self._accounts = {owner: _Account(used) for owner, used in usages.items()}

    def used(self, owner: bytes) -> Usage:
        """Return what ``owner`` keeps."""
        account = self._accounts.get(owner)
        return account.used if account is not None else Usage()

    def check_names(self, owner: bytes) -> None:
        """Raise Refusal where ``owner`` may keep no more names."""
        if self.used(owner).rows >= ROWS_MAX:
            raise Refusal(
                ErrorCode.QUOTA_EXCEEDED,
                f"account: {ROWS_MAX} names are kept already, tombstones, versions superseded "
                "within the last hour and jobs that wrote here included; delete objects, or use "
                "another node",
            )

    def reserve(self, owner: bytes, size: int, quota_bytes: int) -> None:
        """Keep room for ``size`` bytes. Raises Refusal where the quota has none (0: no limit)."""
        account = self._account(owner)
        check_quota(size, account.used, account.reserved, quota_bytes)
        account.reserved += size

    def release(self, owner: bytes, size: int) -> None:
        """Give reserved room back."""
        self._account(owner).reserved -= size

    def add(self, owner: bytes, more: Usage) -> None:
        """Count what has been stored; negative: what has gone."""
        account = self._account(owner)
        used = account.used
        account.used = Usage(used.size_bytes + more.size_bytes, used.rows + more.rows)

    @property
    def reserved(self) -> int:
        """Bytes on their way, of all accounts."""
        return sum(account.reserved for account in self._accounts.values())

    def _account(self, owner: bytes) -> _Account:
        return self._accounts.setdefault(owner, _Account(Usage()))


@dataclass(slots=True)
class _Job:
    users: int = 0
    highest: tuple[int, int] = (0, 0)  # (allocation, attempt)


class Fences:
    """The highest execution seen of each job that has operations, or a store, in flight."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[bytes, bytes], _Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def enter(self, owner: bytes, epoch: JobEpoch | None) -> None:
        """Keep the job in mind until as many ``leave`` have followed."""
        if epoch is not None:
            self._jobs.setdefault((owner, epoch.job_id), _Job()).users += 1

    def leave(self, owner: bytes, epoch: JobEpoch | None) -> None:
        """Undo one ``enter``."""
        if epoch is not None:
            key = owner, epoch.job_id
            self._jobs[key].users -= 1
            if not self._jobs[key].users:
                del self._jobs[key]

    def is_new(self, owner: bytes, epoch: JobEpoch, stored: tuple[int, int]) -> bool:
        """Return whether nothing is stored, or about to be, of the job."""
        return max(self._jobs[owner, epoch.job_id].highest, stored) == (0, 0)

    def see(self, owner: bytes, epoch: JobEpoch, stored: tuple[int, int]) -> bool:
        """Note an execution and what is stored; return whether it is higher than all before."""
        job = self._jobs[owner, epoch.job_id]
        job.highest = max(job.highest, stored)
        pair = epoch.allocation, epoch.attempt
        is_higher = pair > job.highest
        if is_higher:
            job.highest = pair
        return is_higher

    def check(self, owner: bytes, epoch: JobEpoch | None) -> None:
        """Raise Refusal where a higher execution of the job has been seen."""
        if epoch is not None:
            check_fence(epoch, self._jobs[owner, epoch.job_id].highest)
