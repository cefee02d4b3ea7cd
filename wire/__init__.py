"""The protocol over asyncio stream servers: connections, servers, dialling, calls.

The way of a byte, from the socket to a handler and back:

    transport -> shell (reads, writes, timer) -> alpyne_proto.session -> dispatch (events)
      -> service (handlers) and call (our own requests), body (bytes in), writer (bytes out)

`serve` accepts (strangers: who gets in), `dial` connects, `redial` keeps connected, `files` moves
bodies from and to the disk, `memory` joins two peers without a socket, `log` writes events.
"""

if __name__ != "alpyne_grid.wire":
    raise ImportError("this folder is the package alpyne_grid.wire: import it by that name")

from alpyne_grid.wire.body import BodyReader, Sink
from alpyne_grid.wire.call import Answer, OutgoingStream, RequestLost, RequestTimedOut
from alpyne_grid.wire.connection import Connection
from alpyne_grid.wire.dial import DialFailed, dial, dial_transport
from alpyne_grid.wire.files import FileBody, FileSink
from alpyne_grid.wire.log import Log, configure, log_loop_errors
from alpyne_grid.wire.memory import MemoryTransport, memory_pair
from alpyne_grid.wire.redial import Backoff, Redialler
from alpyne_grid.wire.server import Server, serve, serve_transport
from alpyne_grid.wire.service import Handler, Request, Service
from alpyne_grid.wire.strangers import ServerLimits
from alpyne_grid.wire.writer import Body, BodyWriter, write_body

__all__ = [
    "Answer",
    "Backoff",
    "Body",
    "BodyReader",
    "BodyWriter",
    "Connection",
    "DialFailed",
    "FileBody",
    "FileSink",
    "Handler",
    "Log",
    "MemoryTransport",
    "OutgoingStream",
    "Redialler",
    "Request",
    "RequestLost",
    "RequestTimedOut",
    "Server",
    "ServerLimits",
    "Service",
    "Sink",
    "configure",
    "dial",
    "dial_transport",
    "log_loop_errors",
    "memory_pair",
    "serve",
    "serve_transport",
    "write_body",
]
