"""The pytest plugin of the contracts: coroutine tests run, and fail for what they leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import asyncio
import pytest
pytest_plugins = ["alpyne_grid.tools.contracts.plugin"]

@pytest.fixture
def number():
    return 41
"""


def run(folder: Path, test: str) -> "subprocess.CompletedProcess[str]":
    """Run one test file with the plugin, as a third party would."""
    (folder / "conftest.py").write_text(HEAD)
    (folder / "test_it.py").write_text("import asyncio\n" + test)
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "."]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


def test_plugin_runs_a_coroutine_test_with_its_fixtures(tmp_path: Path) -> None:
    done = run(tmp_path, "async def test_it(number): assert number + 1 == 42")
    assert done.returncode == 0, done.stdout
    done = run(tmp_path, "async def test_it(number): assert number == 42")
    assert done.returncode == 1
    assert "assert 41 == 42" in done.stdout


def test_plugin_leaves_other_tests_to_pytest(tmp_path: Path) -> None:
    assert run(tmp_path, "def test_it(number): assert number == 41").returncode == 0


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("class TestIt:\n within_s = 0\n async def test_it(_): await asyncio.sleep(9)", "Timeout"),
        ("async def test_it(): test_it.kept = asyncio.create_task(asyncio.sleep(60))", "sleep"),
        ("async def test_it(): asyncio.get_running_loop().call_soon(int, 'x')", "invalid literal"),
    ],
    ids=["hangs", "leaves a task", "leaves an error"],
)  # fmt: skip
def test_plugin_fails_a_test_that(tmp_path: Path, test: str, said: str) -> None:
    done = run(tmp_path, test)
    assert done.returncode == 1, done.stdout
    assert said in done.stdout


def test_contracts_show_what_their_asserts_compared(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "from alpyne_grid.tools.contracts.data import paths\n"
        "class Empty:\n"
        "    async def objects(self, *asked):\n"
        "        class Page: rows, after = (1, 2, 3), None\n"
        "        return Page\n"
        "async def test_it(): await paths(Empty(), limit=2)",
    )
    assert "assert 3 <= 2" in done.stdout
