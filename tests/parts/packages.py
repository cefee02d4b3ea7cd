"""Debian's packages that the parts need, installed where that is allowed."""

import os
import shutil
import subprocess
from collections.abc import Iterable

from parts.places import PartFailed

_INSTALL = ("apt-get", "install", "-y", "-q", "--no-install-recommends")


def install(names: Iterable[str]) -> None:
    """Install packages. Raises PartFailed saying what to type where it may not or cannot."""
    wanted = list(names)
    if shutil.which("apt-get") is None:
        raise PartFailed(
            f"install, by the system's own means, what Debian calls {', '.join(wanted)}"
        )
    if os.geteuid() != 0:
        raise PartFailed(f"type: sudo apt-get install --no-install-recommends {' '.join(wanted)}")
    if _run(*_INSTALL, *wanted) == "":
        return
    # A new machine has no lists, or such as name packages that are no longer offered.
    _run("apt-get", "update", "-q")
    if said := _run(*_INSTALL, *wanted):
        raise PartFailed(f"apt-get cannot install {' '.join(wanted)}:\n{said}")


def _run(*command: str) -> str:
    """Run a command; return "" or, if it failed, the end of what it said."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout.strip()[-1000:] or "it failed"
