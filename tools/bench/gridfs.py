"""A large object through a data node that keeps it in MongoDB, beside GridFS by bare pymongo.

What decides is the back end by itself: a data node encrypts, and hashes at both ends, which bare
pymongo does not, and on few cores that costs as much as all the rest.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from alpyne_grid.manager import Manager
from alpyne_grid.tools.bench import gridfs_backend
from alpyne_grid.tools.bench.figures import Figure, Series, Unit
from alpyne_grid.tools.bench.setting import Setting
from alpyne_grid.tools.bench.yardsticks import make_file

PIECE = 1 << 20


def measure(setting: Setting) -> list[Figure]:
    """Measure put and get, in turns with bare pymongo."""
    uri_file = setting.parts.mongodb()
    put, got = (Series(name, Unit.MB_PER_SECOND) for name in ("put", "get"))
    bare_put = Series("bare pymongo put", Unit.MB_PER_SECOND)
    bare_get = Series("bare pymongo get", Unit.MB_PER_SECOND)
    size = setting.amounts.object_bytes
    with setting.cluster("gridfs") as cluster, _databases(uri_file) as (client, names):
        chosen = ("--uri-file", str(uri_file), "--database", names[0], "--quota-bytes", "0")
        node = cluster.start("data", "--backend", "mongodb", *chosen)
        source, target = cluster.folder / "source", cluster.folder / "target"
        make_file(source, size)
        bare = _Bare(client, names[1])
        with Manager.connect([node.address], home=cluster.home, progress=False) as grid:
            container = grid.container("figures", copies=1)
            container.put("small", b"so that the container exists")
            bare.put(b"so that the indexes exist")
            for run in setting.each_run("object in MongoDB"):
                with open(source, "rb") as file:
                    bare_put.values.append(size / _timed(bare.put, file))
                put.values.append(size / _timed(container.put, f"large-{run}", source))
                bare_get.values.append(size / _timed(bare.get, target))
                target.unlink()
                got.values.append(size / _timed(container.pull, f"large-{run}", target))
                target.unlink()
                container.delete(f"large-{run}")
                bare.delete()
    name = f"object of {size >> 20} MiB in MongoDB"
    with _databases(uri_file) as (_, names):
        of_back_end = gridfs_backend.measure(setting, uri_file, names)
    return [
        *of_back_end,
        *(
            Figure(
                f"{name}: {what}",
                measured,
                [yardstick],
                at_least=True,
                note="a whole node, encrypted; recorded",
            )
            for what, measured, yardstick in (("put", put, bare_put), ("get", got, bare_get))
        ),
    ]


class _Bare:
    """GridFS as pymongo has it, with writes as durable as a data node's."""

    def __init__(self, client: Any, database: str) -> None:
        from gridfs import GridFSBucket
        from pymongo import WriteConcern

        self._bucket = GridFSBucket(
            client[database], write_concern=WriteConcern(w="majority", j=True)
        )
        self._id: Any = None

    def put(self, source: Any) -> None:
        self._id = self._bucket.upload_from_stream("large", source)

    def get(self, target: Path) -> None:
        with open(target, "wb") as file, self._bucket.open_download_stream(self._id) as stream:
            while piece := stream.read(PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def delete(self) -> None:
        self._bucket.delete(self._id)


@contextmanager
def _databases(uri_file: Path) -> Iterator[tuple[Any, list[str]]]:
    """Open a client and name two databases that are dropped on leaving."""
    from pymongo import MongoClient

    names = [f"alpyne_bench_{secrets.token_hex(6)}" for _ in range(2)]
    client: Any = MongoClient(uri_file.read_text().strip())
    try:
        yield client, names
    finally:
        for name in names:
            client.drop_database(name)
        client.close()


def _timed(do: Any, *arguments: Any) -> float:
    begun = perf_counter()
    do(*arguments)
    return perf_counter() - begun
