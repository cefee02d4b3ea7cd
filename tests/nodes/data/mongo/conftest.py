"""What the tests of the MongoDB back end share: back ends, each with a database of its own."""

import importlib.util
import sys
from pathlib import Path

import pytest

# Test files are imported by themselves; what they share is made importable here.
if "mongo_bench" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "mongo_bench", Path(__file__).with_name("mongo_bench.py")
    )
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["mongo_bench"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["mongo_bench"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here: each needs a server."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("mongodb")
