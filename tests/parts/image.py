"""Images for the tests, made of what this machine runs: nothing is pulled.

The image of Python holds the interpreter that runs this, its standard library, a shell, a few
commands, and the libraries that they need, all at the paths that they have here. The image without
Python holds the shell and the commands alone.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

RECIPE = "2"  # a new number makes the images anew
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHON_IMAGE = f"alpyne-python:{MINOR}"  # what a node runs jobs in
OTHER_IMAGE = f"alpyne-python-other:{MINOR}"  # the same, but for the word "other" in WHICH
BARE_IMAGE = "alpyne-bare:1"  # a shell, but no Python
WHICH = "/etc/alpyne-image"
LABEL = "alpyne.parts"
CHANGES = ["ENV PATH=/usr/local/bin:/usr/bin:/bin"]

COMMANDS = (
    *("sh", "cat", "chmod", "cp", "cut", "date", "dd", "df", "echo", "env", "false", "find"),
    *("grep", "head", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv"),
    *("nproc", "ps", "rm", "sed", "seq", "setsid", "sleep", "sort", "tail", "test", "touch"),
    *("tr", "true", "unshare", "wc"),
)

LEFT_OUT = frozenset(
    {
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
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"
Entries = dict[str, Path]  # path in the image -> file of this machine


def interpreter() -> Path:
    """Return the file of the interpreter itself, also where a virtual environment runs it."""
    return Path(sys.executable).resolve()


def identity(entries: Entries) -> str:
    """Return a word that changes with what the image would hold."""
    digest = hashlib.sha256(f"{RECIPE} {sys.version} {CHANGES}".encode())
    for name, path in sorted(entries.items()):
        # Bytecode comes and goes; it follows from its source.
        if not name.endswith(".pyc"):
            state = path.stat()
            digest.update(f"{name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def of_python() -> Entries:
    """Return the files of the image of Python."""
    binary = interpreter()
    stdlib = Path(sysconfig.get_path("stdlib")).resolve()
    entries = {str(path): path for path in _library(stdlib)}
    # Extension modules may lie in a folder of their own.
    extensions = Path(sysconfig.get_config_var("DESTSHARED") or stdlib).resolve()
    if extensions.is_dir():
        entries |= {str(path): path for path in _library(extensions)}
    entries[str(binary)] = binary
    native = [binary, *(path for path in entries.values() if path.suffix == ".so")]
    return without_python() | entries | {str(path): path for path in _needed_by(native)}


def without_python() -> Entries:
    """Return the files of the image without Python."""
    entries: Entries = {}
    for command in COMMANDS:
        if found := shutil.which(command, path="/usr/bin:/bin:/usr/sbin:/sbin"):
            entries[f"/usr/bin/{command}"] = Path(found).resolve()
    return entries | {str(path): path for path in _needed_by(list(entries.values()))}


def links(entries: Entries) -> dict[str, str]:
    """Return symbolic links that belong to the files: path in the image -> its target."""
    made = {f"/bin/{Path(name).name}": name for name in entries if name.startswith("/usr/bin/")}
    if (binary := str(interpreter())) in entries:
        for name in ("python", "python3", f"python{MINOR}"):
            if f"/usr/local/bin/{name}" != binary:
                made[f"/usr/local/bin/{name}"] = binary
    return made


def write(entries: Entries, which: str, file: BinaryIO) -> None:
    """Write the tar of an image; ``which``: what its file WHICH says."""
    texts = {"/etc/passwd": USERS, "/etc/group": GROUPS, WHICH: f"{which}\n"}
    symbolic = links(entries)
    folders = {"/tmp", "/root", "/run", "/var/tmp", "/proc", "/sys", "/dev"}
    for name in (*entries, *texts, *symbolic):
        folders |= {str(parent) for parent in Path(name).parents}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(folders - {"/"}):
            archive.addfile(_entry(name, tarfile.DIRTYPE, 0o1777 if "tmp" in name else 0o755))
        for name, text in texts.items():
            entry = _entry(name, tarfile.REGTYPE, 0o644)
            entry.size = len(text)
            archive.addfile(entry, BytesIO(text.encode()))
        for name, target in sorted(symbolic.items()):
            entry = _entry(name, tarfile.SYMTYPE, 0o777)
            entry.linkname = target
            archive.addfile(entry)
        for name, path in sorted(entries.items()):
            with open(path, "rb") as content:
                state = os.fstat(content.fileno())
                executable = state.st_mode & 0o111 or path.suffix == ".so"
                entry = _entry(name, tarfile.REGTYPE, 0o755 if executable else 0o644)
                entry.size = state.st_size
                entry.mtime = int(state.st_mtime)  # bytecode is checked against it
                archive.addfile(entry, content)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.type, entry.mode = kind, mode  # of root's, whoever owns it here
    return entry


def _library(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if name not in LEFT_OUT and not name.startswith("config-")
        ]
        for name in files:
            path = Path(root) / name
            foreign = name.endswith(".pyc") and sys.implementation.cache_tag not in name
            if not foreign and path.suffix != ".a" and path.is_file():
                yield path


def _needed_by(files: list[Path]) -> set[Path]:
    """Return the shared libraries, and the loader, that files of machine code ask for (ldd(1))."""
    asked = subprocess.run(
        ["ldd", *files], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    )
    needed = set()
    for line in asked.stdout.splitlines():
        words = line.split()
        path = words[2] if words[1:2] == ["=>"] and len(words) > 2 else (words or [""])[0]
        if path.startswith("/") and not path.endswith(":"):
            needed.add(Path(path))
    return needed
