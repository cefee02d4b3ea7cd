"""The preface: the 12 clear bytes with which each connection begins.

     0               8       9       10        11      12
    +---------------+-------+-------+---------+-------+
    | ALPYNE CR LF  |version| suite | pattern | flags |
    +---------------+-------+-------+---------+-------+

The dialler asserts what it speaks; nothing is negotiated. An acceptor that speaks something else,
or is full, answers with its own preface and closes; the dialler uses that for its error text only,
since nobody has signed it. Both sides put the dialler's preface into the prologue of the Noise
handshake: one that was changed on the way ends the handshake. A preface begins with `A` (0x41),
no type of a record: the first byte tells a dialler a refusal from a handshake record.

Source: spec/PROTOCOL.md, "Preface".
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

from alpyne_proto.errors import HandshakeFailed
from alpyne_proto.limits import PREFACE

MAGIC = b"ALPYNE\r\n"
VERSION = 1
PROLOGUE_LABEL = b"alpyne"

_LAYOUT = Struct(">8sBBBB")
_NUMBERS = ("version", "suite", "pattern", "flags")


class SuiteNumber(IntEnum):
    """Numbers of cipher suites; only SUITE_1 is spoken, the others are reserved."""

    SUITE_1 = 1  # 25519_AESGCM_SHA256
    CHACHAPOLY = 2  # 25519_ChaChaPoly_SHA256
    HYBRID = 3  # X25519 with ML-KEM-768


class PatternNumber(IntEnum):
    """Numbers of Noise handshake patterns; only XK is spoken, the others are reserved."""

    XK = 1
    XX = 2
    NNPSK0 = 3


class PrefaceFlag(IntFlag):
    """Flags; a dialler sends none."""

    BUSY = 1  # in the acceptor's preface: it has no room for another connection, try later


NOISE_NAME = b"Noise_XK_25519_AESGCM_SHA256"  # what suite 1 and pattern XK stand for


@dataclass(frozen=True, slots=True)
class Preface:
    """What one side says it speaks: four numbers of 8 bits each."""

    version: int = VERSION
    suite: int = SuiteNumber.SUITE_1
    pattern: int = PatternNumber.XK
    flags: int = 0

    @classmethod
    def parse(cls, data: bytes) -> "Preface":
        """Read a preface, whatever numbers it has.

        data: exactly 12 bytes. Raises HandshakeFailed for another length, and for another
        protocol: whoever sent that gets no answer.
        """
        if len(data) != PREFACE:
            raise HandshakeFailed(f"preface: expected {PREFACE} bytes, got {len(data)}")
        magic, version, suite, pattern, flags = _LAYOUT.unpack(data)
        if magic != MAGIC:
            raise HandshakeFailed(f"preface: expected {MAGIC!r}, got {magic!r}: not an Alpyne peer")
        return cls(version, suite, pattern, flags)

    def encode(self) -> bytes:
        """Return the preface's 12 bytes."""
        return _LAYOUT.pack(MAGIC, self.version, self.suite, self.pattern, self.flags)

    @property
    def prologue(self) -> bytes:
        """The Noise prologue that both sides must have alike."""
        return self.encode() + PROLOGUE_LABEL

    def check(self) -> None:
        """Accept a dialler's preface that says exactly what we speak.

        Raises HandshakeFailed naming what differs; the acceptor then answers with its own preface.
        """
        if differences := self._differences(Preface()):
            raise HandshakeFailed(f"preface: {differences}")

    def explain_refusal(self) -> str:
        """Say why an acceptor that answered with this preface refused us, and what to do.

        For a person only: anyone on the way can have written it.
        """
        if differences := self._differences(Preface(flags=self.flags)):
            return f"the node refused the connection: {differences}; use the same release of Alpyne"
        if self.flags & PrefaceFlag.BUSY:
            return "the node refused the connection: it is busy; try again later"
        return "the node refused the connection and gave no reason; see the node's log"

    def _differences(self, ours: "Preface") -> str:
        pairs = ((name, getattr(ours, name), getattr(self, name)) for name in _NUMBERS)
        return ", ".join(
            f"{n}: expected {want}, got {got}" for n, want, got in pairs if want != got
        )
