"""Probes of the network, of sockets on the machine, and of its shared memory."""

import os
import socket
from typing import Any

Bait = dict[str, Any]

WITHIN_S = 2.0  # a connection that nobody answers is no denial


def loopback(bait: Bait) -> str:
    """Connect to a listener on 127.0.0.1."""
    return _said_by(socket.AF_INET, ("127.0.0.1", bait["port"]))


def loopback_6(bait: Bait) -> str:
    """Connect to a listener on ::1."""
    return _said_by(socket.AF_INET6, ("::1", bait["port_6"]))


def own_address(bait: Bait) -> str:
    """Connect to the listener by the address that the machine has in its network."""
    return _said_by(socket.AF_INET, (bait["address"], bait["port"]))


def metadata(bait: Bait) -> str:
    """Connect to where clouds tell their machines' secrets."""
    return _said_by(socket.AF_INET, ("169.254.169.254", 80))


def datagram(bait: Bait) -> str:
    """Ask the listener on 127.0.0.1 by a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(WITHIN_S)
        made.connect(("127.0.0.1", bait["datagram_port"]))
        made.send(b"?")
        return made.recv(100).decode()


def engine_socket(bait: Bait) -> list[str]:
    """Connect to the container engine, wherever its socket may be, or to one that plays it."""
    usual = ["/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"]
    return [path for path in (*bait["sockets"], *usual) if _connects(path)]


def abstract_socket(bait: Bait) -> list[str]:
    """Connect to a socket that has a name and no file."""
    name = "\0" + bait["token"]
    return [bait["token"]] if _connects(name) else []


def interfaces(bait: Bait) -> list[str]:
    """List network interfaces beside the loopback of the job's own that can carry anything."""
    import fcntl
    import struct

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        for _, name in socket.if_nameindex():
            asked = struct.pack("16sh14x", name.encode(), 0)
            flags = struct.unpack("16sh14x", fcntl.ioctl(made, 0x8913, asked))[1]  # SIOCGIFFLAGS
            if flags & 1 and name != "lo":  # IFF_UP
                found.append(name)
    return found


def shared_memory(bait: Bait) -> list[str]:
    """Look for a System V segment of the machine, and for its name in /dev/shm."""
    with open("/proc/sysvipc/shm") as file:
        keys = [line.split()[0] for line in file.readlines()[1:]]
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    return [key for key in keys if key == str(bait["segment"])] + [
        name for name in names if bait["token"] in name
    ]


def _said_by(family: int, address: tuple[str, int]) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.settimeout(WITHIN_S)
        try:
            made.connect(address)
        except TimeoutError:  # it went out to the network, and nobody is there
            return f"sent to {address[0]}, no answer within {WITHIN_S} s"
        return made.recv(100).decode() or "connected"


def _connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.settimeout(WITHIN_S)
        try:
            made.connect(path)
        except OSError:
            return False
    return True
