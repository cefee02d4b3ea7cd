"""The names that the folder promises."""

import alpyne_grid.wire as wire


def test_wire_exports_exactly_these_names() -> None:
    assert sorted(wire.__all__) == [
        "Answer", "Backoff", "Body", "BodyReader", "BodyWriter", "Connection", "DialFailed",
        "FileBody", "FileSink", "Handler", "Log", "MemoryTransport", "OutgoingStream",
        "Redialler", "Request", "RequestLost", "RequestTimedOut", "Server", "ServerLimits",
        "Service", "Sink", "configure", "dial", "dial_transport", "log_loop_errors",
        "memory_pair", "serve", "serve_transport", "write_body",
    ]  # fmt: skip
    assert all(hasattr(wire, name) for name in wire.__all__)
