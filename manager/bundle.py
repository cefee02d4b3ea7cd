"""The code that travels with jobs: modules beside the main script, as one zip file by SHA-256.

Nodes have Python and this library, nothing of the user's. What ``__main__`` defines is pickled by
value; modules that it imports from its own folder travel in a bundle: those that are loaded, and
all that these name in import statements, also inside functions. The zip is deterministic, so that
the same code has the same hash and is sent once per node. Installed packages do not travel.
"""

import ast
import hashlib
import io
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cloudpickle
from alpyne_grid.manager.errors import ProgramError

BUNDLE_MAX = 16 << 20  # bytes of source; more is data, and belongs into a container
FILES_MAX = 2_000
_OWN = ("alpyne_grid", "alpyne_proto")
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A zip of modules. ``sha256``: its hash; ``names``: the files in it."""

    data: bytes
    sha256: bytes
    names: tuple[str, ...]


class Bundler:
    """Finds the program's modules; looks again when more are loaded.

    ``modules``: files and package folders to send in any case. Raises ProgramError for one that is
    not there.
    """

    def __init__(self, modules: Sequence[str | Path] = ()) -> None:
        self._wanted = dict(_wanted_files(modules))
        self._loaded = -1
        self._bundle: Bundle | None = None

    def current(self) -> Bundle | None:
        """Return the bundle of this process's code, or None where there is nothing to send."""
        if len(sys.modules) != self._loaded:
            self._loaded = len(sys.modules)
            files = {**_beside_main(), **self._wanted}
            self._bundle = _pack(files) if files else None
        return self._bundle


_decided: dict[str, tuple[ModuleType, str | None]] = {}  # modules that send_by_value has looked at


def send_by_value(module_name: str | None) -> None:
    """Let cloudpickle take a module by value where neither nodes nor the bundle can have it.

    That is a module outside the main script's folder and outside all installed packages: a test
    module, a notebook's helper, a package that is being developed.
    """
    module = sys.modules.get(module_name or "")
    if module is None or module_name == "__main__":
        return
    decided = (module, getattr(sys.modules.get("__main__"), "__file__", None))
    if _decided.get(module.__name__) == decided:
        return  # paths are looked at once: that takes longer than all the rest of a small call
    _decided[module.__name__] = decided
    if not _is_elsewhere(module):
        return
    top = sys.modules.get(module.__name__.partition(".")[0])
    for owner in (module, top):
        if owner is not None and getattr(owner, "__file__", None):
            cloudpickle.register_pickle_by_value(owner)


def _is_elsewhere(module: ModuleType) -> bool:
    name = module.__name__
    file = _file_of(module)
    if file is None or name.partition(".")[0] in _OWN or _is_installed(file):
        return False
    root = _main_root()
    return root is None or _expected_name(file, root) != name


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    return Path(file).resolve()


def _installed_folders() -> list[Path]:
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return [Path(paths[name]).resolve() for name in names if name in paths]


def _is_installed(file: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(folder) for folder in _installed_folders())


def _expected_name(file: Path, root: Path) -> str | None:
    """Return the name under which ``file`` is imported when ``root`` is on the path."""
    if not file.is_relative_to(root):
        return None
    parts = list(file.relative_to(root).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def _main_root() -> Path | None:
    """Return the folder that the main program imports its own modules from."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None:
        return Path.cwd().resolve() if {"", str(Path.cwd())} & set(sys.path) else None
    root = Path(file).resolve().parent
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.parent:  # python -m package.module
        for _ in spec.parent.split("."):
            root = root.parent
    return None if _is_installed(Path(file).resolve()) else root


def _beside_main() -> dict[str, bytes]:
    """Return the program's own modules: name in the zip -> content."""
    root = _main_root()
    if root is None:
        return {}
    waiting = [
        file
        for module in list(sys.modules.values())
        if (file := _file_of(module)) is not None
        and not _is_installed(file)
        and _expected_name(file, root) == module.__name__
        and module.__name__.partition(".")[0] not in _OWN
    ]
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    imported_by_main = _imported(Path(main).resolve(), root) if main else ()
    waiting += imported_by_main
    found: dict[str, bytes] = {}
    while waiting:
        file = waiting.pop()
        name = file.relative_to(root).as_posix()
        if name in found or not file.is_file():
            continue
        found[name] = file.read_bytes()
        _check_bounds(found)
        waiting += _packages_of(file, root)
        waiting += _imported(file, root)
    return found


def _packages_of(file: Path, root: Path) -> Iterator[Path]:
    for folder in file.relative_to(root).parents:
        if folder != Path():
            yield root / folder / "__init__.py"


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """Yield the files below ``root`` that ``file`` may import."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # it is not Python; whoever imports it will hear so
    package = file.relative_to(root).parent.parts if file.is_relative_to(root) else ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(tuple(alias.name.split(".")), root)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from _files_of(base, root)
            for alias in node.names:
                yield from _files_of((*base, alias.name), root)


def _files_of(parts: tuple[str, ...], root: Path) -> Iterator[Path]:
    if parts and parts[0] not in _OWN:
        for length in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:length])
            yield from (
                file
                for file in (place.with_name(place.name + ".py"), place / "__init__.py")
                if file.is_file()
            )


def _wanted_files(modules: Iterable[str | Path]) -> Iterator[tuple[str, bytes]]:
    for given in modules:
        path = Path(given)
        if path.is_file():
            yield path.name, path.read_bytes()
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    yield f"{path.name}/{file.relative_to(path).as_posix()}", file.read_bytes()
        else:
            raise ProgramError(
                f"modules: {path} is neither a file nor a folder; give .py files and packages"
            )


def _check_bounds(files: dict[str, bytes]) -> None:
    size = sum(map(len, files.values()))
    if size <= BUNDLE_MAX and len(files) <= FILES_MAX:
        return
    largest = max(files, key=lambda name: len(files[name]))
    raise ProgramError(
        f"the modules beside the main script have {size} bytes in {len(files)} files, at most "
        f"{BUNDLE_MAX} and {FILES_MAX} can travel with jobs (the largest is {largest}); move data "
        "into a container, and the program into a folder of its own"
    )


def _pack(files: dict[str, bytes]) -> Bundle:
    _check_bounds(files)
    buffer = io.BytesIO()
    names = tuple(sorted(files))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    data = buffer.getvalue()
    return Bundle(data, hashlib.sha256(data).digest(), names)
