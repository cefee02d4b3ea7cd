"""The connection to the server: what every operation asks of it, and errors in words.

Writes are acknowledged by a majority of the members that have them in their journals. Reads come
from the primary, of what a majority has, and never from before the last commit: right after an
election a primary may know less to be with the majority than what it was acknowledged for, so reads
carry the time of the last commit and wait for it (a causally consistent session).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import pymongo
from alpyne_grid.nodes.data.backends.mongo.schema import Doc
from alpyne_grid.nodes.data.backends.mongo.settings import FORM, MongoSettings
from alpyne_grid.nodes.errors import ConfigError
from alpyne_grid.nodes.store import StoreFailed
from bson.errors import BSONError
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

T = TypeVar("T")
Collection = AsyncCollection[Doc]
Session = AsyncClientSession

WRITES = WriteConcern("majority", j=True)
READS = ReadConcern("majority")
START_S = 15.0  # how long a start waits for a primary
RETRY_S = 0.2
_REASON_MAX = 200  # characters of what the server said
# A primary that steps down or ends; as drivers' specifications have them (retryable writes).
_PASSING = frozenset({6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436})
_UNAUTHORIZED, _AUTHENTICATION_FAILED = 13, 18
# A write that was not acknowledged may have happened; whoever needs to know asks again.
_NOT_ACKNOWLEDGED = "nothing was acknowledged; try again later"


class MongoLink:
    """A client of one database; make and close it on one loop."""

    def __init__(self, settings: MongoSettings) -> None:
        """Connect when the first operation needs it. Raises ConfigError for a URI with errors."""
        self.settings = settings
        self._seen: Timestamp | None = None  # the cluster's time of the last commit
        try:
            self.client: AsyncMongoClient[Doc] = AsyncMongoClient(
                settings.uri, **settings.client_options
            )
        except InvalidURI:
            # Its message may hold a part of a password that is not percent-encoded.
            raise ConfigError(
                f"uri: expected {FORM}, with user and password percent-encoded (RFC 3986)"
            ) from None
        except (ConfigurationError, ValueError, TypeError, OSError) as error:
            raise ConfigError(f"uri: {settings.without_secrets(str(error))}") from None
        self.database = self.client.get_database(
            settings.database,
            read_preference=ReadPreference.PRIMARY,
            write_concern=WRITES,
            read_concern=READS,
        )

    def __getitem__(self, collection: str) -> Collection:
        """Return a collection with the concerns above."""
        return self.database[collection]

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()

    @contextlib.contextmanager
    def deadline(self, doing: str, within_s: float | None = None) -> Iterator[None]:
        """Let what is inside take no longer than a pause; raise StoreFailed where it fails.

        doing: for messages, as "reading a list".
        """
        try:
            with pymongo.timeout(within_s or self.settings.pause_s):
                yield
        except (PyMongoError, BSONError, OverflowError) as error:
            raise self.failed(error, doing) from error

    @contextlib.asynccontextmanager
    async def reading(self, doing: str) -> AsyncIterator[Session]:
        """Open a session whose reads see every commit before it."""
        with self.deadline(doing):
            async with self.client.start_session(causal_consistency=True) as session:
                self.advance(session)
                yield session

    def advance(self, session: Session) -> None:
        """Let what is read in ``session`` show every commit until now."""
        if self._seen is not None:
            session.advance_operation_time(self._seen)

    def saw(self, session: Session) -> None:
        """Let reads from now on see what was written in ``session``."""
        seen = session.operation_time
        if seen is not None and (self._seen is None or seen > self._seen):
            self._seen = seen

    async def patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Return what ``act`` returns; it is begun again where an election interrupts it.

        For what is done at a start and may be done twice; not all of it is repeated by the driver.
        Raises ConfigError or OSError, which say what to do.
        """
        until = asyncio.get_running_loop().time() + START_S
        try:
            with pymongo.timeout(START_S):
                while True:
                    try:
                        return await act()
                    except PyMongoError as error:
                        if not may_pass(error) or is_over(until):
                            raise
                    await asyncio.sleep(RETRY_S)
        except PyMongoError as error:
            raise self.refused_start(error) from error

    def failed(self, error: Exception, doing: str) -> StoreFailed:
        """Return what to tell a client, and the log, about a driver's error."""
        settings = self.settings
        if isinstance(error, ConnectionFailure) or getattr(error, "timeout", False):
            return StoreFailed(
                f"{settings.place}: no primary acknowledged within {settings.pause_s:g} s while "
                f"{doing} ({self.reason(error)}); {_NOT_ACKNOWLEDGED}, this node goes on by itself "
                "when the server is back"
            )
        return StoreFailed(
            f"{settings.place}: failed while {doing} ({self.reason(error)}); {_NOT_ACKNOWLEDGED}"
        )

    def refused_start(self, error: PyMongoError) -> ConfigError | OSError:
        """Return why a node cannot start with this server, and what to do."""
        settings = self.settings
        code = error.code if isinstance(error, OperationFailure) else None
        if code == _AUTHENTICATION_FAILED:
            return ConfigError(
                f"{settings.place}: refused user {settings.user!r}: its name or password is wrong, "
                "or it is kept in another database than the one that authSource=DATABASE in the "
                "URI names (default: admin)"
            )
        if code == _UNAUTHORIZED:
            return ConfigError(
                f"{settings.place}: user {settings.user!r} may not use database "
                f"{settings.database!r}; let an administrator grant it: "
                f"db.getSiblingDB('admin').grantRolesToUser({settings.user!r}, "
                f"[{{role: 'readWrite', db: {settings.database!r}}}])"
            )
        if isinstance(error, ConfigurationError):
            return ConfigError(f"{settings.place}: {self.reason(error)}")
        if isinstance(error, ServerSelectionTimeoutError):
            return OSError(
                f"{settings.place}: no primary within {START_S:g} s ({self.reason(error)}); start "
                "the members that are down, a majority of them is needed"
            )
        return OSError(f"{settings.place}: {self.reason(error)}; see the server's log")

    def reason(self, error: Exception) -> str:
        """Return a driver's error as a few words without secrets."""
        text = str(error)
        if isinstance(error, OperationFailure) and error.details:
            text = str(error.details.get("errmsg") or text)
        elif isinstance(error, ServerSelectionTimeoutError):
            text = self._unreachable() or text.partition(", Timeout:")[0]
        text = self.settings.without_secrets(" ".join(text.split()))
        return text[:_REASON_MAX] or type(error).__name__

    def _unreachable(self) -> str:
        """Say of each member why it is not the primary."""
        said = []
        for address, member in self.client.topology_description.server_descriptions().items():
            name = ":".join(str(part) for part in address if part is not None)
            words = f"{member.error}".partition(" (configured timeouts")[0] if member.error else ""
            said.append(words if name in words else f"{name}: {words or member.server_type_name}")
        return ", ".join(said)


def may_pass(error: PyMongoError) -> bool:
    """Return whether an error comes of an election or a lost connection, not of what was asked."""
    if isinstance(error, ServerSelectionTimeoutError):
        return False  # it has been waited for
    if isinstance(error, ConnectionFailure):
        return True
    return isinstance(error, OperationFailure) and error.code in _PASSING


def is_over(deadline: float) -> bool:
    """Return whether ``deadline`` (the loop's time) has passed."""
    return asyncio.get_running_loop().time() >= deadline
