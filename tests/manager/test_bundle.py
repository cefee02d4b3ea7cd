"""Bundles: which of the program's modules travel, and that the same code is the same bytes."""

import io
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from alpyne_grid.manager import bundle as bundles
from alpyne_grid.manager.bundle import Bundler
from alpyne_grid.manager.errors import ProgramError

REPORT = """
from alpyne_grid.manager.bundle import Bundler
found = Bundler().current()
print(" ".join(found.names) if found else "nothing")
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def names_found(folder: Path, files: dict[str, str], *argv: str) -> list[str]:
    """Run a script in ``folder`` and return what its bundle holds."""
    write(folder, files)
    done = subprocess.run(
        [sys.executable, *(argv or ("main.py",))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bundle_has_modules_that_the_script_imports_and_what_these_import(tmp_path: Path) -> None:
    files = {
        "main.py": "import helper\n" + REPORT,
        "helper.py": "import json\nfrom package import part\n",
        "package/__init__.py": "",
        "package/part.py": "from . import inner\n",
        "package/inner.py": "",
        "unrelated.py": "",
        "data.txt": "",
    }
    assert names_found(tmp_path, files) == [
        "helper.py",
        "package/__init__.py",
        "package/inner.py",
        "package/part.py",
    ]


def test_bundle_has_modules_that_functions_import_when_they_are_called(tmp_path: Path) -> None:
    files = {
        "main.py": "def later():\n    import late.module\n" + REPORT,
        "late/__init__.py": "",
        "late/module.py": "",
    }
    assert names_found(tmp_path, files) == ["late/__init__.py", "late/module.py"]


def test_bundle_has_a_package_that_is_run_as_a_module(tmp_path: Path) -> None:
    files = {
        "app/__init__.py": "",
        "app/main.py": "from app import part\n" + REPORT,
        "app/part.py": "",
    }
    found = names_found(tmp_path, files, "-m", "app.main")
    assert found == ["app/__init__.py", "app/part.py"]


def test_bundle_is_nothing_when_the_script_stands_alone(tmp_path: Path) -> None:
    assert names_found(tmp_path, {"main.py": "import json, click\n" + REPORT}) == ["nothing"]


def test_bundle_leaves_out_what_is_no_python(tmp_path: Path) -> None:
    files = {
        "main.py": "try:\n    import broken\nexcept SyntaxError:\n    pass\n" + REPORT,
        "broken.py": "def (",
    }
    assert names_found(tmp_path, files) == ["broken.py"]  # its importer hears of it on the node


def test_bundle_has_files_and_packages_that_were_asked_for(tmp_path: Path) -> None:
    write(tmp_path, {"one.py": "1", "pack/__init__.py": "", "pack/table.csv": "a,b"})
    found = Bundler([tmp_path / "one.py", tmp_path / "pack"]).current()
    assert found is not None
    assert found.names == ("one.py", "pack/__init__.py", "pack/table.csv")
    with zipfile.ZipFile(io.BytesIO(found.data)) as archive:
        assert archive.read("pack/table.csv") == b"a,b"


def test_bundle_is_the_same_bytes_for_the_same_code(tmp_path: Path) -> None:
    write(tmp_path, {"a/one.py": "1", "b/one.py": "1"})
    one, other = (
        Bundler([tmp_path / "a/one.py"]).current(),
        Bundler([tmp_path / "b/one.py"]).current(),
    )
    assert one is not None and other is not None
    assert one.sha256 == other.sha256


def test_bundle_says_what_is_too_large_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "BUNDLE_MAX", 10)
    write(tmp_path, {"small.py": "1", "large.py": "1" * 20})
    with pytest.raises(ProgramError, match=r"the largest is large\.py"):
        Bundler([tmp_path / "small.py", tmp_path / "large.py"]).current()


def test_bundle_refuses_modules_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="neither a file nor a folder"):
        Bundler([tmp_path / "missing"])
