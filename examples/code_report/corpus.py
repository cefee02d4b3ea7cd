"""The main job's input: a folder of Python source files, by default the standard library's."""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from alpyne_proto.errors import AlpyneError

# Of the standard library: what is no library (tests, an editor, demonstrations), and what others
# have installed into it.
LEFT_OUT = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "site-packages",
        "test",
        "tests",
        "tkinter",
        "turtledemo",
    }
)
FILES_MIN = 8  # fewer would not keep two nodes busy, nor let one be lost while it works


class NoInput(AlpyneError):
    """The folder has too few Python files for the main job."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder and the files of it that are read, relative, sorted."""

    folder: Path
    files: tuple[str, ...]
    size_bytes: int


def find_corpus(folder: Path | None) -> Corpus:
    """Return the Python files below ``folder``, or of the running Python's standard library.

    Raises NoInput where there are fewer than FILES_MIN.
    """
    left_out = LEFT_OUT if folder is None else frozenset({"__pycache__"})
    root = (folder or Path(sysconfig.get_path("stdlib"))).resolve()
    files = []
    size = 0
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or left_out & set(relative.parts) or path.is_symlink() or not path.is_file():
            continue
        name = relative.as_posix()
        if name.isprintable():
            files.append(name)
            size += path.stat().st_size
    if len(files) < FILES_MIN:
        raise NoInput(
            f"{root}: expected at least {FILES_MIN} Python files (*.py), found {len(files)}; "
            "name another folder"
        )
    return Corpus(root, tuple(sorted(files)), size)
