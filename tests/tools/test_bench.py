"""The bench: its arguments, its refusal of disks in memory, its arithmetic, and a small run."""

import json
from pathlib import Path

import pytest
from alpyne_grid.tools.bench.__main__ import EXIT_USAGE, ROWS, main
from alpyne_grid.tools.bench.disk import FileSystem, NoRealDisk, file_system_of, real_folder
from alpyne_grid.tools.bench.figures import Figure, Series, Unit, percentile, shown
from alpyne_grid.tools.bench.parts import Parts
from alpyne_grid.tools.bench.setting import Amounts, Setting
from alpyne_grid.tools.bench.yardsticks import DurableCommit, make_file, write_and_hash
from parts.docker_engine import Engine
from parts.mongo_set import MongoSet

TINY = Amounts(
    calls=4,
    burst=20,
    items=100,
    object_bytes=1 << 20,
    interrupts=3,
    idle_s=0.1,
    idle_daemons=1,
)


def in_memory(folder: Path) -> FileSystem:
    return FileSystem("tmpfs", "none", str(folder))


def on_disk(folder: Path) -> FileSystem:
    return FileSystem("ext4", "/dev/sda1", "/")


# ---- arguments ----


@pytest.mark.parametrize("arguments", [["speed"], ["--runs", "0"], ["--runs", "x"], ["--fast"]])
def test_bench_refuses_arguments_it_does_not_know(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)

    assert stopped.value.code == EXIT_USAGE
    assert arguments[-1] in capsys.readouterr().err


def test_bench_names_its_rows_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    said = capsys.readouterr().out
    assert all(row in said for row in ROWS)


def test_bench_says_what_is_wrong_with_a_folder_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--folder", str(tmp_path / "missing")]) == EXIT_USAGE

    assert "missing" in capsys.readouterr().err


# ---- disks ----


def test_bench_refuses_a_folder_in_memory_when_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoRealDisk, match=r"tmpfs .* in memory.*--folder"):
        real_folder(tmp_path, in_memory)


def test_bench_refuses_to_choose_a_folder_when_all_are_in_memory() -> None:
    with pytest.raises(NoRealDisk, match="--folder"):
        real_folder(None, in_memory)


def test_bench_takes_a_folder_on_a_disk_as_it_is_named(tmp_path: Path) -> None:
    assert real_folder(tmp_path, on_disk) == tmp_path


def test_file_system_of_tells_proc_from_the_root() -> None:
    if not Path("/proc/self").exists():
        return  # another system: nothing to tell apart
    assert file_system_of(Path("/proc/self")).kind == "proc"
    assert file_system_of(Path("/")).mounted_on == "/"


# ---- arithmetic ----


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1), (0.0, 1)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


@pytest.mark.parametrize(
    ("reach", "at_least", "met"),
    [(3.0, False, True), (1.9, False, False), (2.0, True, True), (2.1, True, False)],
)
def test_figure_is_judged_by_the_median_of_its_runs(
    reach: float, at_least: bool, met: bool
) -> None:
    series = Series("calls", Unit.SECONDS, [9.0, 1.0, 2.0])

    assert Figure("row", series, [], reach, at_least).is_met is met


def test_figure_without_a_reach_is_not_judged() -> None:
    assert Figure("row", Series("calls", Unit.SECONDS, [1.0])).is_met is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00123, Unit.MILLISECONDS, "1.23 ms"),
        (4321.0, Unit.PER_SECOND, "4,321/s"),
        (312e6, Unit.MB_PER_SECOND, "312 MB/s"),
        (0.005, Unit.PERCENT, "0.50 %"),
    ],
)
def test_values_are_shown_in_their_unit(value: float, unit: Unit, text: str) -> None:
    assert shown(value, unit) == text


# ---- yardsticks ----


def test_commit_yardstick_keeps_its_rows_when_it_is_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        commit = DurableCommit(tmp_path / "rows.db")
        assert commit.measure() > 0
        commit.close()

    assert (tmp_path / "rows.db").stat().st_size > 0


