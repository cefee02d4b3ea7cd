"""What back ends keep when they are closed and opened again."""

from pathlib import Path

from alpyne_grid.nodes.data.records import (
    JobEpoch,
    ObjectRecord,
    RaiseFence,
)
from alpyne_grid.tools.contracts.data.bench import (
    ANN,
    JOB,
    LARGE,
    DataBench,
    key,
    publish,
    read,
    version,
)


class DurabilityContract(DataBench):
    """What back ends keep when they are closed and opened again."""

    async def test_backend_has_everything_when_it_is_opened_again(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            await publish(backend, "large", 1, LARGE)
            await publish(backend, "small", 1, b"x")
            await publish(backend, "small", 2, b"y")
            await publish(backend, "gone", 1, None)
            await backend.commit([RaiseFence(ANN, JobEpoch(JOB, 3, 4), 1)])
            usages = dict(await backend.usages())
        async with self.opened(tmp_path) as backend:
            assert await read(backend, "large") == LARGE
            assert await read(backend, "small") == b"y"
            assert await read(backend, "small", version(1)) == b"x"
            assert isinstance(await backend.open(key("gone"), None), ObjectRecord)
            assert (await backend.look_up(key("small"), JOB)).fence == (3, 4)
            assert await backend.usages() == usages
