"""The example of third parties' back ends: installed by pip, put through the contracts, served."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from alpyne_grid.manager import Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "backends"
MODULES = sorted((EXAMPLE / "alpyne_example_backends").glob("*.py"))

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example into a folder of its own, as a user's pip would; return the folder."""
    folder = tmp_path_factory.mktemp("example")
    sources = folder / "sources"  # building leaves files beside what it builds
    copytree(EXAMPLE, sources, ignore=ignore_patterns("__pycache__", "*.egg-info", "build"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--target"]
    run([*pip, *options, str(folder / "site"), str(sources)])
    return folder / "site"


def run(command: list[str], *, site: Path | None = None, folder: Path | None = None) -> str:
    """Run a command, with the example on its path; return what it printed."""
    environment = {**os.environ, **({"PYTHONPATH": str(site)} if site else {})}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def cluster(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalCluster]:
    """Run daemons that have the example installed."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    with LocalCluster(tmp_path / "cluster", create_account) as made:
        yield made


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_example_back_end_has_less_than_100_lines(module: Path) -> None:
    assert len(module.read_text().splitlines()) < 100


@pytest.mark.slow
def test_example_passes_the_contracts_outside_of_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    for name in ("conftest.py", "test_contracts.py"):
        (tmp_path / name).write_text((EXAMPLE / name).read_text())
    pytest_line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--strict-config",
    ]
    printed = run([*pytest_line, "-c", os.devnull, "."], site=installed, folder=tmp_path)
    passed = int(printed.strip().splitlines()[-1].split()[0])
    assert passed > 140
    assert "skipped" not in printed


def test_node_runs_jobs_on_the_examples_back_end(cluster: LocalCluster) -> None:
    core = max(os.sched_getaffinity(0))
    told = ("--option", "nice=11", "--option", f"cores={core}")
    cluster.start("compute", "--slots", "1", "--backend", "gentle", *told)

    def work() -> tuple[int, set[int]]:
        return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)

    with Manager.connect(cluster.addresses, home=cluster.home) as grid:
        assert grid.submit(work).result() == (11, {core})


def test_node_keeps_objects_on_the_examples_back_end(cluster: LocalCluster, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    at = ("--backend", "disk", "--option", f"folder={disk}", "--option", "new=yes")
    daemon = cluster.start("data", *at)
    with Manager.connect(cluster.addresses, home=cluster.home) as grid:
        box = grid.container("box", copies=1)
        box.put("a/b", b"bytes" * 100_000)
        daemon.stop()
        daemon.start()
        assert box.get("a/b") == b"bytes" * 100_000
    assert sum(path.stat().st_size for path in (disk / "bytes").rglob("*") if path.is_file()) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compute", "--backend", "gentle", "--option", "nice=20"], "nice: expected one of 0, 1"),
        (["compute", "--backend", "gentle", "--option", "speed=1"], "takes no option speed"),
        (["data", "--backend", "disk", "--option", "folder=/proc"], "mount the disk"),
        (["data", "--backend", "disk"], "--option folder="),
        (["data", "--backend", "gentle"], "expected one of disk, local"),
    ],
)
def test_check_of_a_configuration_says_what_the_back_end_objects_to(
    installed: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    create_account(tmp_path / "home")
    owner = ["--owner", str(tmp_path / "home" / "account.pub"), "--state", str(tmp_path / "state")]
    done = subprocess.run(
        [sys.executable, "-m", "alpyne_grid", "node", *arguments, *owner, "--check-config"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_configuration_shows_what_the_back_end_found(
    installed: Path, tmp_path: Path
) -> None:
    create_account(tmp_path / "home")
    owner = ["--owner", str(tmp_path / "home" / "account.pub"), "--state", str(tmp_path / "state")]
    line = [sys.executable, "-m", "alpyne_grid", "node", "compute", "--backend", "gentle", *owner]
    assert "niceness 19" in run([*line, "--check-config"], site=installed)
