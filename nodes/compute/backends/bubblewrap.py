"""The command line of bubblewrap: what a sandbox of level 1 sees of the machine.

Nothing is there unless it is named here: the system's programs and libraries, the interpreter with
its packages, and the worker's runtime, all read-only; ``/tmp`` of limited size, which is the jobs'
only place to write; private ``/proc`` and ``/dev``. Source: bwrap(1).
"""

import os
import shutil
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from alpyne_grid.nodes.compute.backends.cells import Walls
from alpyne_grid.nodes.compute.backends.launch import BOOT, package_places

PROGRAM = "bwrap"
RUNTIME = "/alpyne"  # where the runtime's packages are
BROUGHT = "/run/alpyne"  # where the cell's own folder is: programs and bundles
SCRATCH = "/tmp"
SHARED = "/dev/shm"
SHARED_MOST = 64 << 20  # bytes of POSIX shared memory, as container engines have it
USER = 65534  # nobody, inside; outside it is still the daemon's own user
DESCRIPTORS = 4096  # of one process; each takes memory of the kernel
NETWORKS = ("host",)  # the only one that can be given without more rights than a user has
_MOVED = "/opt/alpyne"  # where folders go inside whose own place is scratch or private
_PRIVATE = ("/tmp", "/dev", "/proc", "/run")
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone",
    "mime.types", "nsswitch.conf", "ssl/openssl.cnf",
)  # fmt: skip
_ETC_NETWORK = ("resolv.conf", "hosts", "services", "protocols", "ssl/certs", "ca-certificates")
_PASSWD = "nobody:x:65534:65534:nobody:/tmp:/bin/sh\n"
_GROUP = "nogroup:x:65534:\n"
_PARTS = ("wire", "nodes", "manager", "tools")  # of alpyne_grid, which may stand in other folders


class View(NamedTuple):
    """The part of the command line that is the same for all cells of a daemon."""

    program: str  # bwrap's path
    binds: tuple[tuple[str, str], ...]  # folder outside, folder inside
    python: str  # inside
    hidden: tuple[str, ...]  # folders inside that must be empty
    places: tuple[str, ...]  # as ``boot.py`` takes them
    etc: Path  # folder with passwd and group


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


def make_view(etc: Path, state: Path) -> View:
    """Return what all cells of this daemon see.

    ``etc``: a new folder, in which the sandbox's passwd and group are made. ``state``: the node's
    state folder, which no sandbox may see. Raises OSError where something is missing, or where the
    interpreter lies so that the sandbox would show what it must not.
    """
    program = find_program()
    etc.mkdir(mode=0o700, parents=True, exist_ok=True)
    (etc / "passwd").write_text(_PASSWD)
    (etc / "group").write_text(_GROUP)
    folders = _interpreter_folders(state)
    binds = [(str(folder), _inside(folder, number)) for number, folder in enumerate(folders)]
    places = []
    for place in package_places():
        name, _, folder = place.partition("=")
        binds.append((f"{folder}/{name}", f"{RUNTIME}/{name}"))
        places.append(f"{name}={RUNTIME}")
    binds.append((os.path.dirname(BOOT), f"{RUNTIME}/worker"))
    binds += _parts_elsewhere(folders)
    hidden = _hidden([("/usr", "/usr"), *binds], (state, Path.home()))
    return View(
        program,
        tuple(binds),
        _moved(binds, Path(sys.executable)) or sys.executable,
        hidden,
        tuple(places),
        etc,
    )


def _interpreter_folders(state: Path) -> list[Path]:
    """Return the folders of which this interpreter consists, outside of the system's own."""
    home = Path.home().resolve()
    real = Path(sys.executable).resolve().parent.parent
    found: list[Path] = []
    for folder in (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix, str(real)):
        path = Path(folder)
        if path in found or path.resolve().is_relative_to("/usr"):
            continue
        for kept in (home, state.resolve()):
            if kept.is_relative_to(path.resolve()):
                raise OSError(
                    f"the Python of this node is installed in {path}, which also holds {kept}: a "
                    "sandbox that sees the one sees the other; install alpyne-grid in a virtual "
                    "environment in a folder of its own"
                )
        found.append(path)
    return found


