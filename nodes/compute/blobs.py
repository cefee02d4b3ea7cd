"""Bundles and large payloads: files under their hash, one folder per account.

    blobs/<account, hex>/<SHA-256, hex>

The folder is the index: a name appears by a rename, after the bytes were flushed and checked. A
blob that no unfinished job names stays for a day, so that the next jobs with the same code need
not send it again, and goes sooner where its account needs the room.
"""

import asyncio
import contextlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from alpyne_grid.nodes.store import publish_file
from alpyne_grid.wire import BodyReader, FileSink

from alpyne_grid.durable import sync_folder
from alpyne_proto.errors import ErrorCode, Outcome, RequestFailed

UNUSED_S = 86_400.0  # a blob without a job stays so long after its last use
ARRIVING_S = 600.0  # and at least so long, even where room is needed: its jobs are on their way
BLOBS_MAX = 100_000  # of one account: many tiny ones take room that no quota of bytes counts
_PART = ".part-"


@dataclass(slots=True)
class _Blob:
    size: int
    used_s: float  # wall time of its last use


class BlobStore:
    """The blobs of one node; use from the loop's thread."""

    def __init__(self, folder: Path, clock_s: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock_s = clock_s
        self._blobs: dict[bytes, dict[bytes, _Blob]] = {}
        self._kept: Counter[bytes] = Counter()  # bytes by account, arriving ones included

    def open(self) -> None:
        """Read the folder, make it where it is missing, and delete what had not arrived whole."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in self._folder.iterdir():
            account = _unhex(folder.name)
            if account is None or not folder.is_dir():
                continue
            blobs = self._blobs.setdefault(account, {})
            for file in folder.iterdir():
                sha256 = _unhex(file.name)
                if sha256 is not None:
                    status = file.stat()
                    blobs[sha256] = _Blob(status.st_size, status.st_mtime)
                    self._kept[account] += status.st_size
                elif file.name.startswith(_PART):
                    file.unlink()

    def kept(self, account: bytes) -> int:
        """Return the bytes that the account keeps, those included that are arriving."""
        return self._kept[account]

    def missing(self, account: bytes, hashes: Iterable[bytes]) -> tuple[bytes, ...]:
        """Return those of ``hashes`` that the account has not sent; the others count as used."""
        blobs = self._blobs.get(account, {})
        missing = []
        for sha256 in hashes:
            blob = blobs.get(sha256)
            if blob is None:
                missing.append(sha256)
            else:
                blob.used_s = self._clock_s()
        return tuple(missing)

    def path(self, account: bytes, sha256: bytes) -> Path:
        """Return where a blob lies, or would lie."""
        return self._folder / account.hex() / sha256.hex()

    async def put(
        self,
        account: bytes,
        sha256: bytes,
        size: int,
        body: BodyReader,
        *,
        quota_bytes: int | None,
        used_elsewhere: int,
        in_use: Callable[[], set[bytes]],
    ) -> None:
        """Take a blob from ``body`` and return when it is durable.

        ``quota_bytes``: None = no limit. ``in_use``: the hashes that the account's jobs name.
        Raises RequestFailed: QUOTA_EXCEEDED (too many bytes, or blobs), BAD_REQUEST for another
        size, DIGEST_MISMATCH.
        """
        if not self.missing(account, (sha256,)):
            body.cancel(ErrorCode.NO_ERROR, "this blob is here already")
            return
        self._make_room(account, size, quota_bytes, used_elsewhere, in_use)
        self._kept[account] += size
        try:
            await self._receive(account, sha256, size, body)
        except BaseException:
            self._kept[account] -= size
            raise
        blobs = self._blobs.setdefault(account, {})
        if sha256 in blobs:  # it arrived twice at the same time
            self._kept[account] -= size
        blobs[sha256] = _Blob(size, self._clock_s())

    async def drop_unused(self, in_use: Callable[[bytes], set[bytes]]) -> None:
        """Delete what nobody has used for a day; ``in_use``: an account's hashes that jobs name."""
        now_s = self._clock_s()
        for account, blobs in list(self._blobs.items()):
            named = in_use(account)
            for sha256, blob in list(blobs.items()):
                if sha256 not in named and now_s - blob.used_s > UNUSED_S:
                    self._delete(account, sha256)
            await asyncio.sleep(0)

    def _make_room(
        self,
        account: bytes,
        size: int,
        quota_bytes: int | None,
        used_elsewhere: int,
        in_use: Callable[[], set[bytes]],
    ) -> None:
        kept = self._blobs.get(account, {})
        lacking = 0
        if quota_bytes is not None:
            lacking = self.kept(account) + used_elsewhere + size - quota_bytes
        if lacking <= 0 and len(kept) < BLOBS_MAX:
            return
        named = in_use()
        now_s = self._clock_s()
        for sha256, blob in sorted(kept.items(), key=lambda entry: entry[1].used_s):
            if lacking <= 0 and len(kept) < BLOBS_MAX:
                return
            if sha256 not in named and now_s - blob.used_s > ARRIVING_S:
                self._delete(account, sha256)
                lacking -= blob.size
        if len(kept) >= BLOBS_MAX:
            raise RequestFailed(
                ErrorCode.QUOTA_EXCEEDED,
                f"blob: the account keeps {BLOBS_MAX} here, of which none has been unused for "
                f"{ARRIVING_S:.0f} s; send small payloads with their jobs, or wait",
                retryable=True,
            )
        if lacking > 0:
            raise RequestFailed(
                ErrorCode.QUOTA_EXCEEDED,
                f"blob: {size} bytes are {lacking} more than the account's quota of {quota_bytes} "
                "bytes leaves; settle results, or ask the node's administrator for a larger quota",
                retryable=True,
            )

    async def _receive(self, account: bytes, sha256: bytes, size: int, body: BodyReader) -> None:
        target = self.path(account, sha256)
        if not target.parent.exists():
            target.parent.mkdir(mode=0o700)
            sync_folder(self._folder)
        part = target.with_name(f"{_PART}{secrets.token_hex(8)}")
        sink = FileSink(part)
        try:
            try:
                await body.pour(_Bounded(sink, size))
            except BaseException:
                await sink.abort()
                raise
            await sink.finish()
            _check(sink, sha256, size)
            await asyncio.to_thread(publish_file, part, target)
        except OSError as error:
            raise RequestFailed(
                ErrorCode.STORE_FAILED,
                f"blob: the node could not store it ({error.strerror}); try again later",
                retryable=True,
            ) from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    def _delete(self, account: bytes, sha256: bytes) -> None:
        self._kept[account] -= self._blobs[account].pop(sha256).size
        with contextlib.suppress(FileNotFoundError):
            self.path(account, sha256).unlink()


class _Bounded:
    """A sink that takes no more than a number of bytes."""

    def __init__(self, sink: FileSink, size: int) -> None:
        self._sink = sink
        self._size = size

    def feed(self, data: bytes | bytearray | memoryview) -> bool:
        """Take bytes; RequestFailed for more than were announced."""
        if self._sink.size + len(data) > self._size:
            raise _wrong_size(self._size, "more")
        return self._sink.feed(data)

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back when there is room."""
        self._sink.when_room(callback)


def _check(sink: FileSink, sha256: bytes, size: int) -> None:
    if sink.size != size:
        raise _wrong_size(size, str(sink.size))
    if sink.sha256 != sha256:
        raise RequestFailed(
            ErrorCode.DIGEST_MISMATCH,
            "blob: what arrived has another SHA-256 than announced; send it again",
            retryable=True,
        )


def _wrong_size(size: int, got: str) -> RequestFailed:
    return RequestFailed(
        ErrorCode.BAD_REQUEST,
        f"blob: {size} bytes were announced, got {got}",
        outcome=Outcome.NOT_STARTED,
    )


def _unhex(name: str) -> bytes | None:
    if len(name) != 64:
        return None
    try:
        return bytes.fromhex(name)
    except ValueError:
        return None
