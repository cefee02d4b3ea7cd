"""The modules that a program file imports from its own folder, so that they travel with it."""

import ast
from collections.abc import Iterator
from pathlib import Path


def modules_beside(file: Path) -> list[Path]:
    """Return modules and packages in the folder of ``file`` that it imports, and what these do.

    Import statements are read, not run; a file that is not Python has none.
    """
    folder = file.parent
    found: dict[Path, None] = {}
    waiting = [file]
    while waiting:
        for name in _imported_names(waiting.pop()):
            place = _place(folder, name)
            if place is not None and place not in found and place != file:
                found[place] = None
                waiting += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return list(found)


def _place(folder: Path, name: str) -> Path | None:
    if (folder / f"{name}.py").is_file():
        return folder / f"{name}.py"
    package = folder / name
    return package if (package / "__init__.py").is_file() else None


def _imported_names(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # whoever runs it will say what is wrong
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
