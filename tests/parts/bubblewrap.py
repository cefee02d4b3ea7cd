"""Whether bubblewrap can do here what isolation level 1 needs."""

import os
import shutil
import subprocess
from pathlib import Path

from parts.places import PartFailed

_TRIAL = ("--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev")
_RESTRICTIONS = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "kernel.unprivileged_userns_clone=1"),
    "/proc/sys/user/max_user_namespaces": ("0", "user.max_user_namespaces=10000"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
}


def command() -> str:
    """Return the path of bwrap, "" if it is not installed."""
    return shutil.which("bwrap", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin") or ""


def try_out() -> str:
    """Run something in namespaces of its own; return the version. Raises PartFailed."""
    bwrap = command()
    if not bwrap:
        raise PartFailed("bwrap is not installed")
    done = subprocess.run(
        [bwrap, *_TRIAL, "--proc", "/proc", "true"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PartFailed(f"bwrap makes no namespaces: {done.stderr.strip()[-300:]}{_remedy()}")
    asked = subprocess.run([bwrap, "--version"], capture_output=True, text=True, check=False)
    return asked.stdout.split()[-1] if asked.stdout.split() else "of unknown version"


def _remedy() -> str:
    for name, (forbidden, setting) in _RESTRICTIONS.items():
        path = Path(name)
        if path.exists() and path.read_text().strip() == forbidden:
            return f"; the system forbids it, type: sudo sysctl -w {setting}"
    return "; a container around this may forbid it"
