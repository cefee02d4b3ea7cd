"""Chunk sizes: doubling until a chunk takes about 50 ms."""

from alpyne_grid.manager.chunks import ITEMS_MAX, PAYLOAD_TARGET, ChunkSizes


def run(sizes: ChunkSizes, item_ms: float, chunks: int) -> list[int]:
    taken = []
    for _ in range(chunks):
        size = sizes.next_size(None, 4)
        taken.append(size)
        sizes.learn(size, size * item_ms)
    return taken


def test_chunks_double_until_one_takes_about_50_ms() -> None:
    assert run(ChunkSizes(), 1.0, 9) == [1, 2, 4, 8, 16, 32, 32, 32, 32]


def test_chunks_stay_single_when_an_item_takes_long() -> None:
    assert run(ChunkSizes(), 1000.0, 4) == [1, 1, 1, 1]


def test_chunks_shrink_when_items_become_slow() -> None:
    sizes = ChunkSizes()
    run(sizes, 1.0, 8)
    sizes.learn(32, 32 * 100.0)
    assert sizes.next_size(None, 4) == 1


def test_chunks_are_bounded_in_items_and_bytes() -> None:
    sizes = ChunkSizes()
    assert max(run(sizes, 0.0, 30)) == ITEMS_MAX
    sizes.learn_bytes(100, 10 * PAYLOAD_TARGET)
    assert sizes.next_size(None, 4) == 10


def test_chunks_leave_every_slot_a_share_when_the_number_of_items_is_known() -> None:
    sizes = ChunkSizes()
    run(sizes, 0.0, 30)
    assert sizes.next_size(800, 4) == 100
    assert sizes.next_size(7, 5) == 1


def test_chunks_have_the_size_that_the_program_chose() -> None:
    assert run(ChunkSizes(10), 1000.0, 3) == [10, 10, 10]


def test_chunks_are_halved_after_a_crash() -> None:
    sizes = ChunkSizes()
    run(sizes, 0.0, 6)
    sizes.shrink(32)
    assert sizes.next_size(None, 4) == 16


def test_window_closes_when_results_wait_for_a_slow_consumer() -> None:
    sizes = ChunkSizes()
    assert sizes.has_room(window=0, under_way=0, buffered=0, slots=1)
    assert not sizes.has_room(window=1, under_way=1, buffered=1 << 30, slots=1)
    assert not sizes.has_room(window=100, under_way=0, buffered=0, slots=1)
    assert not sizes.has_room(window=5, under_way=5, buffered=0, slots=1)
