"""Lists of objects: order, spans, tombstones, pages."""

from pathlib import Path

import pytest
from alpyne_grid.nodes.data.records import (
    ObjectSpan,
)
from alpyne_grid.tools.contracts.data.bench import (
    ANN,
    BOX,
    DataBench,
    paths,
    publish,
)


class ListContract(DataBench):
    """Lists of objects: order, spans, tombstones, pages."""

    async def test_backend_lists_objects_in_the_order_of_their_bytes(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            names = ["a", "a/b", "a.b", "B", "ü", "\uffff", "\U0001f600", "\U0010ffff", "z/z"]
            for name in names:
                await publish(backend, name, 1, b"x")
            assert await paths(backend) == sorted(names, key=str.encode)

    @pytest.mark.parametrize(
        ("span", "expected"),
        [
            (ObjectSpan("a/"), ["a/1", "a/2", "a/\U0010ffff"]),
            (ObjectSpan("a"), ["a", "a/1", "a/2", "a/\U0010ffff", "ab"]),
            (ObjectSpan("a/", "a/1"), ["a/2", "a/\U0010ffff"]),
            (ObjectSpan("b", "a/1"), ["b"]),
            (ObjectSpan("", "ab"), ["b"]),
            (ObjectSpan("x"), []),
            (ObjectSpan("a/", "b"), []),
        ],
    )
    async def test_backend_lists_what_a_span_asks_for(
        self, tmp_path: Path, span: ObjectSpan, expected: list[str]
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for name in ("a", "a/1", "a/2", "a/\U0010ffff", "ab", "b"):
                await publish(backend, name, 1, b"x")
            assert await paths(backend, span) == expected

    async def test_backend_lists_tombstones_only_when_asked(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            await publish(backend, "a", 1, b"x")
            tombstone = await publish(backend, "b", 1, None)
            assert await paths(backend) == ["a"]
            assert await paths(backend, ObjectSpan(tombstones=True)) == ["a", "b"]
            page = await backend.objects(ANN, BOX, ObjectSpan("b", "", True), None)
            assert page is not None
            assert page.rows == (("b", tombstone),)

    async def test_backend_lists_what_the_caller_accepts(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            names = [f"{n:03}" for n in range(30)]
            for name in names:
                await publish(backend, name, 1, b"x")
            found = await paths(backend, accepts=lambda path: path.endswith("7"), limit=2)
            assert found == ["007", "017", "027"]
