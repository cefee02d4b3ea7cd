"""Sizes and durations as people write and read them."""

import pytest
from alpyne_grid.tools.quantities import duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("10GiB", 10 << 30), ("1.5M", 3 << 19), ("2 kb", 2000), ("7b", 7)],
)
def test_parse_size_reads_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1e3", "10 parsecs", "1_000", "99999999T"])
def test_parse_size_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("500ms", 0.5), ("10m", 600), ("7d", 604_800), ("1.5 h", 5400)],
)
def test_parse_duration_reads_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 y", "99999999w"])
def test_parse_duration_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 << 30, "10 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_size_text_is_short(size: int, text: str) -> None:
    assert size_text(size) == text


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
