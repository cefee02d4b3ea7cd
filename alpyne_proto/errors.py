"""The errors of the protocol, each with its wire code.

    AlpyneError
    ├── AddressError            a node address that cannot be read
    ├── KeyFileError            a key or certificate file that cannot be used
    ├── LocalProtocolError      we misused the protocol; nothing was sent
    ├── RemoteProtocolError     the peer broke the protocol; the connection ends
    │   ├── HandshakeFailed     preface, Noise message or hello refused
    │   ├── RecordError         record header, length or tag wrong
    │   ├── FrameError          frame header, type, offset or stream id wrong
    │   ├── CodecError          meta, row or field outside its declared shape
    │   ├── CompressionError    a payload that does not inflate as declared
    │   ├── FlowError           more bytes or streams than credit was given for
    │   └── CertificateInvalid  a device certificate that does not hold
    ├── TicketInvalid           a ticket that does not hold
    ├── ConnectionLost          the transport ended without CLOSE, or fell silent
    └── RequestFailed           the peer answered a request with Error

Codes of connection errors (CLOSE) and stream errors (RESET, STOP, Error) are one number space,
``ErrorCode``; numbers are never reused.
"""

from enum import IntEnum


class ErrorCode(IntEnum):
    """What went wrong, as it travels in CLOSE, RESET, STOP and Error."""

    NO_ERROR = 0
    # connection scope
    PROTOCOL_ERROR = 1
    HANDSHAKE_FAILED = 2
    RECORD_ERROR = 3
    FRAME_ERROR = 4
    CODEC_ERROR = 5
    COMPRESSION_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    CERTIFICATE_INVALID = 8
    IDLE_TIMEOUT = 9
    SHUTTING_DOWN = 10
    REVOKED = 11
    TOO_BUSY = 12
    # request scope
    CANCELLED = 32
    NOT_PERMITTED = 33
    NOT_FOUND = 34
    BAD_REQUEST = 35
    QUOTA_EXCEEDED = 36
    STORE_FAILED = 37
    VERSION_CONFLICT = 38
    FENCED = 39
    DIGEST_MISMATCH = 40
    CORRUPT = 41
    TICKET_INVALID = 42
    INVITATION_INVALID = 43
    REGISTRATION_CLOSED = 44
    UNSUPPORTED = 45
    OVERLOADED = 46
    INTERNAL = 47


class Outcome(IntEnum):
    """What is known of a failed request's effect."""

    NOT_STARTED = 1
    MAYBE = 2
    DONE = 3


class AlpyneError(Exception):
    """Root of everything that Alpyne raises on purpose."""

    code: ErrorCode = ErrorCode.INTERNAL


class AddressError(AlpyneError):
    """A node address that cannot be read; the message shows the expected form."""

    code = ErrorCode.BAD_REQUEST


class KeyFileError(AlpyneError):
    """A key or certificate file that cannot be used; the message says what to do."""

    code = ErrorCode.BAD_REQUEST


class LocalProtocolError(AlpyneError):
    """We called the protocol in a way it does not allow; nothing was sent."""

    code = ErrorCode.INTERNAL


class RemoteProtocolError(AlpyneError):
    """The peer broke the protocol; the connection cannot go on."""

    code = ErrorCode.PROTOCOL_ERROR


class HandshakeFailed(RemoteProtocolError):
    """The preface, a Noise message or a hello was refused."""

    code = ErrorCode.HANDSHAKE_FAILED


class RecordError(RemoteProtocolError):
    """A record's header, length or authentication tag is wrong."""

    code = ErrorCode.RECORD_ERROR


class FrameError(RemoteProtocolError):
    """A frame's header, type, stream id or offset is wrong here."""

    code = ErrorCode.FRAME_ERROR


class CodecError(RemoteProtocolError):
    """A meta map, row or field lies outside its declared shape."""

    code = ErrorCode.CODEC_ERROR


class CompressionError(RemoteProtocolError):
    """A compressed payload does not inflate to what it declares."""

    code = ErrorCode.COMPRESSION_ERROR


class FlowError(RemoteProtocolError):
    """The peer sent more bytes or opened more streams than it had credit for."""

    code = ErrorCode.FLOW_CONTROL_ERROR


class CertificateInvalid(RemoteProtocolError):
    """A device certificate does not hold: shape, signature, key or time."""

    code = ErrorCode.CERTIFICATE_INVALID


class TicketInvalid(AlpyneError):
    """A ticket does not hold: shape, signature, holder, audience, verbs or time."""

    code = ErrorCode.TICKET_INVALID


class ConnectionLost(AlpyneError):
    """The transport ended without CLOSE (TRUNCATED) or the peer fell silent."""

    code = ErrorCode.IDLE_TIMEOUT


class RequestFailed(AlpyneError):
    """The peer answered a request with Error.

    Attributes: ``code`` (ErrorCode), ``retryable``, ``retry_after_ms``, ``outcome`` (Outcome).
    """

    def __init__(
        self,
        code: ErrorCode,
        text: str,
        *,
        retryable: bool = False,
        retry_after_ms: int = 0,
        outcome: Outcome = Outcome.NOT_STARTED,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.outcome = outcome
