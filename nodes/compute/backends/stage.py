"""For a daemon that is root: a mount namespace in which another user can start sandboxes.

A sandbox whose daemon is root is started as another user, a different one for each cell: else its
jobs would be root to the kernel wherever that asks for the user and not for capabilities. That user
cannot reach what lies in root's folders (a Python below ``/root``, the state folder), so exactly
what a sandbox may see is mounted once more, in a mount namespace that nobody else has.
Sources: mount_namespaces(7), nsenter(1), setpriv(1).
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

USERS = 0x7000_0000  # the first of the users of cells, beyond those of people and systems
USERS_MOST = 1 << 24
GROUP = USERS  # of all of them: it may read the files that are handed in
_TOOLS = ("unshare", "mount", "nsenter", "setpriv")  # of util-linux
_MOUNT_POINTS = ("/mnt", "/media", "/srv", "/opt")  # of which one is empty enough to be covered
_UNSHARE = ("unshare", "--mount", "--propagation", "private")
_TEXT_MAX = 300
_SCRIPT = """
at=$1; shift
mount -t tmpfs -o mode=0755,size=1m,nosuid,nodev alpyne "$at"
number=0
for source do
    if [ -d "$source" ]; then mkdir "$at/$number"; else : > "$at/$number"; fi
    mount --rbind "$source" "$at/$number"
    number=$((number + 1))
done
echo ready
read -r _ || :
"""


class Stage:
    """The mount namespace; it lives as long as it is open or a sandbox is in it."""

    def __init__(self, sources: Iterable[str]) -> None:
        """Mount all of ``sources`` (files and folders) there; OSError with advice if it fails."""
        paths = list(dict.fromkeys(sources))
        for name in _TOOLS:
            if shutil.which(name) is None:
                raise OSError(f"there is no program {name} on PATH; install util-linux and mount")
        at = _mount_point(paths)
        self._places = {path: f"{at}/{number}" for number, path in enumerate(paths)}
        self._descriptor = _make(at, paths)

    def place(self, path: str) -> str:
        """Return where ``path``, a source or what lies in one, is in the namespace."""
        if path in self._places:
            return self._places[path]
        for source, place in self._places.items():
            if path.startswith(f"{source}/"):
                return place + path[len(source) :]
        return path

    def entering(self, user: int) -> list[str]:
        """Return the words before a command that run it here as ``user``, by the same process."""
        # By this process's own entry: a descriptor that is inherited would reach the sandbox.
        return [
            *("nsenter", f"--mount=/proc/{os.getpid()}/fd/{self._descriptor}", "--"),
            *("setpriv", "--reuid", str(user), "--regid", str(GROUP), "--clear-groups"),
            *("--inh-caps=-all", "--"),
        ]

    def close(self) -> None:
        """Let go of the namespace."""
        os.close(self._descriptor)


def _mount_point(paths: list[str]) -> str:
    for folder in _MOUNT_POINTS:
        if os.path.isdir(folder) and not any(Path(path).is_relative_to(folder) for path in paths):
            return folder
    raise OSError(f"none of the folders {', '.join(_MOUNT_POINTS)} can be used as a mount point")


def _make(at: str, paths: list[str]) -> int:
    """Return a descriptor of a new mount namespace, made by a process that ends again."""
    process = subprocess.Popen(
        [*_UNSHARE, "sh", "-eu", "-c", _SCRIPT, "sh", at, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    with process:
        if process.stdout.readline().strip() == b"ready":
            return os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            process.stdin.close()
        said = " ".join(process.stderr.read(4 * _TEXT_MAX).decode("utf-8", "replace").split())
    raise OSError(
        f"a mount namespace for sandboxes cannot be made: {said[:_TEXT_MAX]}. A node that runs as "
        "root needs CAP_SYS_ADMIN for level 1; run it as an ordinary user, which needs none"
    )
