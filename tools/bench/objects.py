"""A large object that does not compress: file to file, one copy, beside a plain durable copy."""

from time import perf_counter

from alpyne_grid.manager import Manager
from alpyne_grid.tools.bench.figures import Figure, Series, Unit
from alpyne_grid.tools.bench.setting import Setting
from alpyne_grid.tools.bench.yardsticks import make_file, write_and_hash

PUT_BYTES_PER_S = 300e6
GET_BYTES_PER_S = 500e6


def measure(setting: Setting) -> list[Figure]:
    """Measure put and get."""
    put = Series("put", Unit.MB_PER_SECOND)
    got = Series("get", Unit.MB_PER_SECOND)
    plain = Series("write + sha256 + fsync", Unit.MB_PER_SECOND)
    size = setting.amounts.object_bytes
    with setting.cluster("object") as cluster:
        node = cluster.start("data")
        source, target = cluster.folder / "source", cluster.folder / "target"
        make_file(source, size)
        with Manager.connect([node.address], home=cluster.home, progress=False) as grid:
            container = grid.container("figures", copies=1)
            container.put("small", b"so that the container exists")
            for run in setting.each_run("object"):
                plain.values.append(size / write_and_hash(source, target))
                target.unlink()
                begun = perf_counter()
                container.put(f"large-{run}", source)
                put.values.append(size / (perf_counter() - begun))
                begun = perf_counter()
                container.pull(f"large-{run}", target)
                got.values.append(size / (perf_counter() - begun))
                target.unlink()
                container.delete(f"large-{run}")
    name = f"object of {size >> 20} MiB that does not compress, one copy"
    return [
        Figure(f"{name}: put", put, [plain], PUT_BYTES_PER_S, at_least=True, decides=True),
        Figure(f"{name}: get", got, [plain], GET_BYTES_PER_S, at_least=True, decides=True),
    ]
