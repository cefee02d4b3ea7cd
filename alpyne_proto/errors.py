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
    ├── ConnectionLost          the transport ended without CLOSE, fell silent, or the peer closed
    └── RequestFailed           the peer answered a request with Error

Codes of connection errors (CLOSE) and stream errors (RESET, STOP, Error) are one number space,
``ErrorCode``; numbers are never reused.
"""

from enum import IntEnum


class ErrorCode(IntEnum):
    """What went wrong, as it travels in CLOSE, RESET, STOP and Error."""

    NO_ERROR = 0  # a clean end
    # connection scope
    PROTOCOL_ERROR = 1  # a message that is not legal here
    HANDSHAKE_FAILED = 2  # preface, Noise message or hello refused
    RECORD_ERROR = 3  # a record's header, length or tag is wrong
    FRAME_ERROR = 4  # a frame's header, type, offset or stream id is wrong
    CODEC_ERROR = 5  # meta, a row or a field outside its declared shape
    COMPRESSION_ERROR = 6  # a payload does not inflate as declared
    FLOW_CONTROL_ERROR = 7  # more bytes or streams than credit was given for
    CERTIFICATE_INVALID = 8  # the device certificate does not hold
    IDLE_TIMEOUT = 9  # nothing came for too long
    SHUTTING_DOWN = 10  # the node is ending; come again later
    REVOKED = 11  # the account or device was revoked at this node
    TOO_BUSY = 12  # more connections, interrupts or unread control frames than are taken
    TRUNCATED = 13  # the transport ended without CLOSE; never on the wire
    # request scope
    CANCELLED = 32  # the other side gave the request up
    NOT_PERMITTED = 33  # the account's role or the ticket does not allow it
    NOT_FOUND = 34  # unknown here, or somebody else's
    BAD_REQUEST = 35  # legal, but it cannot be carried out as it stands
    QUOTA_EXCEEDED = 36  # the account may keep no more bytes here
    STORE_FAILED = 37  # the node could not make it durable
    VERSION_CONFLICT = 38  # another version stands where one was expected
    FENCED = 39  # a newer execution of the job is known
    DIGEST_MISMATCH = 40  # the bytes are not those that the hash names
    CORRUPT = 41  # the stored bytes are damaged; read another copy
    TICKET_INVALID = 42  # the ticket does not hold, or no longer
    INVITATION_INVALID = 43  # the code is unknown, used or expired
    REGISTRATION_CLOSED = 44  # this node does not register this key
    UNSUPPORTED = 45  # the node has no such function
    OVERLOADED = 46  # too much at once; try again later
    INTERNAL = 47  # a defect of the node; its log names the id


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
    """The connection ended before its time.

    ``code``: TRUNCATED (the transport ended without CLOSE), IDLE_TIMEOUT (the peer fell silent), or
    the code of the peer's CLOSE.
    """

    def __init__(self, text: str, code: ErrorCode = ErrorCode.TRUNCATED) -> None:
        super().__init__(text)
        self.code = code


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
