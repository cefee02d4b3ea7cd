"""The Alpyne protocol without I/O: messages, codec, frames, records, handshake, sessions.

No sockets, no event loop, no threads, no clock, no random source: they are arguments. Import the
modules by name (``alpyne_proto.session``, ``alpyne_proto.messages``); this package imports none of
them by itself, so that a worker that needs only frames and codec loads no cryptography.
"""

PROTOCOL_VERSION = 1
