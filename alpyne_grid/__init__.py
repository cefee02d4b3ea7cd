"""Alpyne: grid computing for a handful of unlike machines.

The sub-packages are `alpyne_grid.manager` (the library to embed), `alpyne_grid.nodes` (the
daemons), `alpyne_grid.wire` (the protocol over asyncio) and `alpyne_grid.tools` (the command
line). Installed, they lie beside this file; in a checkout they are the folders of the same names
in its root.
"""

from pathlib import Path

__all__ = ["__version__"]

__version__ = "0.1.0"

_own_folder = Path(__file__).resolve().parent
if not (_own_folder / "wire").is_dir():
    # A bare checkout: the packages are one level up, under the names that setup.py maps.
    __path__.append(str(_own_folder.parent))
