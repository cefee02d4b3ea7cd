"""The distribution as users get it: built, installed, run beside a user's own files."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("wire", "nodes", "manager", "tools")
PACKAGES = ("alpyne_proto", "alpyne_grid", *MAPPED)
IMPORT_ALL = "import alpyne_proto, " + ", ".join(f"alpyne_grid.{folder}" for folder in MAPPED)
HAS_COMMAND = any((ROOT / "tools" / name).exists() for name in ("cli.py", "cli"))

# Bytecode and caches, and what only this machine has.
NOT_SOURCE = ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without this run's PYTHONPATH; return what it printed."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_of_checkout(target: Path) -> Path:
    """Copy the sources, so that building leaves nothing behind in the checkout."""
    copytree(ROOT, target, ignore=NOT_SOURCE)
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build a wheel from a copy of the checkout, and an sdist with a second wheel from that."""
    folder = tmp_path_factory.mktemp("build")
    checkout = copy_of_checkout(folder / "checkout")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    run(*build, folder / "direct", "--wheel", cwd=checkout)
    run(*build, folder / "by-sdist", cwd=checkout)
    [wheel] = (folder / "direct").glob("*.whl")
    [sdist] = (folder / "by-sdist").glob("*.tar.gz")
    [wheel_of_sdist] = (folder / "by-sdist").glob("*.whl")
    return {
        "checkout": checkout,
        "wheel": wheel,
        "sdist": sdist,
        "wheel of the sdist": wheel_of_sdist,
    }


def empty_environment(folder: Path) -> Path:
    """Make a virtual environment that has the dependencies and not this project; return python.

    A .pth file names the packages that are installed here. Python does not read the .pth files
    there, so an editable install of the checkout stays out.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    packages = site_packages(folder)
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(here)))
    return folder / "bin" / "python"


def site_packages(environment: Path) -> Path:
    [found] = (environment / "lib").glob("python3.*/site-packages")
    return found


def install(python: Path, *what: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*pip, "--no-index", *what, cwd=python.parent)


@pytest.fixture(scope="module", params=["wheel", "wheel of the sdist"])
def installed(
    request: pytest.FixtureRequest,
    built: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Install one of the wheels; return the environment's folder."""
    environment = tmp_path_factory.mktemp("environment")
    install(empty_environment(environment), built[request.param])
    return environment


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """Make a folder with the user's own modules, named like the folders of the checkout."""
    (tmp_path / "tools.py").write_text("WHOSE = 'the user'\n")
    (tmp_path / "wire.py").write_text("WHOSE = 'the user'\n")
    (tmp_path / "nodes.py").write_text("raise RuntimeError('the user did not import this')\n")
    (tmp_path / "manager").mkdir()
    (tmp_path / "manager" / "__init__.py").write_text("WHOSE = 'the user'\n")
    return tmp_path


def package_files(checkout: Path) -> set[str]:
    """List the files of all packages, under the names that they have when installed."""
    found = set()
    for package in PACKAGES:
        prefix = "alpyne_grid/" if package in MAPPED else ""
        found |= {
            prefix + path.relative_to(checkout).as_posix()
            for path in (checkout / package).rglob("*")
            if path.is_file()
        }
    return found


# ---- what is in the files ----


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(built: dict[str, Path]) -> None:
    names = zipfile.ZipFile(built["wheel"]).namelist()
    held = {name for name in names if ".dist-info/" not in name}
    assert held == package_files(built["checkout"])


def test_wheel_of_the_sdist_equals_the_wheel_of_the_checkout(built: dict[str, Path]) -> None:
    contents = []
    for kind in ("wheel", "wheel of the sdist"):
        wheel = zipfile.ZipFile(built[kind])
        contents.append({name: wheel.getinfo(name).CRC for name in wheel.namelist()})
    assert contents[0] == contents[1]


def test_sdist_holds_what_a_checkout_needs_to_run_its_tests(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"dev", "LICENSE", "README.md", "setup.py", "tests/test_packaging.py"}
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(".venv")]


# ---- installed ----


