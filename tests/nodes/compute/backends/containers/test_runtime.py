"""The copy of the worker's runtime that is mounted into containers."""

import compileall
import json
import subprocess
import sys
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute.backends.containers import runtime
from alpyne_grid.nodes.compute.backends.containers.runtime import install_runtime


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtime") / "runtime"
    install_runtime(folder)
    return folder


def test_runtime_is_pure_python_that_everybody_may_read(installed: Path) -> None:
    files = [path for path in installed.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".pyc"}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in files)
    folders = [installed, *(path for path in installed.rglob("*") if path.is_dir())]
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in folders)


def test_runtime_needs_nothing_beside_it(installed: Path) -> None:
    """A bare interpreter without site packages reads all of it, as in a foreign image."""
    said = subprocess.run(
        [sys.executable, "-I", "-S", str(installed / "worker" / "boot_container.py")],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={},
    ).stdout
    assert said == f"alpyne {sys.version_info.major}.{sys.version_info.minor} \n"


def test_boot_can_be_read_by_an_older_python(installed: Path) -> None:
    """So that it can say of itself that it is too old."""
    code = (
        "import ast, json, sys; ast.parse(open(sys.argv[1]).read(), feature_version=(3, 7)); "
        "print(json.dumps('fine'))"
    )
    line = [sys.executable, "-c", code, str(installed / "worker" / "boot_container.py")]
    assert json.loads(subprocess.check_output(line)) == "fine"


def test_runtime_is_made_anew(installed: Path) -> None:
    stray = installed / "worker" / "stray.py"
    stray.write_text("")
    install_runtime(installed)
    assert not stray.exists()


def test_what_another_user_has_compiled_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "module.py").write_text("VALUE = 1\n")
    (source / "module.so").write_bytes(b"\x7fELF")
    compileall.compile_dir(source, quiet=2)
    monkeypatch.setattr(runtime.os, "access", lambda path, mode: False)
    runtime.copy_package(source, tmp_path / "target")
    names = sorted(path.name for path in (tmp_path / "target").rglob("*") if path.is_file())
    assert names == ["module.py"]
