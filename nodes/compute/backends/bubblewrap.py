"""The command line of bubblewrap, which makes the sandboxes of level 1. Source: bwrap(1)."""

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

from alpyne_grid.nodes.compute.backends.cells import Walls
from alpyne_grid.nodes.compute.backends.sandbox_view import RUNTIME, View

PROGRAM = "bwrap"
BROUGHT = "/run/alpyne"  # where the cell's own folder is: programs and bundles
SCRATCH = "/tmp"
SHARED = "/dev/shm"
SHARED_MOST = 64 << 20  # bytes of POSIX shared memory, as container engines have it
USER = 65534  # nobody, inside; outside it is the daemon's own user, or one of a ``Stage``
DESCRIPTORS = 4096  # of one process; each takes memory of the kernel
NETWORKS = ("host",)  # the only one that can be given without more rights than a user has
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone",
    "mime.types", "nsswitch.conf", "ssl/openssl.cnf",
)  # fmt: skip
_ETC_NETWORK = ("resolv.conf", "hosts", "services", "protocols", "ssl/certs", "ca-certificates")


def find_program() -> str:
    """Return bwrap's path; OSError where it is not installed."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise OSError(
            "level 1 needs bubblewrap, and there is no program bwrap on PATH; install it "
            "(Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap), or start "
            "the node with --level 0 for owners you trust"
        )
    return found


class Wiring(NamedTuple):
    """The descriptors that bubblewrap inherits, by what it does with them."""

    control: int  # for the worker
    job: int  # for the worker
    info: int  # it writes the pid of its child
    block: int  # it waits until there is something to be read
    seccomp: int  # it reads the filter


def command(
    program: str,
    view: View,
    walls: Walls,
    wiring: Wiring,
    brought: str,
    processes: int = 0,
    place: Callable[[str], str] = str,
) -> list[str]:
    """Return the command line of one cell.

    ``brought``: the cell's own folder, whose files are readable inside. ``processes``: at most so
    many, by a resource limit; 0 = none. ``place``: says where a file or folder is for whoever
    starts bubblewrap.
    """
    processes += 1 if processes else 0  # the supervisor is not the job's
    return [
        *(program, "--die-with-parent", "--new-session", "--as-pid-1"),
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        "--unshare-cgroup-try",  # kernels before 4.6 have none; the files are not there anyway
        *(() if walls.network in NETWORKS else ("--unshare-net",)),
        *("--uid", str(USER), "--gid", str(USER), "--hostname", "alpyne-job"),
        *("--cap-drop", "ALL", "--seccomp", str(wiring.seccomp)),
        *("--info-fd", str(wiring.info), "--block-fd", str(wiring.block)),
        *_system(walls),
        *_private(walls.disk_bytes),
        *_binds((*view.binds, (brought, BROUGHT)), place),
        *_hiding(view.hidden),
        *("--remount-ro", "/", "--chdir", SCRATCH, "--"),
        *(view.python, "-E", "-P", "-S", f"{RUNTIME}/worker/boot_sandbox.py"),
        *(str(processes), str(DESCRIPTORS), str(_file_bytes(walls))),
        *(str(wiring.control), str(wiring.job), SCRATCH, *view.places),
    ]


def _system(walls: Walls) -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        if os.path.islink(name):
            arguments += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            arguments += ["--ro-bind", name, name]
    for name in (*_ETC, *(_ETC_NETWORK if walls.network in NETWORKS else ())):
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return arguments


def _private(disk_bytes: int) -> list[str]:
    return [
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "0700", "--size", str(min(disk_bytes, SHARED_MOST)), "--tmpfs", SHARED),
        *("--remount-ro", "/dev"),
        *("--perms", "0700", "--size", str(disk_bytes), "--tmpfs", SCRATCH),
        *("--dir", "/var", "--symlink", SCRATCH, "/var/tmp"),
    ]


def _binds(binds: tuple[tuple[str, str], ...], place: Callable[[str], str]) -> list[str]:
    arguments = []
    for outside, inside in binds:
        arguments += ["--ro-bind", place(outside), inside]
    return arguments


def _hiding(hidden: tuple[str, ...]) -> list[str]:
    arguments = []
    for folder in hidden:
        arguments += ["--tmpfs", folder, "--remount-ro", folder]
    return arguments


def _file_bytes(walls: Walls) -> int:
    """Return how long a file may be: a little beyond the disk, which is to be full first."""
    return walls.disk_bytes + 4096


def advice(said: str) -> str:
    """Return what to do about what bubblewrap said when it failed."""
    said = " ".join(said.split()) or "it ended without a word"
    if "namespace" in said or "uid map" in said or "Operation not permitted" in said:
        return (
            f"{said[:300]}: this machine does not let ordinary programs make user namespaces, which"
            " level 1 needs. Debian before 11: sysctl -w kernel.unprivileged_userns_clone=1; "
            "Ubuntu since 23.10: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an "
            "AppArmor profile for bwrap; any: sysctl -w user.max_user_namespaces=10000; in a "
            "container: allow it to unshare. Or start the node with --level 0 for owners you trust"
        )
    return f"bubblewrap failed: {said[:300]}"
