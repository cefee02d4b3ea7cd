"""The filter of system calls, run as the kernel would run it; test_daemon.py has it for real."""

import errno
import platform
import struct

import pytest
from alpyne_grid.nodes.compute.backends.containers import confine
from alpyne_grid.nodes.compute.backends.containers.confine import ARCHITECTURES, program

ALLOWED = 0x7FFF0000
EACCES, EPERM = 0x50000 | errno.EACCES, 0x50000 | errno.EPERM
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
X86, ARM = 0xC000003E, 0xC00000B7  # linux/audit.h
I386 = 0x40000003


def verdict(machine: str, audit: int, number: int, *arguments: int) -> int:
    """Run the filter of ``machine`` on one call: a machine of four instructions (linux/bpf.h)."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program(ARCHITECTURES[machine])))
    at, held = 0, 0
    while True:
        operation, if_true, if_false, constant = code[at]
        at += 1
        if operation == 0x06:
            return int(constant)
        if operation == 0x20:
            (held,) = struct.unpack_from("<I", data, constant)
        else:
            holds = held == constant if operation == 0x15 else held >= constant
            at += if_true if holds else if_false


@pytest.mark.parametrize(
    ("machine", "audit", "number", "arguments", "expected"),
    [
        ("x86_64", X86, 41, (AF_UNIX,), EACCES),  # socket
        ("x86_64", X86, 41, (AF_UNIX | 1 << 32,), EACCES),  # the kernel looks at an int
        ("x86_64", X86, 53, (AF_UNIX,), EACCES),  # socketpair
        ("x86_64", X86, 41, (AF_INET,), ALLOWED),
        ("x86_64", X86, 41, (AF_INET6,), ALLOWED),
        ("x86_64", X86, 0, (AF_UNIX,), ALLOWED),  # read
        ("x86_64", X86, 42, (AF_UNIX,), ALLOWED),  # connect: of sockets that are there
        ("x86_64", X86, 101, (), EPERM),  # ptrace
        ("x86_64", X86, 310, (), EPERM),  # process_vm_readv
        ("x86_64", X86, 311, (), EPERM),  # process_vm_writev
        ("x86_64", X86, 438, (), EPERM),  # pidfd_getfd
        ("x86_64", X86, 425, (), EPERM),  # io_uring_setup
        ("x86_64", X86, 426, (), EPERM),
        ("x86_64", X86, 427, (), EPERM),
        ("x86_64", X86, 41 | 0x40000000, (AF_UNIX,), EPERM),  # the same call as x32
        ("x86_64", I386, 102, (1,), EPERM),  # socketcall of 32 bit
        ("x86_64", I386, 359, (AF_UNIX,), EPERM),  # its socket
        ("aarch64", ARM, 198, (AF_UNIX,), EACCES),
        ("aarch64", ARM, 199, (AF_UNIX,), EACCES),
        ("aarch64", ARM, 198, (AF_INET,), ALLOWED),
        ("aarch64", ARM, 63, (AF_UNIX,), ALLOWED),  # read
        ("aarch64", ARM, 117, (), EPERM),
        ("aarch64", ARM, 270, (), EPERM),
        ("aarch64", ARM, 271, (), EPERM),
        ("aarch64", ARM, 438, (), EPERM),
        ("aarch64", ARM, 425, (), EPERM),
        ("aarch64", X86, 198, (AF_INET,), EPERM),
    ],
)
def test_filter_decides(
    machine: str, audit: int, number: int, arguments: tuple[int, ...], expected: int
) -> None:
    assert verdict(machine, audit, number, *arguments) == expected


def test_confinement_is_refused_on_a_machine_whose_calls_are_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match=r"cannot do that on riscv64.*--backend process"):
        confine.architecture()
