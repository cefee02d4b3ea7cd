"""A job's output: stdout and stderr as lines, while it runs and after it."""

import asyncio
import codecs
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from alpyne_grid.manager.errors import NodeUnreachable
from alpyne_grid.wire import Answer

from alpyne_proto.errors import ConnectionLost, ErrorCode, RequestFailed
from alpyne_proto.messages.compute import OutputFollows, OutputRow

LINE_MAX = 1 << 20  # characters; a longer line is handed out in pieces
RETRY_S = 0.1
STDOUT, STDERR = 1, 2

Ask = Callable[[int], Awaitable[Answer | None]]


class OutputLine(str):
    """One line without its end. ``descriptor``: 1 = stdout, 2 = stderr."""

    __slots__ = ("descriptor",)
    descriptor: int

    def __new__(cls, text: str, descriptor: int) -> Self:
        line = super().__new__(cls, text)
        line.descriptor = descriptor
        return line


@dataclass(slots=True)
class _Stream:
    """The unfinished line of one descriptor."""

    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    rest: str = ""

    def take(self, data: bytes, *, last: bool = False) -> list[str]:
        """Return the lines that ``data`` completes; with ``last`` also what has no end."""
        text = self.rest + self.decoder.decode(data, last)
        lines = text.split("\n")
        self.rest = lines.pop()
        while len(self.rest) > LINE_MAX:
            lines.append(self.rest[:LINE_MAX])
            self.rest = self.rest[LINE_MAX:]
        if last and self.rest:
            lines.append(self.rest)
            self.rest = ""
        return [line.removesuffix("\r") for line in lines]


class OutputReader:
    """Asynchronous iterator over a job's output lines.

    ``ask(offset)`` asks the job's node for output from that byte on, and returns None where the job
    has no node yet. ``ended()``: whether the job is done. Where the connection is lost, reading
    goes on at the byte where it stopped; a new execution is read from its first byte.
    """

    def __init__(self, ask: Ask, ended: Callable[[], bool], *, follow: bool) -> None:
        self._ask = ask
        self._ended = ended
        self._follow = follow
        self._lines: deque[OutputLine] = deque()
        self._chunks: AsyncIterator[tuple[int, bytes]] = self._read()
        self._streams = {STDOUT: _Stream(), STDERR: _Stream()}
        self._epoch: tuple[int, int] | None = None
        self._offset = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OutputLine:
        while not self._lines:
            try:
                descriptor, data = await anext(self._chunks)
            except StopAsyncIteration:
                self._finish()
                if not self._lines:
                    raise
                break
            stream = self._streams.setdefault(descriptor, _Stream())
            self._lines += (OutputLine(line, descriptor) for line in stream.take(data))
        return self._lines.popleft()

    async def next_lines(self) -> list[OutputLine]:
        """Return all lines that are here, at least one; an empty list at the end."""
        try:
            lines = [await anext(self)]
        except StopAsyncIteration:
            return []
        lines += self._lines
        self._lines.clear()
        return lines

    def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        """Iterate over (descriptor, bytes) as they come, instead of lines."""
        return self._chunks

    def _finish(self) -> None:
        for descriptor, stream in self._streams.items():
            self._lines += (OutputLine(line, descriptor) for line in stream.take(b"", last=True))

    async def _read(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            was_ended = self._ended()
            try:
                answer = await self._ask(self._offset)
                if answer is not None:
                    async for piece in self._rows(answer):
                        yield piece
                    if not self._follow or was_ended:
                        return
            except (ConnectionLost, NodeUnreachable):
                if not self._follow:
                    raise
            except RequestFailed as error:
                if error.code is not ErrorCode.NOT_FOUND or was_ended or not self._follow:
                    raise
            if was_ended or not self._follow:
                return
            await asyncio.sleep(RETRY_S)

    async def _rows(self, answer: Answer) -> AsyncIterator[tuple[int, bytes]]:
        head = answer.message
        assert isinstance(head, OutputFollows)
        epoch = (head.allocation, head.attempt)
        if self._epoch is not None and epoch != self._epoch and self._offset:
            answer.body.cancel()
            self._epoch, self._offset = epoch, 0
            return
        self._epoch = epoch
        async for row, data in answer.body.rows(OutputRow):
            assert isinstance(row, OutputRow)
            skip = self._offset - row.offset  # bytes that came before the connection was lost
            if skip < len(data):
                piece = data[max(0, skip) :]
                self._offset = row.offset + len(data)
                yield row.descriptor, piece
