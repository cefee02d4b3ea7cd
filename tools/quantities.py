"""Sizes and durations as people read them; they are written as the manager reads them."""

_UNITS = ("B", "KiB", "MiB", "GiB")


def size_text(size_bytes: float) -> str:
    """Return ``size_bytes`` for a person: 0 B, 999 B, 1.5 KiB, 10 GiB."""
    value = float(size_bytes)
    for unit in _UNITS:
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB" if value < 10 else f"{value:.0f} TiB"


def duration_text(seconds: float) -> str:
    """Return ``seconds`` for a person, with at most two units: 35 ms, 4.2 s, 3m20s, 5d2h."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    size, unit, smaller, smaller_unit = 60, "m", 1, "s"
    if whole >= 86_400:
        size, unit, smaller, smaller_unit = 86_400, "d", 3_600, "h"
    elif whole >= 3_600:
        size, unit, smaller, smaller_unit = 3_600, "h", 60, "m"
    rest = whole % size // smaller
    return f"{whole // size}{unit}{f'{rest}{smaller_unit}' if rest else ''}"
