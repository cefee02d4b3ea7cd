"""The first process of a container: it fetches its descriptors and becomes a worker.

    python3 -I -S boot_container.py /run/alpyne/worker.sock    a worker, until the daemon ends it
    python3 -I -S boot_container.py                            says what this image's Python is

The socket is the launcher's. It hands in four descriptors (the ends of the control and the job's
socket, the pipes of stdout and stderr) and gets two back: handles of the folders that jobs can
write to, by which the daemon sees how full they are. Then nothing leads outside any more.

Any Python from 3.6 must be able to read this file, so that an old one can say that it is too old.
"""

import _socket as socket  # the module around it would stay with all jobs
import array
import errno
import os
import sys

TYPE_CHECKING = False  # as type checkers take it; to import typing costs a tenth of a start
if TYPE_CHECKING:
    from typing import Any

OLDEST = (3, 11)
PACKAGES = ("alpyne_proto", "msgpack", "cloudpickle")  # beside the folder of this file
SCRATCH = "/tmp"
WRITABLE = (SCRATCH, "/dev/shm")
_INTEGER = array.array("i").itemsize
_AF_VSOCK = 40
_SET_SECCOMP = 22  # linux/prctl.h
_GIVEN = 4  # control, job, stdout, stderr


def main(arguments: "list[str]") -> None:
    """Run as a worker's first process, or say what Python this is."""
    if len(arguments) < 2:
        print(f"alpyne {sys.version_info[0]}.{sys.version_info[1]} {_problem()}")
        return
    control, job, stdout, stderr = _exchange(arguments[1])
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    # The user is a number that no image knows, so programs that ask for its name find it here.
    os.environ.update(HOME=SCRATCH, TMPDIR=SCRATCH, USER="nobody", LOGNAME="nobody")
    _keep_in()
    _boot()["main"](["", str(control), str(job), SCRATCH, *_places()])


def _problem() -> str:
    """Return why no worker can run here; empty where it can."""
    if sys.version_info[:2] < OLDEST:
        return "workers need Python {}.{} or later".format(*OLDEST)
    boot = _boot()
    places = dict(place.split("=", 1) for place in _places())
    sys.meta_path.insert(0, boot["RuntimeFinder"](places))
    try:
        for name in ("main", "supervisor", "commands"):
            boot["import_module"](f"alpyne_worker.{name}")
    except ImportError as error:  # a distribution may leave out parts of the standard library
        return f"its standard library is not whole: {error}"
    return ""


def _exchange(path: str) -> "tuple[int, int, int, int]":
    """Return the four descriptors that the launcher hands in."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end.connect(path)
    _, handed, _, _ = end.recvmsg(1, socket.CMSG_SPACE(_GIVEN * _INTEGER))
    given = array.array("i")
    for _, _, data in handed:
        given.frombytes(data[: len(data) - len(data) % _INTEGER])
    control, job, stdout, stderr = given
    folders = [os.open(name, os.O_PATH | os.O_DIRECTORY) for name in WRITABLE]
    end.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", folders))])
    end.close()
    for descriptor in folders:
        os.close(descriptor)
    for descriptor in given:
        os.set_inheritable(descriptor, False)
    return control, job, stdout, stderr


def _keep_in() -> None:
    """Let this process and all below it make no socket of AF_VSOCK any more.

    Such a socket leads to the machine's hypervisor: no network namespace keeps it in, and the
    default profiles of engines before 23.0 allow it. Sources: seccomp(2), vsock(7).
    """
    import ctypes
    import struct

    known = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}.get(os.uname()[4])
    if known is None:
        return
    audit, call = known
    allow, no_call, no_family = 0x7FFF0000, 0x50000 | errno.ENOSYS, 0x50000 | errno.EAFNOSUPPORT
    code = [
        (0x20, 0, 0, 4),  # the architecture: others have other numbers
        (0x15, 1, 0, audit),
        (0x06, 0, 0, no_call),
        (0x20, 0, 0, 0),  # the call; those of x32, too, have other numbers
        (0x35, 0, 1, 0x40000000),
        (0x06, 0, 0, no_call),
        (0x15, 0, 3, call),
        (0x20, 0, 0, 16),  # its first argument: the family
        (0x15, 0, 1, _AF_VSOCK),
        (0x06, 0, 0, no_family),
        (0x06, 0, 0, allow),
    ]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    program = struct.pack("HL", len(code), ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    filter_mode = ctypes.c_ulong(2)
    if libc.prctl(_SET_SECCOMP, filter_mode, ctypes.c_char_p(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP): this container allows no filter")


def _boot() -> "Any":
    """Load ``boot.py``, which leaves no trace among the modules of jobs."""
    path = f"{_folder()}/boot.py"
    found: dict[str, Any] = {"__name__": "boot", "__file__": path}
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), found)
    return found


def _folder() -> str:
    return os.path.dirname(os.path.abspath(__file__))


def _places() -> "list[str]":
    return [f"{name}={os.path.dirname(_folder())}" for name in PACKAGES]


if __name__ == "__main__":
    main(sys.argv)
