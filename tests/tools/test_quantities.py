"""Sizes and durations as people read them, and as options take them."""

from collections.abc import Callable

import click
import pytest
from alpyne_grid.tools.option_types import duration, size
from alpyne_grid.tools.quantities import duration_text, size_text


def test_options_read_sizes_and_durations() -> None:
    assert size("10GiB") == 10 << 30
    assert size("4096") == 4096
    assert duration("10m") == 600.0


@pytest.mark.parametrize("text", ["", "GiB", "-1", "10 parsecs"])
@pytest.mark.parametrize("kind", [size, duration])
def test_option_refuses_what_is_no_quantity(kind: Callable[[str], float], text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected"):
        kind(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 << 30, "10 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_size_text_is_short(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.035, "35 ms"),
        (0.9999, "1.0 s"),
        (59.96, "60.0 s"),
        (200, "3m20s"),
        (3600, "1h"),
        (7 * 86_400 + 3700, "7d1h"),
    ],
)
def test_duration_text_is_short(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
