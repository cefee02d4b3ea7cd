"""The score: measured in processes of its own, cached for one machine only."""

import asyncio
import json
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute import benchmark
from alpyne_grid.nodes.compute.benchmark import Score


def test_work_is_the_same_every_time() -> None:
    assert benchmark.work() == benchmark.work()


def test_measure_counts_units_per_second() -> None:
    ticks = iter(range(100))
    score = benchmark.measure(10, clock=lambda: float(next(ticks)))
    # One reading before, then one behind each unit: the tenth second comes behind nine units.
    assert score == pytest.approx(9 / 10 / benchmark.UNITS_PER_POINT)


def test_estimate_says_that_it_is_one() -> None:
    score = benchmark.estimate()
    assert score.estimated
    assert score.one > 0


def test_cached_score_is_found_again_and_is_no_estimate(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    benchmark.save(path, Score(12.5, 40.0, False))
    assert benchmark.cached(path) == Score(12.5, 40.0, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"fingerprint": "another machine", "one": 1, "all": 2}),
        json.dumps({"fingerprint": benchmark.fingerprint(), "one": "fast"}),
    ],
)
def test_cached_score_of_another_machine_or_a_damaged_one_is_measured_again(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "benchmark.json"
    path.write_text(text)
    assert benchmark.cached(path) is None
    assert benchmark.cached(tmp_path / "missing") is None


def test_run_measures_one_core_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark.os, "cpu_count", lambda: 1)
    score = asyncio.run(benchmark.run())
    assert not score.estimated
    assert score.one > 0
    assert score.all > 0


def test_run_ends_its_processes_when_it_is_cancelled() -> None:
    async def main() -> None:
        running = asyncio.ensure_future(benchmark.run())
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    # conftest's no_process_left fails the run where a process is left
