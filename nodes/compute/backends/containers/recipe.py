"""What a container is made of, as the Docker Engine API takes it (``POST /containers/create``).

Nothing comes from whoever started the daemon: no environment, no mounts but two read-only ones, no
settings of a Docker client. What jobs write lies in two tmpfs, which the kernel limits by bytes and
by files; those pages count as the container's memory as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUNTIME = "/alpyne"  # where the runtime is mounted
CELL = "/run/alpyne"  # where the cell's own folder is mounted: its socket, its programs
SOCKET = "worker.sock"
# Each container runs as a user of its own, which nobody else has, as most of what the kernel counts
# per user is outside of control groups (inotify, message queues, descriptors in flight): one user
# for all, and a job could take it from the containers of other accounts.
USERS, USERS_MOST = 0x7100_0000, 1 << 24  # beyond those of people, systems and level 1
MAPPED_USERS, MAPPED_USERS_MOST = 10_000, 50_000  # where the engine maps ids, 65536 of them
GROUP = 65534  # nogroup
LABEL = "org.alpyne.node"  # its value is the tag of a node's state folder
MARK = "ALPYNE_JOB_MARK"
CPU_PERIOD_US = 100_000  # the kernel's own default; not nano_cpus, which no update can change
MEMORY_LEAST = 32 << 20  # an interpreter needs about 20 MiB
DESCRIPTORS = 4096  # of one process; each takes memory of the kernel
BYTES_PER_FILE = 4096  # of scratch: so many files as pages, each needs 1 KiB of the kernel's memory
SHARED_MEMORY_MOST = 64 << 20  # of /dev/shm, Docker's own default
LOG_BYTES = "64k"  # what a worker says that fails to start; the output of jobs goes elsewhere


def container(
    opened: Mapping[str, Any], make: Mapping[str, Any], python: str, user: int
) -> dict[str, Any]:
    """Return the description of the container for a ``make``.

    ``opened``, ``make``: fields of the verbs. ``python``: the interpreter's name in the image.
    ``user``: its own, by number.
    """
    cell = Path(opened["cells"]) / str(make["cell"])
    return {
        **_process(make["image"], [python, *_isolated(), f"{CELL}/{SOCKET}"], user),
        "Env": ["LANG=C.UTF-8", "PYTHONUNBUFFERED=1", f"{MARK}={make['mark']}"],
        "Labels": {LABEL: opened["tag"]},
        "HostConfig": {
            **_walls(make),
            "Mounts": [_mount(opened["runtime"], RUNTIME), _mount(str(cell), CELL)],
        },
    }


def probe(opened: Mapping[str, Any], image: str, python: str, user: int) -> dict[str, Any]:
    """Return the description of a container that says which Python ``image`` has."""
    small = {"memory": 128 << 20, "cpus": 0, "processes": 16, "disk": 1 << 20, "network": ""}
    return {
        **_process(image, [python, *_isolated()], user),
        "Env": ["LANG=C.UTF-8"],
        "Labels": {LABEL: opened["tag"]},
        "HostConfig": {**_walls(small), "Mounts": [_mount(opened["runtime"], RUNTIME)]},
    }


def _isolated() -> list[str]:
    # Neither variables nor site packages stand before the runtime; jobs get both later.
    return ["-I", "-S", f"{RUNTIME}/worker/boot_container.py"]


def _process(image: str, command: list[str], user: int) -> dict[str, Any]:
    return {
        "Image": image,
        "User": f"{user}:{GROUP}",
        "Entrypoint": command[:1],
        "Cmd": command[1:],
        "WorkingDir": "/tmp",
        "Hostname": "alpyne-job",
        "Healthcheck": {"Test": ["NONE"]},  # an image's own would run beside the jobs
        "StopSignal": "SIGKILL",  # the supervisor ignores others; an engine that stops waits less
        "OpenStdin": False,
        "Tty": False,
    }


def _walls(make: Mapping[str, Any]) -> dict[str, Any]:
    memory = max(make["memory"], MEMORY_LEAST) if make["memory"] else 0
    return {
        "Memory": memory,
        "MemorySwap": memory,  # memory and swap together: no swap
        "CpuPeriod": CPU_PERIOD_US,
        "CpuQuota": make["cpus"] * CPU_PERIOD_US,
        "PidsLimit": make["processes"] + 1,  # the supervisor is not the job's
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges"],  # and the engine's default seccomp profile
        "NetworkMode": make["network"] or "none",
        "IpcMode": "none",  # no /dev/shm but the one below, whose files are limited too
        "Init": False,  # the supervisor is the first process, whatever the engine's default
        "AutoRemove": False,  # its end is looked at first
        "RestartPolicy": {"Name": "no"},
        "Tmpfs": {
            "/tmp": _tmpfs(make["disk"]),
            "/dev/shm": _tmpfs(min(make["disk"], SHARED_MEMORY_MOST)) + ",noexec",
        },
        "Ulimits": [
            {"Name": "nofile", "Soft": DESCRIPTORS, "Hard": DESCRIPTORS},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_BYTES}},
    }


def _tmpfs(size_bytes: int) -> str:
    # Commands may be sent along as executable files, so they may be executed from scratch.
    files = max(64, size_bytes // BYTES_PER_FILE)
    return f"rw,nosuid,nodev,exec,mode=1777,size={size_bytes},nr_inodes={files}"


def _mount(source: str, target: str) -> dict[str, Any]:
    return {
        "Type": "bind",  # unlike Binds, it is an error where the source is missing
        "Source": source,
        "Target": target,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate"},
    }
