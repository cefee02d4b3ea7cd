"""A second module beside the script; it travels to the nodes with it."""

from math import pi

CORNERS = {"triangle": 3, "square": 4, "hexagon": 6}


def circle_area(radius: float) -> float:
    """Return a circle's area."""
    return pi * radius**2
