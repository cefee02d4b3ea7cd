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
import struct
from typing import NamedTuple

_AF_UNIX = 1
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1  # linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_X32 = 0x40000000  # numbers of the x32 calls begin here
_INSTRUCTION = struct.Struct("=HBBI")  # code, jump if true, jump if false, constant


class Architecture(NamedTuple):
    """The numbers of an architecture: linux/audit.h and asm/unistd.h."""

    audit: int
    seccomp: int
    sockets: tuple[int, ...]  # socket, socketpair
    others: tuple[int, ...]


ARCHITECTURES = {
    "x86_64": Architecture(
        0xC000003E, 317, (41, 53), (101, 310, 311, 438, 425, 426, 427)
    ),
    "aarch64": Architecture(
        0xC00000B7, 277, (198, 199), (117, 270, 271, 438, 425, 426, 427)
    ),
}  # fmt: skip


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
    deny, refuse = _ERRNO | errno.EPERM, _ERRNO | errno.EACCES
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, of.audit),
        (_RETURN, 0, 0, deny),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, deny),
    ]
    for number in of.others:
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, deny)]
    socket, socketpair = of.sockets
    code += [
        (_JUMP_EQUAL, 1, 0, socket),
        (_JUMP_EQUAL, 0, 3, socketpair),
        (_LOAD, 0, 0, _ARGUMENT_AT),  # the domain: an int, the lower half on both architectures
        (_JUMP_EQUAL, 0, 1, _AF_UNIX),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(_INSTRUCTION.pack(*one) for one in code)


def confine_process() -> None:
    """Put all threads of this process under the filter, for good; OSError where it cannot be."""
    of = architecture()
    code = ctypes.create_string_buffer(program(of))
    filter_ = _Program(len(program(of)) // _INSTRUCTION.size, ctypes.addressof(code))
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
