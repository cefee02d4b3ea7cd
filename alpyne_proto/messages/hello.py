"""Hellos: the encrypted payloads of Noise messages 2 (acceptor) and 3 (dialler)."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from alpyne_proto import limits
from alpyne_proto.fields import ID16, KEY32, U32, U64, Bits, Blob, Choice, Text
from alpyne_proto.registry import Field, Message, Role, Shape, State, message

CODEC_ZSTD = 1


class NodeKind(IntEnum):
    """What a node does."""

    COMPUTE = 1
    DATA = 2


@message(0x01, shape=Shape.HELLO, sender=Role.NODE, states=(State.HANDSHAKE,))
@dataclass(frozen=True, slots=True)
class AcceptorHello(Message):
    """Node to dialler, in Noise message 2: who and what the node is, and its limits."""

    kind: Annotated[NodeKind, Field(2, Choice(NodeKind), "compute or data")]
    boot_id: Annotated[bytes, Field(4, ID16, "random, new at each start of the daemon")]
    store_id: Annotated[bytes, Field(6, ID16, "random, made with the state folder")]
    generation: Annotated[int, Field(8, U64, "starts of this store; an older one is a backup")]
    last_commit: Annotated[int, Field(10, U64, "number of the store's last commit")]
    signing_key: Annotated[bytes, Field(12, KEY32, "Ed25519 key that signs results")]
    max_streams: Annotated[int, Field(14, U32, "streams the dialler may open")] = limits.STREAMS_MAX
    max_data: Annotated[int, Field(16, U64, "connection credit, bytes")] = limits.CONNECTION_WINDOW
    max_stream_data: Annotated[int, Field(18, U64, "credit of each stream, bytes")] = (
        limits.STREAM_WINDOW
    )
    codecs: Annotated[int, Field(20, Bits(0xFF), "payload codecs understood; 1 = zstd")] = 0
    features: Annotated[int, Field(22, U64, "none defined; unknown bits are ignored")] = 0
    host_label: Annotated[str, Field(25, Text(64), "names the machine, for co-location")] = ""
    software: Annotated[str, Field(27, Text(64), "name and version, for people")] = ""


@message(0x02, shape=Shape.HELLO, states=(State.HANDSHAKE,))
@dataclass(frozen=True, slots=True)
class DiallerHello(Message):
    """Dialler to node, in Noise message 3: its roles, certificate and limits."""

    roles: Annotated[int, Field(2, Bits(0x03), "1 = manager, 2 = node")]
    run_id: Annotated[bytes, Field(4, ID16, "random, new at each start of the program")]
    certificate: Annotated[bytes, Field(6, Blob(0, limits.CERTIFICATE_MAX), "device certificate")]
    max_streams: Annotated[int, Field(14, U32, "streams the acceptor may open")] = (
        limits.STREAMS_MAX
    )
    max_data: Annotated[int, Field(16, U64, "connection credit, bytes")] = limits.CONNECTION_WINDOW
    max_stream_data: Annotated[int, Field(18, U64, "credit of each stream, bytes")] = (
        limits.STREAM_WINDOW
    )
    codecs: Annotated[int, Field(20, Bits(0xFF), "payload codecs understood; 1 = zstd")] = 0
    features: Annotated[int, Field(22, U64, "none defined; unknown bits are ignored")] = 0
    host_label: Annotated[str, Field(25, Text(64), "names the machine, for co-location")] = ""
    software: Annotated[str, Field(27, Text(64), "name and version, for people")] = ""
