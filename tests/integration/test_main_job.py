"""The main job on its default input: the standard library of the running Python."""

import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager import Statistics
from parts.docker_engine import Engine
from parts.mongo_set import MongoSet

SCRIPT = Path(__file__).parents[2] / "examples" / "code_report" / "code_report.py"

LARGER = 10_000  # bytes


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.timeout(240)
def test_main_job_survives_its_faults_and_agrees_with_a_serial_run() -> None:
    check(run())


def check(done: "subprocess.CompletedProcess[str]") -> None:
    """Check that the main job did all that it promises."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"^verified in", done.stdout, flags=re.M)
    moved = re.search(r"jobs moved to another compute node +(\d+)", done.stdout)
    assert moved is not None
    assert int(moved[1]) >= 1
    failed_over = re.findall(r"reads failed over, of \S+(?: \S+)* +(\d+)", done.stdout)
    assert sum(map(int, failed_over)) >= 1
    share = re.search(r"as a part of the input +([\d.]+)%", done.stdout)
    assert share is not None
    assert float(share[1]) < 5
    assert len(re.findall(r"^(?:compute|data)-\d +killed", done.stdout, flags=re.M)) == 2


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with the larger modules of the library: fewer jobs, but as much in each."""
    folder = tmp_path_factory.mktemp("smaller")
    stdlib = Path(sysconfig.get_path("stdlib"))
    for path in stdlib.glob("*.py"):
        if path.stat().st_size > LARGER:
            shutil.copy(path, folder)
    return str(folder)


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_main_job_does_the_same_in_containers(engine: Engine, smaller: str) -> None:
    before = containers(engine)
    done = run(smaller, "--docker-host", engine.host, "--image", engine.image)
    check(done)
    assert "jobs run in containers, objects are kept in files" in done.stdout
    assert containers(engine) <= before


def containers(engine: Engine) -> set[str]:
    return {one["Id"] for one in engine.api.get("/containers/json", all="true")}


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_main_job_does_the_same_on_mongodb(mongo_set: MongoSet, smaller: str) -> None:
    done = run(smaller, "--uri-file", str(mongo_set.uri_file))
    check(done)
    assert "jobs run in processes, objects are kept in MongoDB" in done.stdout
    with mongo_set.client() as client:
        assert not [name for name in client.list_database_names() if "alpyne_run" in name]


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_main_job_does_the_same_on_both(engine: Engine, mongo_set: MongoSet, smaller: str) -> None:
    options = ["--docker-host", engine.host, "--image", engine.image]
    check(run(smaller, *options, "--uri-file", str(mongo_set.uri_file)))


def test_main_job_asks_for_host_and_image_together() -> None:
    done = run("--image", "python:3.12-slim")
    assert done.returncode == 2
    assert "--docker-host and --image belong together" in done.stderr


def test_main_job_says_what_is_wrong_with_a_folder_without_programs(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert done.returncode == 1
    assert "expected at least 8 Python files (*.py), found 0; name another folder" in done.stderr
    assert "Traceback" not in done.stderr


class Said:
    """A screen that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


GOOD = Statistics((), *(0 for _ in fields(Statistics)[1:]))
GOOD = replace(GOOD, moved=1, failed_over_reads=1, to_compute=49)


@pytest.mark.parametrize(
    ("statistics", "same", "code", "said"),
    [
        (GOOD, True, 0, "verified in 1.0 s"),
        (replace(GOOD, failed_over_reads=0, jobs_failed_over_reads=1), True, 0, "verified in"),
        (GOOD, False, 1, "wrong: the report is not that of the serial run"),
        (replace(GOOD, moved=0), True, 1, "wrong: no job was moved"),
        (replace(GOOD, failed_over_reads=0), True, 1, "wrong: no read failed over"),
        (replace(GOOD, to_compute=50), True, 1, "wrong: 5.0% of the input"),
    ],
)
def test_main_job_is_verified_only_when_all_that_it_promises_came_true(
    monkeypatch: pytest.MonkeyPatch, statistics: Statistics, same: bool, code: int, said: str
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import ending  # type: ignore[import-not-found]

    screen: Any = Said()
    outcome = ending.Outcome(same, statistics, {}, 1000, 1.0)
    assert ending.verdict(screen, outcome) == code
    assert any(line.startswith(said) for line in screen.lines), screen.lines
    assert any(line.startswith("not verified") for line in screen.lines) is bool(code)
