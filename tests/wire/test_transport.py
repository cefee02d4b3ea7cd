"""What a connection sets on its transport, and whom it counts a peer as."""

import asyncio
import socket
from typing import Any

import pytest
from alpyne_grid.wire.transport import NOTSENT_LOWAT, peer_name, source_of, tune


class Transport(asyncio.Transport):
    """A transport that is nothing but its extra info."""

    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)
        self.high: int | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high


@pytest.mark.parametrize(
    ("peername", "source"),
    [
        (("192.0.2.7", 5000), "192.0.2.7"),
        (("::ffff:192.0.2.7", 5000, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 5000, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::1", 5001, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5000, 0, 2), "fe80::/64"),
        ("/run/socket", ""),
        (None, ""),
    ],
)
def test_source_is_the_ipv4_address_or_the_ipv6_network(peername: Any, source: str) -> None:
    assert source_of(Transport(peername=peername)) == source


def test_peer_name_is_empty_when_the_transport_has_none() -> None:
    assert peer_name(Transport(peername=("192.0.2.7", 5000))) == "192.0.2.7:5000"
    assert peer_name(Transport()) == ""


def test_tune_makes_tcp_late_binding() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
    with sock:
        transport = Transport(socket=sock)
        tune(transport)
        assert transport.high == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            lowat = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            assert lowat == NOTSENT_LOWAT


def test_tune_leaves_other_sockets_alone() -> None:
    left, right = socket.socketpair()
    with left, right:
        tune(Transport(socket=left))
