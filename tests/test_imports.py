"""Who may import whom, as the sources say; and what a system with less can import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("wire", "nodes", "manager", "tools")

# Each folder, and the packages of this project that it may import.
MAY_IMPORT = {
    "alpyne_proto": {"alpyne_proto"},
    "wire": {"alpyne_proto", "wire"},
    "nodes": {"alpyne_proto", "wire", "nodes"},
    "manager": {"alpyne_proto", "wire", "manager"},
    "tools": {"alpyne_proto", "wire", "nodes", "manager", "tools"},
    "alpyne_grid": {"alpyne_grid", "tools"},
}

# The protocol gets I/O, time, randomness and settings as arguments and never reaches for them.
NOT_IN_THE_PROTOCOL = {
    "asyncio", "concurrent", "datetime", "getpass", "logging", "multiprocessing", "os",
    "pathlib", "platform", "queue", "random", "sched", "secrets", "select", "selectors", "shutil",
    "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "tempfile", "threading",
    "time", "uuid",
}  # fmt: skip
KEY_MAKERS = {"generate", "generate_key", "generate_private_key"}

UNPICKLERS = {"_pickle", "cloudpickle", "dill", "marshal", "pickle", "shelve"}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """Name the module that a file of the checkout is when installed."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in MAPPED:
        parts.insert(0, "alpyne_grid")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Give line and full dotted name of all that a file imports, lazily and dynamically too."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, node.module] if node.module else above)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            named = [part.value for part in node.args[:1] if isinstance(part, ast.Constant)]
            yield from ((node.lineno, str(name)) for name in named)


def called(node: ast.Call) -> str:
    """Name the function that is called, without what it is an attribute of."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def own_folder(name: str) -> str | None:
    """Name the folder of the checkout that a dotted name leads to; None for others' packages."""
    parts = name.split(".")
    if parts[0] == "alpyne_grid":
        return parts[1] if len(parts) > 1 and parts[1] in MAPPED else "alpyne_grid"
    return parts[0] if parts[0] in MAY_IMPORT else None


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folder_imports_only_folders_below_it(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {"alpyne_grid"}  # its __init__ holds the version and no more
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(folder)
        for line, name in imported_names(path)
        if own_folder(name) not in {None, *allowed}
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folder_never_imports_a_mapped_folder_by_its_bare_name(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(folder)
        for line, name in imported_names(path)
        if name.split(".")[0] in MAPPED
    ]
    assert wrong == []


def test_protocol_imports_no_input_output_clock_or_chance() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources("alpyne_proto")
        for line, name in imported_names(path)
        if name.split(".")[0] in NOT_IN_THE_PROTOCOL
    ]
    assert wrong == []


def test_protocol_makes_no_keys_of_its_own() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} calls {called(node)}()"
        for path in sources("alpyne_proto")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and called(node) in KEY_MAKERS
    ]
    assert wrong == []


# ---- a daemon never unpickles, unmarshals or runs what a client sent ----


def is_worker(path: Path) -> bool:
    """Say whether a file is part of the worker: named worker.py, or in a folder named worker."""
    return "worker" in path.relative_to(ROOT).with_suffix("").parts


def daemon_sources() -> list[Path]:
    everything = [*sources("alpyne_proto"), *sources("wire"), *sources("nodes")]
    return [path for path in everything if not is_worker(path)]


def test_daemon_imports_no_unpickler_outside_files_named_worker() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in daemon_sources()
        for line, name in imported_names(path)
        if name.split(".")[0] in UNPICKLERS
    ]
    assert wrong == []


def test_daemon_imports_no_file_of_the_worker_that_unpickles() -> None:
    unpickling = {
        module_name(path)
        for path in filter(is_worker, sources("nodes"))
        if any(name.split(".")[0] in UNPICKLERS for _, name in imported_names(path))
    }
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in daemon_sources()
        for line, name in imported_names(path)
        if name in unpickling or name.rpartition(".")[0] in unpickling
    ]
    assert wrong == []


def test_daemon_runs_no_text_as_code() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} calls {node.func.id}()"
        for path in daemon_sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile")
    ]
    assert wrong == []


# ---- importing for real ----


@pytest.mark.parametrize("folder", MAPPED)
def test_mapped_folder_refuses_when_imported_by_its_bare_name(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: this folder is the package alpyne_grid.{folder}: import it by that name"
    )


# Only imports by this project's own modules fail: the libraries it uses know how to do without.
HIDE_AND_IMPORT = """
import builtins, importlib, os, socket, sys

HIDDEN = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
real_import = builtins.__import__

def import_with_less(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__") or ""
    if name in HIDDEN and importer.partition(".")[0] in ("alpyne_grid", "alpyne_proto"):
        raise ImportError(f"{name} is hidden from {importer}")
    return real_import(name, globals, locals, fromlist, level)

builtins.__import__ = import_with_less
del os.fork, os.forkpty, socket.AF_UNIX
for module in sys.argv[1:]:
    importlib.import_module(module)
"""

# Parts that say of themselves that they need a POSIX system.
POSIX_ONLY = ("nodes/compute/", "tools/bench", "tools/contracts/compute", "tools/contracts/hostile")


@pytest.mark.parametrize("folder", ["alpyne_proto", *MAPPED])
def test_all_but_compute_node_imports_when_fork_unix_sockets_and_fcntl_are_missing(
    folder: str,
) -> None:
    modules = [
        module_name(path)
        for path in sources(folder)
        if not str(path.relative_to(ROOT)).startswith(POSIX_ONLY) and path.name != "__main__.py"
    ]
    done = subprocess.run(
        [sys.executable, "-c", HIDE_AND_IMPORT, *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
