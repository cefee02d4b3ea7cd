"""Classic BPF for seccomp(2): the few instructions of which the filters here are made.

Sources: seccomp(2), linux/bpf_common.h, linux/audit.h and the kernel's ``seccomp_filter.rst``.
"""

from struct import Struct

LOAD, EQUAL, AT_LEAST, ANY_BIT = 0x20, 0x15, 0x35, 0x45  # codes of instructions
ALLOW = 0x7FFF0000  # answers
_RETURN = 0x06
_ERRNO = 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000  # numbers of the calls of the x32 ABI begin here
_INSTRUCTION = Struct("<HBBI")  # struct sock_filter: code, jump if true, jump if false, constant
SIZE = _INSTRUCTION.size

MACHINES = ("x86_64", "aarch64")  # as ``os.uname`` names them; the columns of numbers of calls
_AUDIT = (0xC000003E, 0xC00000B7)


def step(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return an instruction; ``if_true``, ``if_false``: how many of the next ones are skipped."""
    return _INSTRUCTION.pack(code, if_true, if_false, value)


def give(answer: int) -> bytes:
    """Return the instruction that ends with ``answer``."""
    return step(_RETURN, answer)


def fail(number: int) -> bytes:
    """Return the instruction by which the call fails with errno ``number``."""
    return give(_ERRNO | number)


def load_argument(index: int) -> bytes:
    """Return the instruction that loads the lower half of an argument of the call.

    Flags and constants are ints; neither machine is big-endian.
    """
    return step(LOAD, _ARGUMENTS_AT + 8 * index)


def begin(machine: str, foreign: bytes) -> list[bytes]:
    """Return how a filter begins: it answers calls of other ABIs, and loads the call's number.

    ``foreign``: the instruction that answers calls whose numbers mean something else.
    """
    column = MACHINES.index(machine)
    code = [
        step(LOAD, _ARCHITECTURE_AT),
        step(EQUAL, _AUDIT[column], if_true=1),
        foreign,
        step(LOAD, _NUMBER_AT),
    ]
    if column == 0:
        code += [step(AT_LEAST, _X32, if_false=1), foreign]
    return code


def answer_calls(numbers: list[int], answer: bytes) -> list[bytes]:
    """Return the tests by which the calls of ``numbers`` get ``answer``."""
    return [one for number in numbers for one in (step(EQUAL, number, if_false=1), answer)]