def test_installed_copy_adds_only_its_two_packages_to_site_packages(installed: Path) -> None:
    added = {path.name for path in site_packages(installed).iterdir()}
    assert added == {
        "alpyne_grid",
        "alpyne_proto",
        "alpyne_grid-0.1.0.dist-info",
        "dependencies.pth",
    }


def test_installed_copy_imports_when_the_user_has_modules_of_the_same_names(
    installed: Path, users_folder: Path
) -> None:
    code = f"{IMPORT_ALL}\nprint(alpyne_grid.wire.__file__, alpyne_grid.__path__)"
    out = run(installed / "bin" / "python", "-c", code, cwd=users_folder)
    folder = site_packages(installed) / "alpyne_grid"
    assert out.split("\n")[0] == f"{folder}/wire/__init__.py ['{folder}']"


def test_user_gets_his_own_modules_when_alpyne_is_imported_first(
    installed: Path, users_folder: Path
) -> None:
    code = f"{IMPORT_ALL}\nimport tools, wire, manager\n"
    code += "print(tools.WHOSE, wire.WHOSE, manager.WHOSE, sep=', ')"
    out = run(installed / "bin" / "python", "-c", code, cwd=users_folder)
    assert out == "the user, the user, the user\n"


@pytest.mark.skipif(not HAS_COMMAND, reason="the command line is not part of this checkout")
@pytest.mark.parametrize("command", [["alpyne"], ["python", "-m", "alpyne_grid"]])
def test_command_prints_its_help_when_the_user_has_modules_of_the_same_names(
    installed: Path, users_folder: Path, command: list[str]
) -> None:
    out = run(installed / "bin" / command[0], *command[1:], "--help", cwd=users_folder)
    assert out.startswith("Usage: ")
    assert "alpyne" in out.splitlines()[0]


PROGRAM = """
import tools
from alpyne_grid.manager import Manager

def work(n):
    return f"{tools.WHOSE} says {n}"

with Manager.connect() as grid:
    print(list(grid.map(work, range(3))))
"""


def test_installed_copy_runs_nodes_and_jobs_beside_the_users_modules(
    installed: Path, users_folder: Path
) -> None:
    """All from the user's folder: the daemon, the command line, a program and its worker."""
    (users_folder / "program.py").write_text(PROGRAM)
    (users_folder / "job.py").write_text("import wire\n\ndef main():\n    return wire.WHOSE\n")
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    clean["ALPYNE_HOME"] = str(users_folder / "home")
    alpyne = str(installed / "bin" / "alpyne")

    def typed(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=users_folder, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    node = subprocess.Popen(
        [alpyne, "node", "compute", "--state", "node", "--slots", "1"],
        cwd=users_folder,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert node.stdout is not None
        typed(alpyne, "pair", node.stdout.readline().split()[-1])
        assert typed(alpyne, "run", "job.py") == "the user\n"
        printed = typed(installed / "bin" / "python", "program.py")
        assert printed == "['the user says 0', 'the user says 1', 'the user says 2']\n"
    finally:
        node.terminate()
        assert node.wait(10) == 0
        node.stdout.close()  # type: ignore[union-attr]


# ---- not installed, or installed in place ----


def test_bare_checkout_imports_when_only_its_root_is_on_the_path(tmp_path: Path) -> None:
    python = empty_environment(tmp_path / "environment")
    packages = site_packages(tmp_path / "environment")
    (packages / "checkout.pth").write_text(f"{ROOT}\n")
    code = f"{IMPORT_ALL}; print(alpyne_grid.wire.__file__)"
    assert run(python, "-c", code, cwd=tmp_path) == f"{ROOT}/wire/__init__.py\n"


def test_editable_install_imports_from_the_checkout(tmp_path: Path) -> None:
    checkout = copy_of_checkout(tmp_path / "checkout")
    python = empty_environment(tmp_path / "environment")
    install(python, "--no-build-isolation", "--editable", checkout)
    code = f"{IMPORT_ALL}; print(alpyne_grid.tools.__file__)"
    assert run(python, "-c", code, cwd=tmp_path) == f"{checkout}/tools/__init__.py\n"
