"""The meta of control frames. The frame's type names the message; there is no key 0."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from alpyne_proto.errors import ErrorCode, Outcome
from alpyne_proto.fields import FLAG, HASH32, U32, U64, Choice, Text
from alpyne_proto.registry import ANY_ROLE, Field, Message, Role, Shape, State, message

AFTER_HANDSHAKE = (State.UNKNOWN, State.BEARER, State.OPEN)
ALWAYS = (State.HANDSHAKE, *AFTER_HANDSHAKE)  # in HANDSHAKE: once both sides have their keys


class AccountRole(IntEnum):
    """What an account may do at a node."""

    NONE = 0
    USER = 1
    ADMIN = 2


@message(0x0100, shape=Shape.CONTROL, sender=Role.NODE, states=ALWAYS)
@dataclass(frozen=True, slots=True)
class Settings(Message):
    """Acceptor to dialler, first frame and after each change: the connection's state."""

    state: Annotated[State, Field(2, Choice(State), "UNKNOWN, BEARER or OPEN")]
    role: Annotated[AccountRole, Field(4, Choice(AccountRole), "the account's role here")] = (
        AccountRole.NONE
    )


@message(0x0101, shape=Shape.CONTROL, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Either way: answer with the same token and the ACK flag."""

    token: Annotated[int, Field(2, U64, "echoed")]


@message(0x0102, shape=Shape.CONTROL, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class GoAway(Message):
    """No new streams above ``last_stream``; those up to it are still served."""

    last_stream: Annotated[int, Field(2, U32, "highest stream id that is served")]
    code: Annotated[ErrorCode, Field(4, Choice(ErrorCode), "why")] = ErrorCode.SHUTTING_DOWN
    text: Annotated[str, Field(5, Text(512), "for a person")] = ""


@message(0x0103, shape=Shape.CONTROL, states=ALWAYS)
@dataclass(frozen=True, slots=True)
class Close(Message):
    """The connection ends; the sender reads nothing more."""

    code: Annotated[ErrorCode, Field(2, Choice(ErrorCode), "why; NO_ERROR for a clean end")]
    text: Annotated[str, Field(5, Text(512), "for a person")] = ""


@message(0x0104, shape=Shape.CONTROL, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class MaxData(Message):
    """The connection's credit: all body bytes that may ever be sent to the sender of this."""

    maximum: Annotated[int, Field(2, U64, "bytes, absolute, uncompressed")]


@message(0x0105, shape=Shape.CONTROL, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class MaxStreams(Message):
    """All streams that may ever be opened towards the sender of this."""

    maximum: Annotated[int, Field(2, U32, "streams, absolute")]


@message(0x0106, shape=Shape.CONTROL, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class Reset(Message):
    """The sender's side of the frame's stream ends here, unfinished."""

    code: Annotated[ErrorCode, Field(2, Choice(ErrorCode), "why")]
    text: Annotated[str, Field(5, Text(512), "for a person")] = ""


@message(0x0107, shape=Shape.CONTROL, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class Stop(Message):
    """The sender wants no more bytes of the frame's stream; answered by RESET."""

    code: Annotated[ErrorCode, Field(2, Choice(ErrorCode), "why")]
    text: Annotated[str, Field(5, Text(512), "for a person")] = ""


@message(0x0108, shape=Shape.CONTROL, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class MaxStreamData(Message):
    """The frame's stream's credit."""

    maximum: Annotated[int, Field(2, U64, "bytes, absolute, uncompressed")]


@message(0x0A, shape=Shape.RESPONSE, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class Done(Message):
    """The request was carried out; there is nothing more to say."""


@message(0x0B, shape=Shape.RESPONSE, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class Error(Message):
    """The request was not carried out, or not wholly; legal as the answer to every request."""

    code: Annotated[ErrorCode, Field(2, Choice(ErrorCode), "what went wrong")]
    outcome: Annotated[Outcome, Field(4, Choice(Outcome), "whether it may have had effect")] = (
        Outcome.NOT_STARTED
    )
    text: Annotated[str, Field(5, Text(4096), "what, where, expected, got, what to do")] = ""
    retryable: Annotated[bool, Field(7, FLAG, "the same request may succeed later")] = False
    retry_after_ms: Annotated[int, Field(9, U32, "wait at least this long, milliseconds")] = 0


@message(0x0C, shape=Shape.RESPONSE, states=AFTER_HANDSHAKE, body=True)
@dataclass(frozen=True, slots=True)
class RowsFollow(Message):
    """The body is a stream of rows of the kind that the request names."""

    count: Annotated[int, Field(3, U64, "rows, where known")] = 0


@message(0x0D, shape=Shape.TRAILER, sender=ANY_ROLE, states=AFTER_HANDSHAKE)
@dataclass(frozen=True, slots=True)
class BodyDigest(Message):
    """The trailer of a body whose hash is known only at its end."""

    sha256: Annotated[bytes, Field(2, HASH32, "SHA-256 of the whole body")]
