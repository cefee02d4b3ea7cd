"""The filter of system calls, run as the kernel runs it: an interpreter of BPF, call by call."""

import errno
import os
from struct import Struct, iter_unpack

import pytest
from alpyne_grid.nodes.compute.backends.seccomp import filter_program, open_filter, supports

X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
ALLOWED = 0x7FFF0000
REFUSED, MISSING = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
CLONE_NEWUSER, CLONE_VM = 0x10000000, 0x100
DATA = Struct("<IIQ6Q")  # struct seccomp_data


def answer(
    number: int, *arguments: int, machine: str = "x86_64", arch: int = X86_64, counted: bool = True
) -> int:
    """What the filter says of a system call."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = DATA.pack(number, arch, 0, *padded)
    code = list(iter_unpack("<HBBI", filter_program(machine, memory_is_counted=counted)))
    value, at = 0, 0
    while True:
        what, if_true, if_false, k = code[at]
        at += 1
        if what == 0x20:
            value = int.from_bytes(data[k : k + 4], "little")
        elif what == 0x06:
            return k
        else:
            true = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[what]
            at += if_true if true else if_false


@pytest.mark.parametrize("number", [0, 1, 2, 9, 39, 57, 59, 60, 257, 262, 318, 332, 424])
def test_filter_allows_what_programs_do(number: int) -> None:
    assert answer(number) == ALLOWED


@pytest.mark.parametrize(
    ("name", "number", "on_aarch64"),
    [
        ("ptrace", 101, 117), ("mount", 165, 40), ("umount2", 166, 39), ("keyctl", 250, 219),
        ("bpf", 321, 280), ("userfaultfd", 323, 282), ("unshare", 272, 97), ("setns", 308, 268),
        ("process_vm_readv", 310, 270), ("pidfd_getfd", 438, 438), ("chroot", 161, 51),
        ("perf_event_open", 298, 241), ("open_by_handle_at", 304, 265), ("reboot", 169, 142),
    ],
)  # fmt: skip
def test_filter_refuses_what_no_job_needs(name: str, number: int, on_aarch64: int) -> None:
    assert answer(number) == REFUSED, name
    assert answer(on_aarch64, machine="aarch64", arch=AARCH64) == REFUSED, name


@pytest.mark.parametrize("number", [425, 426, 427, 435])  # io_uring and clone3
def test_filter_shows_an_older_kernel_where_programs_do_without(number: int) -> None:
    assert answer(number) == MISSING
    assert answer(number, machine="aarch64", arch=AARCH64) == MISSING


@pytest.mark.parametrize(
    ("machine", "arch", "number"), [("x86_64", X86_64, 56), ("aarch64", AARCH64, 220)]
)
def test_filter_lets_threads_be_made_and_no_namespaces(
    machine: str, arch: int, number: int
) -> None:
    assert answer(number, CLONE_VM, machine=machine, arch=arch) == ALLOWED
    for bit in (0x80, *(1 << n for n in (17, 25, 26, 27, 28, 29, 30))):
        assert answer(number, CLONE_VM | bit, machine=machine, arch=arch) == REFUSED


def test_filter_allows_only_families_of_sockets_that_namespaces_keep_in() -> None:
    assert [answer(41, family) for family in (1, 2, 10, 16)] == [ALLOWED] * 4
    assert [answer(41, family) for family in (0, 17, 31, 38, 40, 44)] == [REFUSED] * 6


def test_filter_refuses_to_type_into_terminals() -> None:
    assert [answer(16, 0, request) for request in (0x5412, 0x541C)] == [REFUSED] * 2
    assert [answer(16, 0, request) for request in (0x5401, 0x5413)] == [ALLOWED] * 2
    # The kernel looks at the lower half only.
    assert answer(16, 0, 0x5412 | 1 << 32) == REFUSED


def test_filter_allows_only_the_usual_personality() -> None:
    assert [answer(135, kind) for kind in (0, 0xFFFFFFFF)] == [ALLOWED] * 2
    assert answer(135, 0x0040000) == REFUSED


def test_filter_knows_no_calls_of_other_architectures() -> None:
    assert answer(1, arch=I386) == MISSING
    assert answer(0x40000000 | 1) == MISSING


def test_filter_refuses_memory_of_nobody_where_nothing_counts_it() -> None:
    assert (answer(319), answer(29)) == (ALLOWED, ALLOWED)
    assert (answer(319, counted=False), answer(29, counted=False)) == (REFUSED, REFUSED)


def test_filters_exist_for_two_machines() -> None:
    assert supports("x86_64")
    assert supports("aarch64")
    assert not supports("riscv64")


def test_open_filter_gives_the_program_once() -> None:
    program = filter_program("x86_64", memory_is_counted=True)
    descriptor = open_filter(program)
    try:
        assert os.read(descriptor, 1 << 16) == program
        assert os.read(descriptor, 1) == b""
    finally:
        os.close(descriptor)
