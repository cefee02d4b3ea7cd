"""Map the checkout's folders to the packages under which they are installed.

The folders `wire`, `nodes`, `manager` and `tools` become `alpyne_grid.wire` and so on: as top-level
packages in site-packages they would be shadowed by a user's own `tools.py`, or overwrite another
distribution's `tools`. Everything else about the distribution stands in pyproject.toml.
"""

from setuptools import find_packages, setup

MAPPED_FOLDERS = ("wire", "nodes", "manager", "tools")
DATA_FILES = ["py.typed", "*.json", "*.lua", "*.toml", "*.txt"]


def own_and_sub_packages(folder: str, package: str) -> list[str]:
    """Name the package of one folder and those of every folder with an `__init__.py` below it."""
    return [package, *(f"{package}.{name}" for name in find_packages(folder))]


packages = [
    *own_and_sub_packages("alpyne_proto", "alpyne_proto"),
    *own_and_sub_packages("alpyne_grid", "alpyne_grid"),
]
for mapped in MAPPED_FOLDERS:
    packages += own_and_sub_packages(mapped, f"alpyne_grid.{mapped}")

setup(
    packages=packages,
    package_dir={f"alpyne_grid.{folder}": folder for folder in MAPPED_FOLDERS},
    package_data={"": DATA_FILES},
    include_package_data=False,
)
