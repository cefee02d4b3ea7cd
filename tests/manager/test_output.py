"""Output: lines out of pieces, once each and in order, over lost connections and new executions."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from alpyne_grid.manager import output
from alpyne_grid.manager.output import LINE_MAX, OutputReader

from alpyne_proto.errors import ConnectionLost, ErrorCode, RequestFailed
from alpyne_proto.messages.compute import OutputFollows, OutputRow

Piece = tuple[int, int, bytes]  # descriptor, offset, data


class FakeAnswer:
    def __init__(
        self, pieces: Iterable[Piece | Exception], epoch: tuple[int, int] = (1, 1)
    ) -> None:
        self.message = OutputFollows(*epoch)
        self.body = self
        self._pieces = pieces

    async def rows(self, *kinds: object) -> AsyncIterator[tuple[OutputRow, bytes]]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield OutputRow(piece[0], piece[1]), piece[2]

    def cancel(self) -> None:
        """Nothing more is wanted."""


def read(*answers: Any, follow: bool = True) -> tuple[list[tuple[str, int]], list[int]]:
    """Return the lines with their descriptors, and the offsets that were asked for."""
    asked: list[int] = []
    waiting = list(answers)

    async def ask(offset: int) -> Any:
        asked.append(offset)
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main() -> list[tuple[str, int]]:
        reader = OutputReader(ask, lambda: len(waiting) <= 1, follow=follow)
        return [(line, line.descriptor) async for line in reader]

    output.RETRY_S, before = 0.0, output.RETRY_S
    try:
        return asyncio.run(main()), asked
    finally:
        output.RETRY_S = before


def test_lines_are_whole_whatever_pieces_they_come_in() -> None:
    lines, _ = read(FakeAnswer([(1, 0, b"on"), (1, 2, b"e\ntw"), (1, 6, b"o\r\nrest")]))
    assert lines == [("one", 1), ("two", 1), ("rest", 1)]


def test_stdout_and_stderr_are_kept_apart_in_the_order_of_their_ends() -> None:
    lines, _ = read(FakeAnswer([(1, 0, b"out"), (2, 3, b"err\n"), (1, 7, b"put\n")]))
    assert lines == [("err", 2), ("output", 1)]


def test_letters_are_whole_when_their_bytes_come_apart() -> None:
    data = "äöü€\n".encode()
    pieces = [(1, at, data[at : at + 1]) for at in range(len(data))]
    assert read(FakeAnswer(pieces))[0] == [("äöü€", 1)]


def test_bytes_that_are_no_text_are_shown_as_replaced() -> None:
    assert read(FakeAnswer([(1, 0, b"\xff\xfe\n")]))[0] == [("\ufffd\ufffd", 1)]


def test_reading_goes_on_at_the_byte_where_the_connection_was_lost() -> None:
    lost = ConnectionLost("gone")
    lines, asked = read(
        FakeAnswer([(1, 0, b"one\ntw"), lost]),
        lost,
        FakeAnswer([(1, 6, b"o\nthree\n")]),
        FakeAnswer([]),
    )
    assert [line for line, _ in lines] == ["one", "two", "three"]
    assert asked[:3] == [0, 6, 6]


def test_bytes_that_come_again_are_not_shown_again() -> None:
    lost = ConnectionLost("gone")
    lines, _ = read(
        FakeAnswer([(1, 0, b"one\ntwo\n"), lost]), FakeAnswer([(1, 0, b"one\ntwo\nthree\n")])
    )
    assert [line for line, _ in lines] == ["one", "two", "three"]


def test_new_execution_is_read_from_its_first_byte() -> None:
    lost = ConnectionLost("gone")
    lines, asked = read(
        FakeAnswer([(1, 0, b"first\n"), lost]),
        FakeAnswer([], epoch=(2, 1)),
        FakeAnswer([(1, 0, b"second\n")], epoch=(2, 1)),
        FakeAnswer([], epoch=(2, 1)),
    )
    assert [line for line, _ in lines] == ["first", "second"]
    assert asked[:3] == [0, 6, 0]


def test_job_without_a_node_is_asked_for_until_it_has_one() -> None:
    unknown = RequestFailed(ErrorCode.NOT_FOUND, "not yet")
    lines, asked = read(None, unknown, FakeAnswer([(1, 0, b"one\n")]))
    assert (lines, len(asked)) == ([("one", 1)], 3)


def test_output_so_far_is_given_when_it_is_not_to_be_followed() -> None:
    lines, asked = read(FakeAnswer([(1, 0, b"one\n")]), None, None, follow=False)
    assert (lines, asked) == ([("one", 1)], [0])


def test_endless_line_comes_in_pieces() -> None:
    data = b"x" * (LINE_MAX + 10)
    lines, _ = read(FakeAnswer([(1, 0, data)]))
    assert [len(line) for line, _ in lines] == [LINE_MAX, 10]
