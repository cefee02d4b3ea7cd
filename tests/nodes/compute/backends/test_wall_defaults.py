"""What the administrator gives to jobs that ask for no limit."""

import pytest
from alpyne_grid.nodes.compute.backends.wall_defaults import WallDefaults, read_defaults
from alpyne_grid.nodes.errors import ConfigError


def test_defaults_are_bounded_but_for_memory() -> None:
    assert read_defaults({}) == WallDefaults(0, 256, 256 << 20)


def test_defaults_are_as_the_options_say() -> None:
    options = {"job-memory": ("512MiB",), "job-processes": ("32",), "job-disk": ("1GiB",)}
    assert read_defaults(options) == WallDefaults(512 << 20, 32, 1 << 30)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("job-memory", "much"), ("job-memory", "1 GiB"), ("job-memory", "-1"),
        ("job-processes", "0"), ("job-disk", "1000"), ("job-disk", "1MB"), ("job-disk", ""),
        ("job-processes", "999999999"), ("job-memory", "9999TiB"), ("job-disk", "9999TiB"),
    ],
)  # fmt: skip
def test_option_that_is_no_size_is_a_configuration_error(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected a number"):
        read_defaults({name: (text,)})
