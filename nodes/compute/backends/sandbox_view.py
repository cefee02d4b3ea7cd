"""What a sandbox of level 1 sees of the machine, the same for all cells of a daemon.

Nothing is there unless it is named: the system's programs and libraries (see ``bubblewrap``), the
interpreter with its packages, and the worker's runtime, all read-only.
"""

import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from alpyne_grid.nodes.compute.backends.launch import BOOT, package_places

RUNTIME = "/alpyne"  # where the runtime's packages are
_MOVED = "/opt/alpyne"  # where folders go inside whose own place is scratch or private
_PRIVATE = ("/tmp", "/dev", "/proc", "/run")
_PASSWD = "nobody:x:65534:65534:nobody:/tmp:/bin/sh\n"
_GROUP = "nogroup:x:65534:\n"
_PARTS = ("wire", "nodes", "manager", "tools")  # of alpyne_grid, which may stand in other folders


class View(NamedTuple):
    """What the command lines of all cells have in common."""

    binds: tuple[tuple[str, str], ...]  # file or folder outside, and where it is inside
    python: str  # inside
    hidden: tuple[str, ...]  # folders inside that must be empty
    places: tuple[str, ...]  # as ``boot.py`` takes them


def make_view(etc: Path, state: Path) -> View:
    """Return what all cells of this daemon see.

    ``etc``: a new folder, in which the sandbox's passwd and group are made. ``state``: the node's
    state folder, which no sandbox may see. Raises OSError where something is missing, or where the
    interpreter lies so that the sandbox would show what it must not.
    """
    etc.mkdir(mode=0o700, parents=True, exist_ok=True)
    binds = []
    for name, text in (("passwd", _PASSWD), ("group", _GROUP)):
        (etc / name).write_text(text)
        (etc / name).chmod(0o644)  # whatever the umask is
        binds.append((str(etc / name), f"/etc/{name}"))
    folders = _interpreter_folders(state)
    binds += [(str(folder), _inside(folder, number)) for number, folder in enumerate(folders)]
    places = []
    for place in package_places():
        name, _, folder = place.partition("=")
        binds.append((f"{folder}/{name}", f"{RUNTIME}/{name}"))
        places.append(f"{name}={RUNTIME}")
    binds.append((os.path.dirname(BOOT), f"{RUNTIME}/worker"))
    binds += _parts_elsewhere()
    hidden = _hidden([("/usr", "/usr"), *binds], (state, Path.home()))
    return View(
        tuple(binds),
        _moved(binds, Path(sys.executable)) or sys.executable,
        hidden,
        tuple(places),
    )


def _interpreter_folders(state: Path) -> list[Path]:
    """Return the folders of which this interpreter consists, outside of the system's own."""
    home = Path.home().resolve()
    real = Path(sys.executable).resolve().parent.parent
    found: list[Path] = []
    for folder in (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix, str(real)):
        path = Path(folder)
        if path in found or path.resolve().is_relative_to("/usr"):
            continue
        for kept in (home, state.resolve()):
            if kept.is_relative_to(path.resolve()):
                raise OSError(
                    f"the Python of this node is installed in {path}, which also holds {kept}: a "
                    "sandbox that sees the one sees the other; install alpyne-grid in a virtual "
                    "environment in a folder of its own"
                )
        found.append(path)
    return found


def _inside(folder: Path, number: int) -> str:
    """Return where ``folder`` is inside: in its own place, unless that is taken."""
    if any(folder.is_relative_to(taken) for taken in _PRIVATE):
        return f"{_MOVED}/{number}"
    return str(folder)


def _parts_elsewhere() -> list[tuple[str, str]]:
    """Return the folders of a checkout, or of an installation of it: beside the package inside too.

    There the package looks for them; an installed copy has them within itself.
    """
    package = find_spec("alpyne_grid")
    own = str(Path(package.origin or "").parent) if package is not None else ""
    found = []
    for part in _PARTS:
        spec = find_spec(f"alpyne_grid.{part}")
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            if os.path.dirname(place) != own:
                found.append((place, f"{RUNTIME}/{part}"))
    return found


def _hidden(binds: list[tuple[str, str]], folders: Iterable[Path]) -> tuple[str, ...]:
    """Return where those of ``folders`` are inside that lie in what is bound."""
    found = (_moved(binds, folder.resolve()) for folder in folders)
    return tuple(dict.fromkeys(folder for folder in found if folder))


def _moved(binds: Iterable[tuple[str, str]], path: Path) -> str:
    """Return where ``path`` is inside; empty where it is not."""
    for outside, inside in binds:
        if path.is_relative_to(outside):
            return str(Path(inside) / path.relative_to(outside))
    return ""
