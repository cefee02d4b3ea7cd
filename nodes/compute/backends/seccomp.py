"""The system calls that a sandboxed job may not make, as a BPF program of seccomp(2).

What the namespaces take away is denied once more here, so that a mistake of the kernel in one of
the calls that few programs need (mounting, tracing, user namespaces, io_uring, BPF) is out of
reach. All else is allowed. Sources: seccomp(2), and the profile that container engines apply by
default.
"""

import errno
import os
from collections.abc import Iterator

from alpyne_grid.nodes.compute.backends import bpf

# Numbers on x86_64 and on aarch64; -1 where it does not exist.
_DENIED: dict[str, tuple[int, int]] = {
    # other processes' memory and descriptors
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "unshare": (272, 97),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    # keys, which are not namespaced
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # large parts of the kernel that few programs need
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "modify_ldt": (154, -1),
    "uselib": (134, -1),
    "ustat": (136, -1),
    "sysfs": (139, -1),
    "_sysctl": (156, -1),
    "nfsservctl": (180, 42),
    "memfd_secret": (447, 447),
    # where memory lies
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "vhangup": (153, 58),
}
# What holds memory that belongs to no process; only where nothing counts a group's memory.
_MEMORY_OF_NOBODY: dict[str, tuple[int, int]] = {
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
# Programs ask for these first and do without: as if the kernel were older. io_uring would go past
# this filter, and clone3 takes its flags from memory, which no filter can read.
_MISSING: dict[str, tuple[int, int]] = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "clone3": (435, 435),
}
_CLONE = (56, 220)
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET, TIME
_SOCKET = (41, 198)
_FAMILIES = (1, 2, 10, 16)  # UNIX, INET, INET6, NETLINK; not VSOCK, which no namespace keeps in
_IOCTL = (16, 29)
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into the terminal of others
_PERSONALITY = (135, 92)
_PERSONALITIES = (0, 0xFFFFFFFF)  # Linux, and asking


def supports(machine: str) -> bool:
    """Say whether there is a filter for a machine, as ``os.uname`` names it."""
    return machine in bpf.MACHINES


def filter_program(machine: str, *, memory_is_counted: bool) -> bytes:
    """Return the program as an array of struct sock_filter, as ``bwrap --seccomp`` takes it.

    ``memory_is_counted``: a control group counts all memory of the job; else what would hold memory
    without a process is denied too. Raises ValueError for a machine that ``supports`` does not
    name.
    """
    denied = {**_DENIED, **({} if memory_is_counted else _MEMORY_OF_NOBODY)}
    code = b"".join(_program(machine, denied))
    assert len(code) // bpf.SIZE <= 4096, "BPF_MAXINSNS"
    return code


def _program(machine: str, denied: dict[str, tuple[int, int]]) -> Iterator[bytes]:
    column = bpf.MACHINES.index(machine)
    missing = bpf.fail(errno.ENOSYS)
    yield from bpf.begin(machine, missing)
    for answer, calls in ((bpf.fail(errno.EPERM), denied), (missing, _MISSING)):
        numbers = [of[column] for of in calls.values() if of[column] >= 0]
        yield from bpf.answer_calls(numbers, answer)
    yield from _on_argument(_CLONE[column], 0, [bpf.step(bpf.ANY_BIT, _NEW_NAMESPACES, if_false=1)])
    yield from _on_argument(_IOCTL[column], 1, _equal_to_any(_TERMINAL_INPUT))
    yield from _on_argument(_SOCKET[column], 0, _unequal_to_all(_FAMILIES))
    yield from _on_argument(_PERSONALITY[column], 0, _unequal_to_all(_PERSONALITIES))
    yield bpf.give(bpf.ALLOW)


def _on_argument(number: int, argument: int, tests: list[bytes]) -> Iterator[bytes]:
    """Refuse the call ``number`` where the tests of its argument fall through to the next step."""
    # load, tests, refuse, allow
    yield bpf.step(bpf.EQUAL, number, if_false=len(tests) + 3)
    yield bpf.load_argument(argument)
    yield from tests
    yield bpf.fail(errno.EPERM)
    yield bpf.give(bpf.ALLOW)


def _equal_to_any(values: tuple[int, ...]) -> list[bytes]:
    """Return tests that go on where the argument is one of ``values``, and else skip one step."""
    last = len(values) - 1
    return [
        bpf.step(bpf.EQUAL, value, if_true=last - at, if_false=0 if at < last else 1)
        for at, value in enumerate(values)
    ]


def _unequal_to_all(values: tuple[int, ...]) -> list[bytes]:
    """Return tests that skip one step where the argument is one of ``values``, and else go on."""
    count = len(values)
    return [bpf.step(bpf.EQUAL, value, if_true=count - at) for at, value in enumerate(values)]


def open_filter(program: bytes) -> int:
    """Return a descriptor from which ``program`` can be read once; the caller closes it."""
    reading, writing = os.pipe()
    try:
        os.write(writing, program)  # far less than a pipe holds
    finally:
        os.close(writing)
    return reading
