"""What a connection wants of the transport below it, and of TCP where that is what lies there."""

import asyncio
import contextlib
import ipaddress
import socket

NOTSENT_LOWAT = 128 * 1024  # bytes the kernel may hold unsent: less waiting for an urgent frame


def tune(transport: asyncio.Transport) -> None:
    """Make a transport late binding: hardly a byte waits in it or in the kernel unsent.

    The transport says stop as soon as it has to keep one byte itself. On TCP, small segments leave
    at once, and the kernel calls the socket writable only while fewer than NOTSENT_LOWAT bytes wait
    (where the system has that option).
    """
    transport.set_write_buffer_limits(high=0)
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in _INET:
        return
    with contextlib.suppress(OSError):  # the peer may be gone already: the transport will tell
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)


_INET = (socket.AF_INET, socket.AF_INET6)


def source_of(transport: asyncio.Transport) -> str:
    """Return whom a connection counts for: the IPv4 address, or the IPv6 network of 64 bits.

    A host owns a whole /64, so counting single IPv6 addresses would bound nothing. A transport
    without a peer's address gives "".
    """
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple) or not name:
        return ""
    try:
        address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    except ValueError:
        return ""
    if address.version == 6:
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


def peer_name(transport: asyncio.Transport) -> str:
    """Return the peer's address and port for the log, or "" where the transport has none."""
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) and len(name) >= 2 else ""
