"""Output of jobs: appended, capped, followed while it grows, complete when read again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.compute.output import FRAME, FRAME_MAX, OutputStore, Piece

ALICE = b"a" * 32
MOST = 1 << 20


@pytest.fixture
def outputs(tmp_path: Path) -> OutputStore:
    store = OutputStore(tmp_path / "output")
    store.open({})
    return store


def write(outputs: OutputStore, descriptor: int, data: bytes, most: int = MOST) -> bool:
    return outputs.append(ALICE, 1, 1, descriptor, data, most)


def read(outputs: OutputStore, offset: int = 0, follow: bool = False) -> list[Piece]:
    async def main() -> list[Piece]:
        pieces: list[Piece] = []
        async for some in outputs.read(1, 1, offset=offset, follow=lambda: follow):
            pieces += some
        return pieces

    return asyncio.run(main())


def test_output_keeps_the_order_and_the_descriptor_of_what_was_written(
    outputs: OutputStore,
) -> None:
    write(outputs, 1, b"one\n")
    write(outputs, 2, b"error\n")
    write(outputs, 1, b"two\n")
    assert read(outputs) == [
        Piece(1, 0, b"one\n"),
        Piece(2, 4, b"error\n"),
        Piece(1, 10, b"two\n"),
    ]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (2, [Piece(1, 2, b"cd"), Piece(2, 4, b"ef")]),
        (4, [Piece(2, 4, b"ef")]),
        (5, [Piece(2, 5, b"f")]),
        (6, []),
        (1 << 60, []),
    ],
)
def test_output_begins_at_the_offset_that_is_asked_for(
    outputs: OutputStore, offset: int, expected: list[Piece]
) -> None:
    write(outputs, 1, b"abcd")
    write(outputs, 2, b"ef")
    assert read(outputs, offset) == expected


def test_output_is_cut_where_it_reaches_its_limit(outputs: OutputStore) -> None:
    assert write(outputs, 1, b"12345678", most=10)
    assert not write(outputs, 2, b"abcdef", most=10)
    assert not write(outputs, 1, b"more", most=10)
    assert read(outputs) == [Piece(1, 0, b"12345678"), Piece(2, 8, b"ab")]


def test_output_takes_pieces_of_any_size(outputs: OutputStore) -> None:
    data = bytes(range(256)) * 2000
    write(outputs, 1, data)
    pieces = read(outputs)
    assert max(len(piece.data) for piece in pieces) <= FRAME_MAX
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.offset for piece in pieces] == list(range(0, len(data), FRAME_MAX))


def test_output_ends_before_a_frame_that_was_torn(outputs: OutputStore, tmp_path: Path) -> None:
    write(outputs, 1, b"whole")
    outputs.close()
    with (tmp_path / "output" / "1.1").open("ab") as file:
        file.write(FRAME.pack(1, 100) + b"only a part")
    assert read(outputs) == [Piece(1, 0, b"whole")]


def test_follower_gets_each_piece_at_once_and_ends_with_the_job(outputs: OutputStore) -> None:
    async def main() -> None:
        got: asyncio.Queue[Any] = asyncio.Queue()

        async def follow() -> None:
            async for some in outputs.read(1, 1, offset=0, follow=lambda: True):
                for piece in some:
                    got.put_nowait(piece.data)
            got.put_nowait(None)

        task = asyncio.create_task(follow())
        await asyncio.sleep(0)  # it follows before the job has printed anything
        for data in (b"one", b"two"):
            write(outputs, 1, data)
            assert await asyncio.wait_for(got.get(), 5) == data
        write(outputs, 1, b"last")
        outputs.end(1, 1)
        assert [await got.get(), await got.get()] == [b"last", None]
        await task
        assert outputs._logs == {}

    asyncio.run(main())


def test_output_is_there_after_a_restart_and_that_of_other_attempts_is_not(
    outputs: OutputStore, tmp_path: Path
) -> None:
    write(outputs, 1, b"of the first attempt")
    outputs.append(ALICE, 2, 1, 1, b"of an unfinished job", MOST)
    kept = outputs.kept(ALICE)
    outputs.close()
    again = OutputStore(tmp_path / "output")
    again.open({(1, 1): ALICE})
    assert read(again) == [Piece(1, 0, b"of the first attempt")]
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["1.1"]
    assert 0 < again.kept(ALICE) < kept


def test_output_of_dropped_jobs_leaves_nothing(outputs: OutputStore, tmp_path: Path) -> None:
    write(outputs, 1, b"text")
    outputs.end(1, 1)
    outputs.drop((1, 2))
    assert list((tmp_path / "output").iterdir()) == []
    assert outputs.kept(ALICE) == 0
    assert not outputs.has(1)


def test_flush_raises_nothing_for_output_that_is_there(outputs: OutputStore) -> None:
    write(outputs, 1, b"text")
    outputs.flush(1, 1)
