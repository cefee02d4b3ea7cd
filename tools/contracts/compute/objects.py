"""Objects, which a worker reaches through its daemon only."""

import asyncio
import os
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from alpyne_grid.tools.contracts.compute.bench import BackendBench
from alpyne_grid.tools.contracts.compute.object_room import Objects

from alpyne_proto import plain
from alpyne_proto.errors import AlpyneError
from alpyne_proto.jobobject import JobObject, from_plain
from alpyne_proto.messages.compute import Cause, JobState, ResultCodec

MIB = 1 << 20


class ObjectContract(BackendBench):
    """Objects, which a worker reaches through its daemon only."""

    def _object(self, objects: Objects, path: str, data: bytes) -> JobObject:
        import hashlib

        objects.contents[path] = data
        digest = hashlib.sha256(data).digest()
        return JobObject(b"c" * 16, path, 1, b"w" * 16, len(data), digest, tuple(objects.serving))

    async def test_job_reads_an_object_whole_in_parts_and_as_a_file(self, tmp_path: Path) -> None:
        def work(item: JobObject) -> tuple[bytes, bytes, list[str]]:
            with item.open_text() as file:
                return item.read(), item.read(2, 3), file.read().split()

        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "a.txt", b"one two")
            assert await bench.value(work, item) == (b"one two", b"e t", ["one", "two"])

    async def test_job_reads_an_object_larger_than_one_piece(self, tmp_path: Path) -> None:
        def work(item: JobObject) -> tuple[int, int, bool]:
            pieces = list(item.stream())
            return len(pieces), sum(map(len, pieces)), b"".join(pieces) == item.read()

        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "large", os.urandom(9 * MIB))
            run = await bench.call(work, item)
            assert run.value() == (3, 9 * MIB, True)
            assert run.end.usage.read_bytes > 9 * MIB

    async def test_job_passes_over_a_holder_that_sends_damaged_bytes(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            objects = bench.room.objects
            item = self._object(objects, "a", b"good bytes")
            objects.damaged[objects.serving[0]] = b"evil bytes"
            assert await bench.value(lambda o: o.read(), item) == b"good bytes"
            assert objects.asked[-1].avoid == (objects.serving[0],)  # type: ignore[attr-defined]

    async def test_job_gets_no_damaged_bytes_when_all_holders_have_them(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            objects = bench.room.objects
            item = self._object(objects, "a", b"good bytes")
            objects.damaged = dict.fromkeys(objects.serving, b"evil bytes")
            run = await bench.call(lambda o: o.read(), item)
            assert run.failure().type == "OSError"

    async def test_job_gets_file_not_found_when_an_object_is_missing(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "a", b"data")
            bench.room.objects.contents.clear()
            run = await bench.call(lambda o: o.read(), item)
            assert run.failure().type == "FileNotFoundError"
            assert "no object a" in run.end.text
            assert isinstance(cloudpickle.loads(run.rows()[0][1]), FileNotFoundError)

    @pytest.mark.parametrize("codec", list(ResultCodec))
    async def test_map_into_a_container_writes_values_that_a_later_map_loads(
        self, tmp_path: Path, codec: ResultCodec
    ) -> None:
        async with self.bench(tmp_path) as bench:
            into = {"into": b"c" * 16, "into_prefix": "part/", "codec": codec}
            run = await bench.map(lambda n: [n] * 40_000, [(1,), (2,)], **into)
            ((_, data),) = run.rows()
            plains = cloudpickle.loads(data) if codec == 1 else plain.decode(data)
            items = [from_plain(fields) for fields in plains]
            assert [item.path for item in items] == ["part/000000100", "part/000000101"]
            assert all(item.codec == codec for item in items)
            assert run.end.usage.written_bytes == sum(item.size for item in items)
            pairs = [(items[0], items[1])]
            run = await bench.map(lambda a, b: (len(a), b[0]), pairs, load=True)
            assert cloudpickle.loads(run.rows()[0][1]) == [(40_000, 2)]

    async def test_forked_child_is_refused_objects(self, tmp_path: Path) -> None:
        def work(item: JobObject) -> str:
            import os

            reader, writer = os.pipe()
            if os.fork() == 0:
                try:
                    item.read()
                except AlpyneError as error:
                    os.write(writer, str(error).encode())
                os._exit(0)
            os.close(writer)
            os.wait()
            return os.read(reader, 1000).decode()

        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "a", b"data")
            assert "job's own process" in await bench.value(work, item)

    async def test_threads_of_a_job_read_objects_at_the_same_time(self, tmp_path: Path) -> None:
        def work(items: list[JobObject]) -> list[bytes]:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(4) as pool:
                return list(pool.map(lambda item: item.read(), items))

        async with self.bench(tmp_path) as bench:
            objects = bench.room.objects
            items = [self._object(objects, f"o{n}", b"%d" % n) for n in range(20)]
            assert await bench.value(work, items) == [b"%d" % n for n in range(20)]

    async def test_cancel_ends_a_job_that_waits_for_an_object(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            item = self._object(bench.room.objects, "a", b"data")
            bench.room.objects.read = _never  # type: ignore[method-assign, assignment]
            run = bench.start_call(_say_and_read, item)
            await bench.line(run)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)


def _say_and_read(item: JobObject) -> bytes:
    print("reading")
    return item.read()


async def _never(*_: object) -> Any:
    await asyncio.Event().wait()
