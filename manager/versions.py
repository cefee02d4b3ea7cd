"""Versions and members of containers, without I/O: which version is newest, whom to ask and write.

A version is (counter, writer), totally ordered. A container with n members and k copies has each
version on at least k of them, so that any n - k + 1 answers hold the newest one.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alpyne_proto.messages.data import ContainerInfo, ObjectInfo, PutContainer

Version = tuple[int, bytes]
NONE: Version = (0, b"")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A container: who keeps its objects, and in how many copies."""

    container_id: bytes
    name: str
    copies: int
    members: tuple[bytes, ...]
    version: Version

    @classmethod
    def of(cls, info: ContainerInfo) -> "Descriptor":
        """Return what a node says of a container."""
        version = (info.counter, info.writer)
        return cls(info.container_id, info.name, info.copies, info.members, version)

    def request(self) -> PutContainer:
        """Return what tells a member of the container."""
        return PutContainer(self.container_id, self.name, self.copies, self.members, *self.version)

    @property
    def answers_needed(self) -> int:
        """How many members must answer so that the newest version is among their answers."""
        return len(self.members) - self.copies + 1


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest version among answers, and who has it. ``info`` None: nobody has any."""

    info: ObjectInfo | None
    holders: tuple[bytes, ...]

    @property
    def counter(self) -> int:
        """The version's counter; 0 where there is none."""
        return self.info.counter if self.info is not None else 0

    @property
    def exists(self) -> bool:
        """Whether there is an object: a version that is no tombstone."""
        return self.info is not None and not self.info.deleted


def version_of(info: ObjectInfo) -> Version:
    """Return an answer's version."""
    return info.counter, info.writer


def newest(answers: Mapping[bytes, ObjectInfo]) -> Newest:
    """Return the newest version among the answers of members, by their keys."""
    found = [info for info in answers.values() if info.counter]
    if not found:
        return Newest(None, ())
    best = max(found, key=version_of)
    version = version_of(best)
    return Newest(best, tuple(k for k, info in answers.items() if version_of(info) == version))


def write_order(members: Sequence[bytes], path: str) -> list[bytes]:
    """Return the members in the order in which an object is offered to them.

    It is the same for all managers (rendezvous hashing), so that conditional writes of a path meet
    at the same member, and spreads a container's objects evenly over its members.
    """
    encoded = path.encode()
    return sorted(members, key=lambda key: hashlib.sha256(key + encoded).digest())


def read_order(holders: Iterable[bytes], near: Iterable[bytes], path: str) -> list[bytes]:
    """Return holders in the order in which they are asked: those on this machine first."""
    close = set(near)
    spread = write_order(list(holders), path)
    return sorted(spread, key=lambda key: key not in close)