def test_write_yardstick_makes_a_copy_of_the_file(tmp_path: Path) -> None:
    make_file(tmp_path / "source", (1 << 20) + 1)

    assert write_and_hash(tmp_path / "source", tmp_path / "target") > 0

    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


# ---- rows ----


@pytest.mark.integration
def test_bench_measures_calls_maps_and_objects_when_it_is_run_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "alpyne_grid.tools.bench.disk.IN_MEMORY", frozenset()
    )  # tests may lie there
    raw = tmp_path / "raw.json"

    code = main(
        ["call", "map", "object", "--runs", "2", "--folder", str(tmp_path), "--json", str(raw)],
        TINY,
    )

    assert code == 0, capsys.readouterr().err
    figures = json.loads(raw.read_text())["figures"]
    assert [len(figure["values"]) for figure in figures] == [2] * 5
    assert all(value > 0 for figure in figures for value in figure["values"])
    assert all(len(one["values"]) == 2 for figure in figures for one in figure["yardsticks"])
    said = capsys.readouterr().out
    assert "sequential no-op call, p50" in said and "disk: " in said
    assert [path.name for path in tmp_path.iterdir()] == ["raw.json"]


@pytest.mark.integration
def test_bench_measures_idle_daemons_of_both_kinds(tmp_path: Path) -> None:
    figures = ROWS["idle"](Setting(tmp_path, 1, TINY))

    assert [figure.name.split(" daemon")[0] for figure in figures[::2]] == [
        "idle compute",
        "idle data",
    ]
    assert all(figure.measured.values[0] > 1e6 for figure in figures[::2])  # bytes


@pytest.mark.integration
def test_bench_measures_interrupts_in_both_directions(tmp_path: Path) -> None:
    figures = ROWS["interrupt"](Setting(tmp_path, 1, TINY))

    assert [len(figure.measured.values) for figure in figures] == [1, 1]


# ---- rows that need real parts ----


def test_bench_skips_a_row_and_says_why_when_its_part_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alpyne_grid.tools.bench.disk.IN_MEMORY", frozenset())
    found = tmp_path / "parts.json"
    found.write_text(json.dumps({"docker": {"host": f"unix://{tmp_path}/none", "image": "x"}}))

    folder = ["--folder", str(tmp_path)]
    assert main(["backend", "gridfs", "--parts", str(found), *folder], TINY) == 0

    said = capsys.readouterr().out
    assert f"row backend is skipped: no engine at unix://{tmp_path}/none: " in said
    assert "row gridfs is skipped: there is no mongodb; run ./dev parts" in said


@pytest.mark.integration
@pytest.mark.bubblewrap
def test_bench_measures_calls_through_each_back_end(engine: Engine, tmp_path: Path) -> None:
    parts = Parts({"docker": {"host": engine.host, "image": engine.image}, "bubblewrap": {}})

    warm = ROWS["backend"](Setting(tmp_path, 1, TINY, parts))
    [first] = ROWS["first"](Setting(tmp_path, 1, TINY, parts))

    assert [figure.name for figure in warm] == [
        "warm call through Docker, p50",
        "warm call through bubblewrap, p50",
    ]
    assert all(figure.measured.values[0] > 0 for figure in [*warm, first])
    assert [series.name for series in first.yardsticks] == ["process", "process, level 1"]


@pytest.mark.integration
def test_bench_measures_objects_in_mongodb_and_leaves_none(
    mongo_set: MongoSet, tmp_path: Path
) -> None:
    with mongo_set.client() as client:
        before = client.list_database_names()
        parts = Parts({"mongodb": {"uri_file": str(mongo_set.uri_file)}})

        figures = ROWS["gridfs"](Setting(tmp_path, 1, TINY, parts))

        assert [figure.name for figure in figures] == [
            "1 MiB through the MongoDB back end: put",
            "1 MiB through the MongoDB back end: get",
            "object of 1 MiB in MongoDB: put",
            "object of 1 MiB in MongoDB: get",
        ]
        assert all(figure.yardsticks[0].values[0] > 0 for figure in figures)
        assert client.list_database_names() == before
