"""The worker's runtime as it is mounted into containers: pure Python, for any image's Python.

    <folder>/worker/  <folder>/alpyne_proto/  <folder>/msgpack/  <folder>/cloudpickle/

It is copied from where this daemon's own is installed, readable to all: the worker is another user.
"""

import compileall
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from alpyne_grid.nodes.compute.worker import __file__ as _worker
from alpyne_grid.nodes.compute.worker.boot_container import PACKAGES

_FOLDER_MODE, _FILE_MODE = 0o755, 0o644


def install_runtime(folder: Path) -> None:
    """Put the runtime into ``folder``, anew; OSError where it is not whole or cannot be written."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copy_package(Path(_worker).parent, folder / "worker")
    for name in PACKAGES:
        copy_package(_place(name), folder / name)
    # For images of this daemon's own Python version; others compile for themselves at each start.
    # What is compiled already came along, and counts as long as the times of the sources agree.
    compileall.compile_dir(folder, quiet=2)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)


def copy_package(source: Path, target: Path) -> None:
    """Copy what is Python of a package, and what of it has been compiled for this version."""
    compiled = f".{sys.implementation.cache_tag}.pyc"

    def is_left_out(path: str) -> bool:
        if path.endswith(compiled):
            return not os.access(path, os.R_OK)  # another user has compiled it for himself
        # Nor what was made for this machine alone.
        return not path.endswith(".py") and not os.path.isdir(path)

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if is_left_out(os.path.join(folder, name))]

    shutil.copytree(source, target, ignore=left_out)


def _place(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise OSError(f"the package {name} cannot be found; install alpyne-grid again")
    return Path(spec.origin).parent
