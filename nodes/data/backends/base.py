"""The seam between the object table and what keeps its bytes and names.

    table --commit(changes)--> back end     names, versions, tombstones, fences, usage: durable
    service --stage(), feed, finish--> back end     bytes without a name: durable, then published
    service --open(), chunks--> back end     bytes that were checked

One data node is the only writer of its back end's store; it alone decides what may be written.
``alpyne_grid.tools.contracts.data`` is the suite that every back end passes. All methods are
called on the event loop's thread and must not hold it: disk and hashing belong in threads.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from alpyne_grid.nodes.data.records import (
    Change,
    ContainerEntry,
    Cutoffs,
    Descriptor,
    Found,
    ObjectKey,
    ObjectPage,
    ObjectRecord,
    ObjectSpan,
    Staged,
    Swept,
    Usage,
    Version,
)
from alpyne_grid.nodes.store import CommitStore

Data = bytes | bytearray | memoryview
PAGE = 200  # rows of one page: about a millisecond of encoding


class Stage(Protocol):
    """One body on its way in. It is a sink that ``BodyReader.pour`` pours into."""

    def feed(self, data: Data) -> bool:
        """Take bytes, which must not change any more; return whether there is room for more.

        Raises StoreFailed or OSError where they cannot be kept.
        """

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, on the loop, when there is room, or when writing has failed."""

    async def finish(self) -> Staged:
        """Return when all bytes are durable. Raises StoreFailed; then nothing is left behind."""

    async def discard(self) -> None:
        """Forget the bytes and wait until no thread uses them; after ``finish`` without effect."""


class Content(Protocol):
    """The bytes of one version, open for reading."""

    @property
    def record(self) -> ObjectRecord:
        """The version."""

    def chunks(self, offset: int, length: int) -> AsyncIterator[Data]:
        """Yield bytes ``offset`` to ``offset + length`` (both within the size), each piece checked.

        Raises ObjectCorrupt instead of a piece that is damaged or missing. Iterating to the end,
        or ``aclose``, gives back what it holds.
        """


class DataBackend(Protocol):
    """Keeps the containers and objects of one data node."""

    async def check(self) -> str:
        """Say in a line with what it would work; called instead of ``start``, changes nothing.

        Raises ConfigError, StateError or OSError with what to do where it could not start.
        """

    async def start(self) -> None:
        """Recover what an earlier run left unfinished. Raises ConfigError, StateError, OSError."""

    async def close(self) -> None:
        """Give back threads, files and connections."""

    # ---- names ----

    async def usages(self) -> Mapping[bytes, Usage]:
        """Return what each account keeps, by its key."""

    async def look_up(self, key: ObjectKey, job_id: bytes) -> Found:
        """Return what stands under ``key`` and the fence of ``job_id`` (empty: none)."""

    async def container(self, owner: bytes, container_id: bytes) -> Descriptor | None:
        """Return the descriptor, or None where ``owner`` has no such container here."""

    async def containers(
        self, owner: bytes, after: bytes, limit: int = PAGE
    ) -> Sequence[ContainerEntry]:
        """Return at most ``limit`` containers in order of their ids, with ids above ``after``."""

    async def objects(
        self,
        owner: bytes,
        container_id: bytes,
        span: ObjectSpan,
        accepts: Callable[[str], bool] | None,
        limit: int = PAGE,
    ) -> ObjectPage | None:
        """Return at most ``limit`` objects of ``span`` whose path ``accepts`` takes.

        The order is that of the paths' UTF-8 bytes. A page may be short, or empty, and yet not the
        last: the next one is asked for with ``after``. None: no such container.
        """

    async def commit(self, changes: Sequence[Change]) -> None:
        """Return when ``changes`` are durable, all of them. Raises StoreFailed: none happened.

        Commits happen in the order of the calls.
        """

    async def sweep(self, cutoffs: Cutoffs, limit: int) -> Swept:
        """Take away superseded versions, tombstones and fences before ``cutoffs``.

        At most ``limit`` of each; bytes that no version names any more go too. A fence is a row
        of its account's usage.
        """

    # ---- bytes ----

    def stage(self, owner: bytes, size: int) -> Stage:
        """Begin to take a body of ``size`` bytes for ``owner``.

        Raises StoreFailed where there is no room for so many.
        """

    async def discard(self, staged: Staged) -> None:
        """Forget a staged body that was not published; one that a version names is kept."""

    async def open(self, key: ObjectKey, version: Version | None) -> Content | ObjectRecord | None:
        """Return the bytes of the current version (None) or of exactly ``version``.

        A tombstone is returned as its record. None: there is no such version, or no container.
        """

    # ---- health ----

    async def corrupt(self, owner: bytes, limit: int) -> Sequence[ObjectKey]:
        """Return objects of ``owner`` that were found damaged and not put again since."""


@dataclass(frozen=True, slots=True)
class BackendSetup:
    """What every back end is made from."""

    folder: Path  # its own folder inside the state folder
    store: CommitStore  # the node's; the embedded back end keeps its rows there
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of its administrator


class BackendFactory(Protocol):
    """What an entry point of the group ``alpyne.data_backends`` names.

    An attribute ``options``, where it has one, names the options that it takes.
    """

    def __call__(self, setup: BackendSetup) -> DataBackend:
        """Return a back end that has started nothing yet."""
