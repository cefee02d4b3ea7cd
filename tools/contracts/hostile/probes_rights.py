"""Probes of rights: tracing, signals, limits, mounts, namespaces, users, capabilities."""

import ctypes
import os
from typing import Any

from alpyne_grid.tools.contracts.hostile.probes_files import command_line_of_another

Bait = dict[str, Any]

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID = 2


def trace_supervisor(bait: Bait) -> str:
    """Take control of the worker's supervisor."""
    return _trace(bait["supervisor"])


def trace_process_1(bait: Bait) -> str:
    """Take control of process 1."""
    return _trace(bait["first"])


def _trace(pid: int) -> str:
    _call("ptrace", PTRACE_ATTACH, pid, 0, 0)
    os.waitpid(pid, 0x40000000)  # __WALL
    _call("ptrace", PTRACE_DETACH, pid, 0, 0)
    return f"traced {pid}"


def memory_of_supervisor(bait: Bait) -> str:
    """Open the memory of the worker's supervisor for writing."""
    descriptor = os.open(f"/proc/{bait['supervisor']}/mem", os.O_RDWR)
    os.close(descriptor)
    return "opened"


def kill_another(bait: Bait) -> list[str]:
    """Signal a process of the machine that can be found by its command line."""
    found = command_line_of_another(bait)
    for pid in found:
        os.kill(int(pid), 0)
    return found


def raise_limits(bait: Bait) -> list[str]:
    """Raise each hard limit that is finite."""
    import resource

    raised = []
    for name in (name for name in dir(resource) if name.startswith("RLIMIT_")):
        number = getattr(resource, name)
        soft, hard = resource.getrlimit(number)
        if hard == resource.RLIM_INFINITY:
            continue
        try:
            resource.setrlimit(number, (soft, hard + 1))
        except (OSError, ValueError):
            continue
        raised.append(name)
    return raised


def descriptors_without_bound(bait: Bait) -> list[str]:
    """Be allowed more descriptors in one process than 65,536, or core files."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = [f"descriptors: {hard}"] if not 0 <= hard <= 65_536 else []
    _, core = resource.getrlimit(resource.RLIMIT_CORE)
    return found + ([f"core: {core}"] if core else [])


def mount(bait: Bait) -> str:
    """Mount a file system; in a namespace of its own where it can make one, so that none stays."""
    folder = os.path.abspath("mounted")
    os.mkdir(folder)
    try:
        if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
            _call("mount", b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
        _call("mount", b"none", os.fsencode(folder), b"tmpfs", MS_NOSUID, None)
        _call("umount2", os.fsencode(folder), 2)  # MNT_DETACH
    finally:
        os.rmdir(folder)
    return "mounted"


def unshare(bait: Bait) -> list[str]:
    """Make namespaces in which it would have all capabilities."""
    made = []
    for name, flags in (("mounts", CLONE_NEWNS), ("users", CLONE_NEWUSER)):
        if ctypes.CDLL(None, use_errno=True).unshare(flags) == 0:
            made.append(name)
    return made


def enter_namespaces(bait: Bait) -> list[str]:
    """Enter the namespaces of process 1 and of its supervisor where they are not its own."""
    entered = []
    for pid in (1, bait["supervisor"]):
        for name in ("mnt", "net", "pid", "user", "ipc"):
            try:
                if os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}"):
                    continue
                descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
                _call("setns", descriptor, 0)
            except OSError:
                continue
            entered.append(f"{name} of {pid}")
    return entered


def change_root(bait: Bait) -> str:
    """Change its root folder."""
    os.chroot(".")
    return "changed"


def be_root(bait: Bait) -> list[str]:
    """Have user 0, in its own namespace at least."""
    users = {"real": os.getuid(), "effective": os.geteuid(), "saved": os.getresuid()[2]}
    return [name for name, user in users.items() if user == 0]


def become_root(bait: Bait) -> str:
    """Take user 0."""
    os.setresuid(0, 0, 0)
    return "became user 0"


def root_group(bait: Bait) -> list[str]:
    """Be in group 0."""
    groups = [os.getgid(), os.getegid(), *os.getgroups()]
    return [str(group) for group in groups if group == 0]


def capabilities(bait: Bait) -> list[str]:
    """Have any capability, now or by executing something."""
    status = _status()
    return [name for name in status if name.startswith("Cap") and int(status[name], 16)]


def new_privileges(bait: Bait) -> list[str]:
    """Be able to gain privileges by executing a setuid binary."""
    return [] if _status()["NoNewPrivs"] == "1" else ["NoNewPrivs is not set"]


def _status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        parts = [line.partition(":") for line in file]
    return {name: value.strip() for name, _, value in parts}


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C library; OSError where it fails."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