def _inside(folder: Path, number: int) -> str:
    """Return where ``folder`` is inside: in its own place, unless that is taken."""
    if any(folder.is_relative_to(taken) for taken in _PRIVATE):
        return f"{_MOVED}/{number}"
    return str(folder)


def _parts_elsewhere(folders: list[Path]) -> list[tuple[str, str]]:
    """Return the folders of an installation in place ("editable"), which no prefix holds."""
    found = []
    for part in _PARTS:
        spec = find_spec(f"alpyne_grid.{part}")
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            path = Path(place)
            if not any(path.is_relative_to(one) for one in (*folders, Path("/usr"), *_PRIVATE)):
                found.append((str(path), str(path)))
    return found


def _hidden(binds: list[tuple[str, str]], folders: Iterable[Path]) -> tuple[str, ...]:
    """Return where those of ``folders`` are inside that lie in what is bound."""
    found = (_moved(binds, folder.resolve()) for folder in folders)
    return tuple(dict.fromkeys(folder for folder in found if folder))


def _moved(binds: Iterable[tuple[str, str]], path: Path) -> str:
    """Return where ``path`` is inside; empty where it is not."""
    for outside, inside in binds:
        if path.is_relative_to(outside):
            return str(Path(inside) / path.relative_to(outside))
    return ""


class Wiring(NamedTuple):
    """The descriptors that bubblewrap inherits, by what it does with them."""

    control: int  # for the worker
    job: int  # for the worker
    info: int  # it writes the pid of its child
    block: int  # it waits until there is something to be read
    seccomp: int  # it reads the filter


def command(view: View, walls: Walls, wiring: Wiring, brought: Path) -> list[str]:
    """Return the command line of one cell.

    ``brought``: the cell's own folder, whose files are readable inside.
    """
    processes = walls.processes + 1 if walls.processes else 0  # the supervisor is not the job's
    return [
        *(view.program, "--die-with-parent", "--new-session", "--as-pid-1"),
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        "--unshare-cgroup-try",  # kernels before 4.6 have none; the files are not there anyway
        *(() if walls.network in NETWORKS else ("--unshare-net",)),
        *("--uid", str(USER), "--gid", str(USER), "--hostname", "alpyne-job"),
        *("--cap-drop", "ALL", "--seccomp", str(wiring.seccomp)),
        *("--info-fd", str(wiring.info), "--block-fd", str(wiring.block)),
        *_file_systems(view, walls, brought),
        *("--chdir", SCRATCH, "--"),
        *(view.python, "-E", "-P", "-S", f"{RUNTIME}/worker/boot_sandbox.py"),
        *(str(processes), str(DESCRIPTORS), str(_file_bytes(walls))),
        *(str(wiring.control), str(wiring.job), SCRATCH, *view.places),
    ]


def _file_systems(view: View, walls: Walls, brought: Path) -> list[str]:
    disk = walls.disk_bytes
    arguments = [*_system(), *_etc(view, walls)]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    # A process that is root outside could write there what is root's, capabilities or not.
    arguments += ["--remount-ro", "/proc"] if os.geteuid() == 0 else []
    arguments += [
        "--perms",
        "0700",
        *_tmpfs(SHARED, min(disk, SHARED_MOST)),
        "--remount-ro",
        "/dev",
    ]
    arguments += ["--perms", "0700", *_tmpfs(SCRATCH, disk)]
    arguments += ["--dir", "/var", "--symlink", SCRATCH, "/var/tmp"]
    for outside, inside in view.binds:
        arguments += ["--ro-bind", outside, inside]
    for folder in view.hidden:
        arguments += ["--tmpfs", folder, "--remount-ro", folder]
    return [*arguments, "--ro-bind", str(brought), BROUGHT, "--remount-ro", "/"]


def _system() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        if os.path.islink(name):
            arguments += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            arguments += ["--ro-bind", name, name]
    return arguments


def _etc(view: View, walls: Walls) -> list[str]:
    names = (*_ETC, *(_ETC_NETWORK if walls.network in NETWORKS else ()))
    arguments = []
    for name in names:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in ("passwd", "group"):
        arguments += ["--ro-bind", str(view.etc / name), f"/etc/{name}"]
    return arguments


def _tmpfs(folder: str, size_bytes: int) -> list[str]:
    return ["--size", str(size_bytes), "--tmpfs", folder]


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
