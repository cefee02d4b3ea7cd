"""How a worker in a container gets its descriptors: over a socket that only it can reach, once.

All of them are made here, on the trusted side, and handed in; from inside come only handles of two
folders, which are checked to be nothing else. Sockets from inside could be ones that are not
connected yet, and that the daemon would then connect to whatever it names.
"""

import fcntl
import os
import socket
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from alpyne_grid.nodes.compute.backends.containers.recipe import SOCKET

FOLDERS = 2  # that a worker hands out: scratch and shared memory
HANDED_OUT = 4 + FOLDERS
EXCHANGE_S = 5.0  # for a worker that has come; its processor may be busy, or its share used up
_PEER = struct.Struct("3i")  # pid, uid, gid: unix(7)
_WRITE_ALL = 0o222


class Refused(Exception):
    """What came from inside is not what a worker hands out."""


class Met(NamedTuple):
    """A worker that has its descriptors."""

    pid: int  # of the container's first process, as seen from here
    descriptors: list[int]  # the daemon's ends, in the order of ``verbs.HANDED``


class Rendezvous:
    """The socket in a cell's folder, until its worker has come."""

    def __init__(self, folder: Path) -> None:
        """Listen in ``folder``, which is mounted into the container; OSError where it cannot."""
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # By way of the descriptor: the path of a unix socket has at most 107 bytes.
            path = f"/proc/self/fd/{self._folder}/{SOCKET}"
            self._listener.bind(path)
            os.chmod(
                path, 0o666
            )  # the worker is another user; the folders above let nobody else in
            self._listener.listen(1)
        except OSError:
            self.close()
            raise

    def meet(self, within_s: float) -> Met | None:
        """Wait for the worker and exchange descriptors; None where it has not come yet.

        OSError or Refused where it came and failed.
        """
        self._listener.settimeout(within_s)
        try:
            end, _ = self._listener.accept()
        except TimeoutError:
            return None
        with end:
            end.settimeout(EXCHANGE_S)
            about = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            pid, _, _ = _PEER.unpack(about)
            if pid == 0:
                raise Refused(
                    "its processes cannot be seen from here; run the node outside of containers, "
                    "on the machine of the engine"
                )
            return Met(pid, _exchange(end))

    def close(self) -> None:
        """Remove the socket: nobody can come any more."""
        self._listener.close()
        try:
            os.unlink(SOCKET, dir_fd=self._folder)
        except FileNotFoundError:
            pass
        finally:
            os.close(self._folder)


def receive(end: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Return at most ``size`` bytes and ``most`` descriptors, which no child process inherits."""
    # recv_fds does not pass on its flags before Python 3.12; what is started here closes all.
    data, descriptors, _, _ = socket.recv_fds(end, size, most)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return data, list(descriptors)


def _exchange(end: socket.socket) -> list[int]:
    near: list[int] = []
    far: list[int] = []
    try:
        for _ in range(2):  # control, job
            pair = socket.socketpair()
            near.append(pair[0].detach())
            far.append(pair[1].detach())
        for _ in range(2):  # stdout, stderr
            reading, writing = os.pipe()
            near.append(reading)
            far.append(writing)
            # So that a job may open /dev/stdout anew: to the kernel the pipe is another user's.
            os.fchmod(writing, _WRITE_ALL)
        for descriptor in near:
            os.set_blocking(descriptor, False)
        socket.send_fds(end, [b"+"], far)
        near += _folders(end)
        return near
    except BaseException:
        for descriptor in near:
            os.close(descriptor)
        raise
    finally:
        for descriptor in far:
            os.close(descriptor)


def _folders(end: socket.socket) -> list[int]:
    """Take the handles of the folders that jobs write to; Refused for anything else."""
    _, handed = receive(end, 1, FOLDERS)
    right = len(handed) == FOLDERS and all(map(_is_handle, handed))
    if not right:
        for descriptor in handed:
            os.close(descriptor)
        raise Refused("the worker inside handed out something else than its folders")
    return handed


def _is_handle(descriptor: int) -> bool:
    """Say whether this is a folder that can be asked how full it is, and not be read."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    return bool(flags & os.O_PATH) and stat.S_ISDIR(os.fstat(descriptor).st_mode)
