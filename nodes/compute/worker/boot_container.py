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
