"""Back ends by their names: own ones, those of other distributions, and what cannot be loaded."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alpyne_grid.nodes.backends import check_options, find
from alpyne_grid.nodes.compute.backends.find import GROUP as COMPUTE_GROUP
from alpyne_grid.nodes.data.backends.find import GROUP as DATA_GROUP
from alpyne_grid.nodes.errors import ConfigError

GROUP = "alpyne.compute_backends"


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed distribution with entry points; yields the folder it lies in."""
    about = tmp_path / "odd-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(
        f"[{GROUP}]\nodd = odd_backend:Odd\nprocess = odd_backend:Odd\n"
        "broken = odd_backend:Missing\n"
    )
    (tmp_path / "odd_backend.py").write_text("class Odd:\n    options = frozenset({'speed'})\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("odd_backend", None)


def test_backend_of_another_distribution_is_found_by_its_entry_point(distribution: Path) -> None:
    assert find(GROUP, {}, "odd").__name__ == "Odd"


def test_own_backend_is_not_replaced_by_an_entry_point(distribution: Path) -> None:
    own = {"process": ("collections:OrderedDict", "")}
    assert find(GROUP, own, "process").__name__ == "OrderedDict"


def test_backend_that_cannot_be_loaded_names_its_distribution(distribution: Path) -> None:
    with pytest.raises(ConfigError, match=r"broken \(odd_backend:Missing of odd 1.2\)"):
        find(GROUP, {}, "broken")


def test_unknown_backend_is_refused_with_the_known_ones(distribution: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of broken, mine, odd, process, got 'x'"):
        find(GROUP, {"mine": ("m:M", "")}, "x")


def test_own_backend_says_what_to_install_when_its_package_is_missing() -> None:
    own = {"mine": ("no_such_module_here:M", "install it by: pip install mine")}
    with pytest.raises(ConfigError, match=r"needs the package no_such_module_here.*pip install"):
        find(GROUP, own, "mine")


def test_backend_refuses_options_that_it_does_not_take(distribution: Path) -> None:
    odd = find(GROUP, {}, "odd")
    check_options("odd", odd, {"speed"})
    with pytest.raises(ConfigError, match="odd: takes no option colour; it takes speed"):
        check_options("odd", odd, {"speed", "colour"})
    with pytest.raises(ConfigError, match="takes no option speed; it takes none"):
        check_options("other", object(), {"speed"})


def test_groups_are_those_of_the_documents() -> None:
    assert (COMPUTE_GROUP, DATA_GROUP) == ("alpyne.compute_backends", "alpyne.data_backends")
