"""Start worker processes: bare interpreters with an allow-listed environment."""

import os
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from alpyne_grid.nodes.compute.worker import __file__ as _runtime

from alpyne_grid.durable import write_durably

MARK = "ALPYNE_JOB_MARK"  # in the environment of every process of a job
BOOT = str(Path(_runtime).with_name("boot.py"))
PACKAGES = ("alpyne_proto", "alpyne_grid", "msgpack", "cloudpickle")  # what the runtime needs

# What a job sees of the daemon's environment. The rest may hold secrets, and settings that would
# make results depend on who started the daemon.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
_DEFAULTS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Launched:
    """A worker's supervisor that was just started, and the daemon's ends to it."""

    process: subprocess.Popen[bytes]
    mark: str
    scratch: Path
    control: socket.socket  # to the supervisor
    job: socket.socket  # to the interpreter
    stdout: int  # of the interpreter and all that it starts
    stderr: int


def environment(mark: str) -> dict[str, str]:
    """Return the whole environment of a worker and its jobs."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # A Python that a job starts shall show its lines at once, as the worker itself does.
    return {**_DEFAULTS, **passed, "PYTHONUNBUFFERED": "1", MARK: mark}


def folder_tag(folder: Path) -> str:
    """Return what marks the processes of all daemons of a back end's folder, earlier ones' too.

    The mark of each worker begins with it and a dot. OSError where it cannot be kept.
    """
    path = folder / "mark"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(path, secrets.token_hex(8).encode())
    return path.read_text()


def package_places() -> list[str]:
    """Return NAME=FOLDER of each package of the runtime, as ``boot.py`` takes them."""
    places = []
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise OSError(f"the package {name} cannot be found; install alpyne-grid again")
        places.append(f"{name}={Path(spec.origin).parent.parent}")
    return places


def launch(mark: str, scratch: Path, places: list[str]) -> Launched:
    """Start one worker with ``scratch`` as its working folder; OSError where that is impossible."""
    scratch.mkdir(mode=0o700, parents=True)
    control, far_control = socket.socketpair()
    job, far_job = socket.socketpair()
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                *("-E", "-P", "-S"),  # no variables, no script folder, no site: see boot.py
                BOOT,
                str(far_control.fileno()),
                str(far_job.fileno()),
                str(scratch),
                *places,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(far_control.fileno(), far_job.fileno()),
            env=environment(mark),
            cwd=scratch,
            start_new_session=True,  # a terminal's Ctrl-C is for the daemon alone
        )
    except OSError:
        control.close()
        job.close()
        scratch.rmdir()
        raise
    finally:
        far_control.close()
        far_job.close()
    stdout, stderr = _descriptor(process.stdout), _descriptor(process.stderr)
    for end in (control, job):
        end.setblocking(False)
    return Launched(process, mark, scratch, control, job, stdout, stderr)


def _descriptor(pipe: object) -> int:
    """Take a pipe's descriptor out of its file object, unbuffered and non-blocking."""
    assert hasattr(pipe, "fileno") and hasattr(pipe, "close")
    own = os.dup(pipe.fileno())
    pipe.close()
    os.set_blocking(own, False)
    return own
