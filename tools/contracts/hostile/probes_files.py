"""Probes of files and of what /proc shows of other processes."""

import os
import stat
from typing import Any

Bait = dict[str, Any]

ENTRIES_MAX = 300_000  # that a search looks at


def environ_of_1(bait: Bait) -> str:
    """Read the environment of process 1."""
    return _read(f"/proc/{bait['first']}/environ")


def mem_of_1(bait: Bait) -> str:
    """Open its memory for writing."""
    os.close(os.open(f"/proc/{bait['first']}/mem", os.O_RDWR))
    return "opened"


def maps_of_1(bait: Bait) -> str:
    """Read where its memory lies."""
    return _read(f"/proc/{bait['first']}/maps")


def root_of_1(bait: Bait) -> list[str]:
    """List its root folder."""
    return os.listdir(f"/proc/{bait['first']}/root")


def cwd_of_1(bait: Bait) -> str:
    """See its working folder."""
    return os.readlink(f"/proc/{bait['first']}/cwd")


def fd_of_1(bait: Bait) -> list[str]:
    """See what its descriptors lead to, and open what they lead to."""
    found = []
    folder = f"/proc/{bait['first']}/fd"
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        try:
            found.append(f"{name} is {os.readlink(path)}")
        except OSError:
            if _can_open(path, os.O_RDONLY | os.O_NONBLOCK):
                found.append(f"{name} opened")
    return found


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return f"{len(file.read(4096))} bytes"


def environment_of_another(bait: Bait) -> list[str]:
    """Look for a secret in the environment of every process."""
    return _processes_with("environ", bait["token"])


def command_line_of_another(bait: Bait) -> list[str]:
    """Look for a process of the machine that runs beside the daemon."""
    return _processes_with("cmdline", bait["token"])


def daemon_process(bait: Bait) -> list[str]:
    """Look for the daemon."""
    return _processes_with("stat", f"{bait['daemon_pid']} (", begins=True)


def _processes_with(file: str, wanted: str, *, begins: bool = False) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/{file}", "rb") as opened:
                text = opened.read()
        except OSError:
            continue
        if text.startswith(wanted.encode()) if begins else wanted.encode() in text:
            found.append(pid)
    return found


def key_by_path(bait: Bait) -> str:
    """Read the daemon's key where it stands."""
    with open(bait["key"]) as file:
        return file.read()


def key_by_search(bait: Bait) -> list[str]:
    """Look for the daemon's state folder everywhere."""
    return _search(bait["token"], [bait["state"]])


def key_behind_link(bait: Bait) -> str:
    """Read it through a symbolic link in the job's own folder."""
    os.symlink(bait["key"], "way")
    try:
        with open("way") as file:
            return file.read()
    finally:
        os.unlink("way")


def neighbour_by_path(bait: Bait) -> list[str]:
    """Read what another account's job has written, by the names that it has given."""
    found = []
    for path in bait["neighbours_files"]:
        try:
            with open(path) as file:
                found.append(file.read())
        except OSError:
            continue
    return [text for text in found if bait["neighbours_token"] in text]


def neighbour_by_search(bait: Bait) -> list[str]:
    """Look for them everywhere."""
    folders = [os.path.dirname(path) for path in bait["neighbours_files"]]
    return _search(bait["neighbours_token"], folders)


def _search(token: str, likely: list[str]) -> list[str]:
    """Return the first name with the token: in the likely folders, then anywhere."""
    left = ENTRIES_MAX
    for top in (*likely, "/"):
        for folder, folders, names in os.walk(top):
            if folder == "/":  # what a job could have written first, what nobody writes into last
                first = ("tmp", "dev", "var", "run", "home", "root")
                kept = set(folders) - {"proc", "sys"}
                folders[:] = sorted(kept, key=lambda name: name not in first)
            found = [os.path.join(folder, name) for name in (*folders, *names) if token in name]
            left -= len(folders) + len(names)
            if found or left < 0:
                return found
    return []


