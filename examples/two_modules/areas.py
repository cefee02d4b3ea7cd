"""A script whose functions live in a second module beside it.

python examples/two_modules/areas.py
"""

import geometry
from alpyne_grid.manager import Manager


def describe(shape: str) -> str:
    """Use the other module's data, on the node."""
    return f"{shape}: {geometry.CORNERS[shape]} corners"


def main() -> None:
    """Call functions of both modules on the grid."""
    with Manager.connect() as grid:
        for area in grid.map(geometry.circle_area, [1.0, 2.0, 3.0]):
            print(f"{area:.4f}")
        for text in grid.map(describe, sorted(geometry.CORNERS)):
            print(text)


if __name__ == "__main__":
    main()
