"""Confinement of the process that faces the network: it can open no unix socket any more.

A filter of system calls (seccomp(2)), for all threads and all that they start, for good:

    socket, socketpair with AF_UNIX             EACCES: the engine's socket cannot be reached
    ptrace, process_vm_readv, process_vm_writev,
    pidfd_getfd                                 EPERM: nor another process that has it open
    io_uring_setup, _enter, _register           EPERM: they could do all of this unseen
    system calls of another architecture        EPERM: they have other numbers

Descriptors that are open stay: the end to the launcher, and those of the workers.
"""

import ctypes
import errno
import os
import platform
from typing import NamedTuple

from alpyne_grid.nodes.compute.backends import bpf

_AF_UNIX = 1
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1  # linux/seccomp.h


class Architecture(NamedTuple):
    """The numbers of an architecture's calls: asm/unistd.h."""

    machine: str
    seccomp: int
    sockets: tuple[int, ...]  # socket, socketpair
    others: tuple[int, ...]


ARCHITECTURES = {
    of.machine: of
    for of in (
        Architecture("x86_64", 317, (41, 53), (101, 310, 311, 438, 425, 426, 427)),
        Architecture("aarch64", 277, (198, 199), (117, 270, 271, 438, 425, 426, 427)),
    )
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def architecture() -> Architecture:
    """Return this machine's; OSError where its numbers are not known here."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(
            f"the back end docker confines its daemon, and cannot do that on {machine}: expected "
            f"{' or '.join(ARCHITECTURES)}; use --backend process there"
        )
    return ARCHITECTURES[machine]


def program(of: Architecture) -> bytes:
    """Return the filter as instructions of classic BPF."""
    deny = bpf.fail(errno.EPERM)
    socket, socketpair = of.sockets
    code = [
        *bpf.begin(of.machine, deny),
        *bpf.answer_calls(list(of.others), deny),
        bpf.step(bpf.EQUAL, socket, if_true=1),
        bpf.step(bpf.EQUAL, socketpair, if_false=3),
        bpf.load_argument(0),  # the domain
        bpf.step(bpf.EQUAL, _AF_UNIX, if_false=1),
        bpf.fail(errno.EACCES),
        bpf.give(bpf.ALLOW),
    ]
    return b"".join(code)


def confine_process() -> None:
    """Put all threads of this process under the filter, for good; OSError where it cannot be."""
    of = architecture()
    code = ctypes.create_string_buffer(program(of))
    filter_ = _Program(len(program(of)) // bpf.SIZE, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _failed("prctl(PR_SET_NO_NEW_PRIVS)")
    done = libc.syscall(
        ctypes.c_long(of.seccomp),
        ctypes.c_ulong(_SET_MODE_FILTER),
        ctypes.c_ulong(_FLAG_TSYNC),
        ctypes.byref(filter_),
    )
    if done != 0:
        raise _failed("seccomp(SECCOMP_SET_MODE_FILTER)")


def _failed(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(
        number,
        f"{call}: {os.strerror(number)}; the back end docker needs a kernel with seccomp filters",
    )
