"""What a data node knows of containers and objects, as values."""

from dataclasses import dataclass
from typing import NamedTuple

from alpyne_proto.errors import AlpyneError, ErrorCode

BlobId = bytes  # SHA-256 of the content, 32 bytes


class ObjectCorrupt(AlpyneError):
    """Bytes of an object are damaged or missing in the back end; they are not handed out."""

    code = ErrorCode.CORRUPT


class ObjectKey(NamedTuple):
    """Where an object stands. Two accounts never share one: the owner is part of it."""

    owner: bytes  # Ed25519 key of the account, 32 bytes
    container_id: bytes  # 16 bytes
    path: str


class Version(NamedTuple):
    """A version of an object or a descriptor; versions are ordered as these tuples are."""

    counter: int  # from 1
    writer: bytes  # 16 bytes

    def __str__(self) -> str:
        return f"{self.counter} of writer {self.writer.hex()}"


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """One version of an object; a tombstone (``deleted``) has no bytes and no ``sha256``."""

    version: Version
    size: int = 0  # bytes
    sha256: BlobId = b""
    deleted: bool = False
    modified_at_ms: int = 0  # since the epoch


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A container: its name, how many copies its objects have, and which data nodes keep it."""

    container_id: bytes
    name: str
    copies: int
    members: tuple[bytes, ...]  # static keys, 32 bytes each
    version: Version


class JobEpoch(NamedTuple):
    """A job's execution; of one job, higher (allocation, attempt) fence lower ones."""

    job_id: bytes  # 16 bytes
    allocation: int
    attempt: int


class Usage(NamedTuple):
    """What an account keeps, superseded versions and tombstones included."""

    size_bytes: int = 0
    rows: int = 0  # containers, versions, tombstones and fences


@dataclass(frozen=True, slots=True)
class Staged:
    """A whole body that is durable in the back end but has no name yet."""

    owner: bytes
    size: int
    sha256: BlobId
    handle: object  # the back end's own


# ---- changes: a batch of them happens wholly or not at all ----


@dataclass(frozen=True, slots=True)
class KeepContainer:
    """Make ``descriptor`` the one of its container."""

    owner: bytes
    descriptor: Descriptor
    is_new: bool


@dataclass(frozen=True, slots=True)
class Publish:
    """Make ``record`` the current version of ``key``.

    ``staged``: its bytes; None for a tombstone. ``previous``: the current version until now; where
    it is no tombstone it stays readable by its exact version, as one superseded at ``at_ms``.
    """

    key: ObjectKey
    record: ObjectRecord
    previous: ObjectRecord | None
    staged: Staged | None
    at_ms: int

    @property
    def adds(self) -> Usage:
        """By how much the account's usage grows."""
        replaces_tombstone = self.previous is not None and self.previous.deleted
        return Usage(self.record.size, 0 if replaces_tombstone else 1)


@dataclass(frozen=True, slots=True)
class Refresh:
    """Keep ``staged`` instead of the bytes that the current version of ``key`` has now.

    They are the same bytes; a copy that has been damaged on the disk is replaced so.
    """

    key: ObjectKey
    staged: Staged


@dataclass(frozen=True, slots=True)
class RaiseFence:
    """Remember the highest epoch that was seen of a job."""

    owner: bytes
    epoch: JobEpoch
    at_ms: int


Change = KeepContainer | Publish | Refresh | RaiseFence


# ---- what a back end answers ----


@dataclass(frozen=True, slots=True)
class Found:
    """What stands under a key, and the fence of the job that asks."""

    has_container: bool
    current: ObjectRecord | None = None
    fence: tuple[int, int] = (0, 0)  # (allocation, attempt)


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Times in milliseconds since the epoch; what is older may go."""

    superseded_ms: int
    tombstones_ms: int
    fences_ms: int


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep has taken away, by account, and whether there is more to take."""

    freed: dict[bytes, Usage]
    more: bool


@dataclass(frozen=True, slots=True)
class ContainerEntry:
    """A container with what it holds on this node."""

    descriptor: Descriptor
    objects: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """Some objects in path order; ``after``: where the next page begins, None at the end."""

    rows: tuple[tuple[str, ObjectRecord], ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class ObjectSpan:
    """Which objects a list asks for: paths with ``prefix`` behind ``after``."""

    prefix: str = ""
    after: str = ""
    tombstones: bool = False
