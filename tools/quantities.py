"""Sizes, durations and ages as people write and read them."""

import re

_SIZE_UNITS = {
    "": 1, "B": 1,
    "K": 1 << 10, "KIB": 1 << 10, "KB": 10**3,
    "M": 1 << 20, "MIB": 1 << 20, "MB": 10**6,
    "G": 1 << 30, "GIB": 1 << 30, "GB": 10**9,
    "T": 1 << 40, "TIB": 1 << 40, "TB": 10**12,
}  # fmt: skip
_TIME_UNITS = {
    "": 1.0,
    "MS": 0.001,
    "S": 1.0,
    "M": 60.0,
    "H": 3600.0,
    "D": 86_400.0,
    "W": 604_800.0,
}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_SIZE_MAX = (1 << 63) - 1
_TIME_MAX_S = 100 * 365 * 86_400


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` names: 10GiB, 1.5M, 500MB, 4096.

    K, M, G, T alone are powers of 1024. Raises ValueError, which shows the expected form.
    """
    size = _parse(text, _SIZE_UNITS, "a size such as 512MiB or 10GiB")
    if size > _SIZE_MAX:
        raise ValueError(f"expected at most 2^63-1 bytes, got {text!r}")
    return int(size)


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` names: 90, 500ms, 10m, 7d.

    Raises ValueError, which shows the expected form.
    """
    seconds = _parse(text, _TIME_UNITS, "a duration such as 30s, 10m, 2h or 7d")
    if seconds > _TIME_MAX_S:
        raise ValueError(f"expected at most 100 years, got {text!r}")
    return seconds


def _parse(text: str, units: dict[str, int] | dict[str, float], expected: str) -> float:
    match = _QUANTITY.fullmatch(text)
    unit = units.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"expected {expected}, got {text!r}")
    return float(match[1]) * unit


def size_text(size_bytes: float) -> str:
    """Return ``size_bytes`` for a person: 0 B, 1023 B, 1.5 KiB, 10 GiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 999.5 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def duration_text(seconds: float) -> str:
    """Return ``seconds`` for a person, with at most two units: 35 ms, 4.2 s, 3m20s, 5d2h."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}{f'{rest}{smaller_unit}' if rest else ''}"
    raise AssertionError("unreachable")
