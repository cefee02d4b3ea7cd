"""The private keys of accounts, devices and nodes.

An account is an Ed25519 key (ssh_keys.py reads and writes its files); it only certifies devices. A
device and a node each have two keys, made independently: an X25519 one for Noise and an Ed25519 one
for signatures. An Ed25519 key is never used as an X25519 key.

The private keys of a device or node are kept as a text:

    -----BEGIN ALPYNE DEVICE PRIVATE KEYS-----        (or NODE)
    base64 of: version 1 (1 byte), X25519 key (32), Ed25519 key (32), checksum (8)
    -----END ALPYNE DEVICE PRIVATE KEYS-----

The checksum is the beginning of SHA-256 over the first line and the bytes before the checksum:
without it, a damaged file would be another identity that works.

Source: spec/PROTOCOL.md, "Identities"; RFC 7748 (X25519), RFC 8032 (Ed25519).
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from alpyne_proto.errors import KeyFileError, LocalProtocolError

KEY_SIZE = 32  # bytes of each private and public key
SIGNATURE_SIZE = 64  # bytes

_FILE_VERSION = 1
_CHECKSUM_SIZE = 8
_FILE_MAX = 1024  # characters; the text has about 190


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key: an account's, or the signing key of a device or node."""

    private: bytes = field(repr=False)  # 32 bytes, the seed of RFC 8032
    public: bytes = field(init=False)  # 32 bytes

    def __post_init__(self) -> None:
        _check_size("Ed25519 private key", self.private)
        key = Ed25519PrivateKey.from_private_bytes(self.private)
        object.__setattr__(self, "public", key.public_key().public_bytes_raw())

    @classmethod
    def create(cls, random: Callable[[int], bytes]) -> Self:
        """Make a new key; random: returns as many unpredictable bytes as it is asked for."""
        return cls(random(KEY_SIZE))

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`, which begins with its context string."""
        return Ed25519PrivateKey.from_private_bytes(self.private).sign(message)


def signature_holds(key: bytes, signature: bytes, message: bytes) -> bool:
    """Say whether `signature` is that of `message` by the Ed25519 public key `key` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):  # ValueError: not a key at all
        return False
    return True


@dataclass(frozen=True, slots=True)
class Identity:
    """The two private keys of a device or node; use DeviceIdentity or NodeIdentity."""

    LABEL: ClassVar[str]

    noise_private: bytes = field(repr=False)  # X25519, 32 bytes
    signing: SigningKey
    noise_public: bytes = field(init=False)  # 32 bytes; of a node: the key in its address

    def __post_init__(self) -> None:
        _check_size("X25519 private key", self.noise_private)
        if self.noise_private == self.signing.private:
            raise LocalProtocolError("identity: expected two keys, got one used for both purposes")
        public = X25519PrivateKey.from_private_bytes(self.noise_private).public_key()
        object.__setattr__(self, "noise_public", public.public_bytes_raw())

    @classmethod
    def create(cls, random: Callable[[int], bytes]) -> Self:
        """Make a new identity; random: returns as many unpredictable bytes as it is asked for."""
        return cls(random(KEY_SIZE), SigningKey(random(KEY_SIZE)))

    def to_text(self) -> str:
        """Return the private keys as text, to be kept in a file that only its owner reads."""
        begin, end = self._lines()
        keys = bytes((_FILE_VERSION,)) + self.noise_private + self.signing.private
        body = base64.b64encode(keys + _checksum(begin, keys)).decode()
        return "\n".join((begin, body[:64], body[64:], end, ""))

    @classmethod
    def from_text(cls, text: str, where: str) -> Self:
        """Read what to_text wrote.

        text: the content of a file. where: the file's name, for the error message.
        Raises KeyFileError for anything else.
        """
        begin, end = cls._lines()
        lines = [line.strip() for line in text[: _FILE_MAX + 1].strip().splitlines()]
        if len(text) > _FILE_MAX or not lines or (lines[0], lines[-1]) != (begin, end):
            raise KeyFileError(f"{where}: expected a text from {begin!r} to {end!r}; {_REMEDY}")
        try:
            data = base64.b64decode("".join(lines[1:-1]), validate=True)
        except ValueError:
            raise KeyFileError(f"{where}: expected base64 between its lines; {_REMEDY}") from None
        keys, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
        if checksum != _checksum(begin, keys):
            raise KeyFileError(f"{where}: the checksum is wrong, the file is damaged; {_REMEDY}")
        if len(keys) != 1 + 2 * KEY_SIZE or keys[0] != _FILE_VERSION:
            raise KeyFileError(f"{where}: written by another release of Alpyne; use that release")
        return cls(keys[1 : 1 + KEY_SIZE], SigningKey(keys[1 + KEY_SIZE :]))

    @classmethod
    def _lines(cls) -> tuple[str, str]:
        label = f"ALPYNE {cls.LABEL} PRIVATE KEYS"
        return f"-----BEGIN {label}-----", f"-----END {label}-----"


_REMEDY = "restore the file from a backup (a new one would be another identity)"


class DeviceIdentity(Identity):
    """A device's private keys: Noise for its connections, Ed25519 for the tickets it signs."""

    __slots__ = ()
    LABEL = "DEVICE"


class NodeIdentity(Identity):
    """A node's private keys: Noise for its address, Ed25519 for the results it signs."""

    __slots__ = ()
    LABEL = "NODE"


def _check_size(name: str, key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise LocalProtocolError(f"{name}: expected {KEY_SIZE} bytes, got {len(key)}")


def _checksum(first_line: str, keys: bytes) -> bytes:
    return hashlib.sha256(first_line.encode() + keys).digest()[:_CHECKSUM_SIZE]
