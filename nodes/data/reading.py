"""The requests that change nothing: bytes, versions and lists.

They read what is committed; the object table is not asked.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from alpyne_grid.nodes.data.asking import Gate, checked, key_of, label_of, refuse, version_of
from alpyne_grid.nodes.data.backends.base import PAGE, Content, Data, DataBackend
from alpyne_grid.nodes.data.records import (
    ContainerEntry,
    ObjectCorrupt,
    ObjectKey,
    ObjectRecord,
    ObjectSpan,
    Version,
)
from alpyne_grid.nodes.data.rules import no_container
from alpyne_grid.nodes.data.traffic import Traffic
from alpyne_grid.nodes.data.writing import container_info, object_info
from alpyne_grid.wire import Request

from alpyne_proto.codec import encode_row
from alpyne_proto.container import NameRefused, check_prefix
from alpyne_proto.errors import ErrorCode
from alpyne_proto.glob import Glob
from alpyne_proto.messages import data as messages
from alpyne_proto.messages.control import RowsFollow
from alpyne_proto.registry import State
from alpyne_proto.ticket import Verb


class Reading:
    """Handlers of the reading requests."""

    def __init__(self, backend: DataBackend, gate: Gate, traffic: Traffic) -> None:
        self._backend = backend
        self._gate = gate
        self._traffic = traffic

    async def get_container(self, request: Request) -> None:
        """Answer with the descriptor."""
        message: messages.GetContainer = request.message
        found = await self._backend.container(request.connection.account, message.container_id)
        if found is None:
            raise refuse(ErrorCode.NOT_FOUND, no_container(message.container_id))
        request.reply_nowait(container_info(found))

    async def list_containers(self, request: Request) -> None:
        """Answer with a row for each container of the account."""
        owner = request.connection.account
        await request.reply(RowsFollow(), self._container_rows(owner))

    async def stat(self, request: Request) -> None:
        """Answer with the newest version, tombstones too; counter 0 where there is none."""
        key = key_of(self._gate, request, Verb.READ)
        found = await self._backend.look_up(key, b"")
        if not found.has_container:
            raise refuse(ErrorCode.NOT_FOUND, no_container(key.container_id))
        current = found.current
        request.reply_nowait(object_info(current) if current else messages.ObjectInfo(0))

    async def get(self, request: Request) -> None:
        """Answer with bytes of a version; nothing is sent before its first bytes are checked."""
        message: messages.GetObject = request.message
        key = key_of(self._gate, request, Verb.READ)
        version = None if not message.counter else version_of(message.counter, message.writer)
        content = await self._open(key, version)
        record = content.record
        if message.offset > record.size:
            raise refuse(
                ErrorCode.BAD_REQUEST,
                f"object {key.path!a}: expected an offset of at most its {record.size} bytes, got "
                f"{message.offset}",
            )
        length = min(message.length, record.size - message.offset)
        chunks = content.chunks(message.offset, length)
        assert isinstance(chunks, AsyncGenerator), "its end must give back what it holds"
        async with contextlib.aclosing(chunks):
            try:
                first = await anext(chunks, b"")
            except ObjectCorrupt as error:
                raise refuse(ErrorCode.CORRUPT, str(error)) from None
            if len(first) == length:
                self._traffic.sent(key.owner, label_of(request), length)
                await request.reply(object_info(record), first)
            else:
                await self._send(request, key, record, first, chunks)

    async def list_objects(self, request: Request) -> None:
        """Answer with a row for each object that is asked for, in path order."""
        message: messages.ListObjects = request.message
        container_id = message.container_id
        owner = self._gate.authorize(request, container_id, message.prefix, Verb.LIST)
        for name in (message.prefix, message.after):
            checked(check_prefix, name)
        glob = _glob(message.pattern)
        accepts = _all_of(self._covered(request), glob.matches if glob else None)
        prefix = _longer_prefix(message.prefix, glob.prefix if glob else "")
        if await self._backend.container(owner, container_id) is None:
            raise refuse(ErrorCode.NOT_FOUND, no_container(container_id))
        rows = self._object_rows(owner, message, prefix, accepts)
        await request.reply(RowsFollow(), rows)

    # ---- parts ----

    async def _open(self, key: ObjectKey, version: Version | None) -> Content:
        found = await self._backend.open(key, version)
        if found is None and await self._backend.container(key.owner, key.container_id) is None:
            raise refuse(ErrorCode.NOT_FOUND, no_container(key.container_id))
        if found is None or isinstance(found, ObjectRecord):
            raise refuse(ErrorCode.NOT_FOUND, f"object {key.path!a}: {_absent(found, version)}")
        return found

    async def _send(
        self,
        request: Request,
        key: ObjectKey,
        record: ObjectRecord,
        first: Data,
        chunks: AsyncIterator[Data],
    ) -> None:
        label = label_of(request)
        writer = request.start_reply(object_info(record))
        try:
            chunk = first
            while chunk:
                await writer.write(chunk)
                self._traffic.sent(key.owner, label, len(chunk))
                chunk = await anext(chunks, b"")
        except ObjectCorrupt as error:
            writer.reset(ErrorCode.CORRUPT, str(error))
            return
        writer.end_nowait()

    def _covered(self, request: Request) -> Callable[[str], bool] | None:
        """Return which paths a bearer may see: a prefix covers whole segments."""
        if request.connection.state is State.OPEN:
            return None
        ticket = self._gate.ticket_of(request)
        if ticket is None or not ticket.prefix:
            return None
        prefix = ticket.prefix
        return lambda path: path == prefix or path.startswith(prefix + "/")

    async def _object_rows(
        self,
        owner: bytes,
        message: messages.ListObjects,
        prefix: str | None,
        accepts: Callable[[str], bool] | None,
    ) -> AsyncIterator[bytes]:
        left = message.limit or None
        after: str | None = message.after
        while after is not None and prefix is not None:
            span = ObjectSpan(prefix, after, message.tombstones)
            most = PAGE if left is None else min(PAGE, left)
            page = await self._backend.objects(owner, message.container_id, span, accepts, most)
            if page is None:
                return
            if page.rows:
                yield b"".join(encode_row(_object_row(*row)) for row in page.rows)
            after = page.after
            if left is not None:
                left -= len(page.rows)
                if not left:
                    return

    async def _container_rows(self, owner: bytes) -> AsyncIterator[bytes]:
        after = b""
        while entries := await self._backend.containers(owner, after):
            yield b"".join(encode_row(_container_row(entry)) for entry in entries)
            after = entries[-1].descriptor.container_id


def _absent(found: ObjectRecord | None, version: Version | None) -> str:
    if found is not None:
        return f"deleted as version {found.version}"
    if version is None:
        return "not in this container on this node"
    return (
        f"no version {version} on this node (superseded ones are kept for an hour); read the "
        "newest, or ask another member"
    )


def _glob(pattern: str) -> Glob | None:
    try:
        return Glob(pattern) if pattern else None
    except NameRefused as error:
        raise refuse(ErrorCode.BAD_REQUEST, str(error)) from None


def _all_of(*checks: Callable[[str], bool] | None) -> Callable[[str], bool] | None:
    wanted = [check for check in checks if check is not None]
    if not wanted:
        return None
    return wanted[0] if len(wanted) == 1 else lambda path: all(check(path) for check in wanted)


def _longer_prefix(prefix: str, literal: str) -> str | None:
    """Return what paths begin with that begin with both; None where none can."""
    if literal.startswith(prefix):
        return literal
    return prefix if prefix.startswith(literal) else None


def _object_row(path: str, record: ObjectRecord) -> messages.ObjectRow:
    return messages.ObjectRow(
        path, *record.version, record.size, record.sha256, record.deleted, record.modified_at_ms
    )


def _container_row(entry: ContainerEntry) -> messages.ContainerRow:
    kept = entry.descriptor
    return messages.ContainerRow(
        kept.container_id,
        kept.name,
        kept.copies,
        kept.members,
        *kept.version,
        entry.objects,
        entry.size_bytes,
    )
