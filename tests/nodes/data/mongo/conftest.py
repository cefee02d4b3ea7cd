"""What the tests of the MongoDB back end share: back ends and nodes, each with a database."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Test files are imported by themselves; what they share is made importable here.
for _name in ("mongo_bench", "mongo_site"):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(
            _name, Path(__file__).with_name(f"{_name}.py")
        )
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here: each needs a server."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("mongodb")


@pytest.fixture
def open_site(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a maker of a site on a URI."""
    with contextlib.ExitStack() as opened:

        def make(uri: str, **options: object) -> Any:
            from mongo_bench import with_options
            from mongo_site import Site

            site = Site(tmp_path, with_options(uri, **options))
            opened.callback(site.close)
            return site

        yield make
