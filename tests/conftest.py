"""What holds for every test: its own home folder, no deadlines by the clock, no process left."""

import contextlib
import importlib
import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

# Coroutine tests, and the contracts of back ends.
pytest_plugins = ["alpyne_grid.tools.contracts.plugin"]

# A busy machine is no defect: a property's examples may take as long as they take.
settings.register_profile("alpyne", deadline=None)
settings.load_profile("alpyne")

MARK = "ALPYNE_TEST_RUN"
GRACE_S = 5.0  # what a daemon that was told to end may still need

# Helpers of Python's own multiprocessing, which end with the test run.
PYTHONS_OWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")

# The package `parts` beside this file: pytest's importlib mode leaves this folder off the path.
if "parts" not in sys.modules:
    _folder = Path(__file__).with_name("parts")
    _spec = importlib.util.spec_from_file_location(
        "parts", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None and _spec.loader is not None
    sys.modules["parts"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["parts"])


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures of real parts: engines, replica sets, bubblewrap."""
    config.pluginmanager.register(importlib.import_module("parts.fixtures"), "parts")
    if hasattr(config, "workerinput"):
        # A worker of pytest-xdist has no main script, and takes all beside it for the program's
        # modules. It shall see what a single process sees.
        sys.modules["__main__"] = importlib.import_module("pytest.__main__")


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's keys, pool file and settings out of the tests, and the tests out of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("ALPYNE_", "XDG_")):
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_process_left(own_home: None) -> Iterator[None]:
    """Fail the run if a process that a test started is alive after the last test, and end it."""
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        yield
    _, left = psutil.wait_procs(started_here(mark), timeout=GRACE_S)
    described = [describe(process) for process in left]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if described:
        pytest.fail("tests left processes behind:\n" + "\n".join(described))


def started_here(mark: str) -> list[psutil.Process]:
    """Find this run's processes by the mark in their environment, and its children without one."""
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found[process.pid] = process
    return [process for process in found.values() if not is_pythons_own(process)]


def is_pythons_own(process: psutil.Process) -> bool:
    return any(name in describe(process) for name in PYTHONS_OWN)


def describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"{process.pid}: gone"