def daemon_environment(bait: Bait) -> list[str]:
    """Look for a variable of the daemon's in its own environment."""
    with open("/proc/self/environ") as file:
        shown = file.read()
    everything = " ".join([shown, *os.environ, *os.environ.values()])
    return [secret for secret in bait["environment"] if secret in everything]


def descriptor_of_daemon(bait: Bait) -> list[str]:
    """Look for the file that the daemon holds open and inheritable."""
    return [link for link in _own_links() if bait["token"] in link]


def foreign_descriptors(bait: Bait) -> list[str]:
    """List descriptors beside the three standard ones, the runtime's channel, and the probe's."""
    links = sorted(_own_links())
    own = [link for link in links if link.startswith(("pipe:", "socket:", "/dev/null"))]
    sockets = [link for link in links if link.startswith("socket:")]
    foreign = [link for link in links if link not in own and "/proc/" not in link]
    return foreign + sockets[1:]


def _own_links() -> list[str]:
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return links


def roots_files(bait: Bait) -> list[str]:
    """Open files of the machine that only root may read."""
    names = ("shadow", "gshadow", "sudoers", "shadow-", "ssh/ssh_host_ed25519_key")
    return [name for name in names if _can_open(f"/etc/{name}", os.O_RDONLY)]


def write_outside(bait: Bait) -> list[str]:
    """Make a file beside those of the machine that are the same for all jobs."""
    folders = ["/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/opt", "/srv", bait["state"]]
    return [folder for folder in folders if _can_make(folder)]


def write_runtime(bait: Bait) -> list[str]:
    """Open the code of the interpreter and of the worker for writing."""
    import sys

    places = [sys.executable, os.__file__]
    for name in ("alpyne_worker", "alpyne_proto", "msgpack", "cloudpickle"):
        for folder in getattr(sys.modules.get(name), "__path__", ()):
            places += [os.path.join(folder, file) for file in os.listdir(folder)]
    folders = sorted({os.path.dirname(os.path.realpath(place)) for place in places})
    opened = [place for place in places if _can_open(place, os.O_WRONLY)]
    return opened + [folder for folder in folders if _can_make(folder)]


def write_kernel_settings(bait: Bait) -> list[str]:
    """Open settings of the whole machine for writing."""
    names = ["kernel/core_pattern", "kernel/hostname", "vm/drop_caches", "kernel/sysrq"]
    paths = [f"/proc/sys/{name}" for name in names] + ["/proc/sysrq-trigger"]
    return [path for path in paths if _can_open(path, os.O_WRONLY)]


def write_control_groups(bait: Bait) -> list[str]:
    """Open anything of the control groups for writing."""
    found = []
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        paths = [os.path.join(folder, name) for name in names]
        found += [path for path in paths if _can_open(path, os.O_WRONLY)]
        if len(found) > 10:
            break
    return found


def devices(bait: Bait) -> list[str]:
    """List devices that it may read, beside those that only give zeros, chance or a terminal.

    None is opened: some act when they are.
    """
    harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
    found = []
    for folder, _, names in os.walk("/dev"):
        if folder.startswith(("/dev/pts", "/dev/shm", "/dev/mqueue")):
            continue
        for path in (os.path.join(folder, name) for name in set(names) - harmless):
            kind = os.lstat(path).st_mode
            if (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)) and os.access(path, os.R_OK):
                found.append(path)
    return found


def kernel(bait: Bait) -> list[str]:
    """Open what shows the kernel's memory and messages."""
    paths = ["/proc/kcore", "/proc/kmsg", "/dev/kmsg", "/dev/mem"]
    return [path for path in paths if _can_open(path, os.O_RDONLY | os.O_NONBLOCK)]


def _can_open(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _can_make(folder: str) -> bool:
    path = os.path.join(folder, f"probe-{os.getpid()}")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:
        return False
    os.unlink(path)
    return True
