"""The names, patterns, ciphers and hashes of the Noise Protocol Framework that noise.py can run.

Source: https://noiseprotocol.org/noise.html, revision 34, sections 7, 8, 9.4 and 12.
"""

from dataclasses import dataclass
from struct import Struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from alpyne_proto.errors import LocalProtocolError


@dataclass(frozen=True, slots=True)
class Suite:
    """A protocol name taken apart (Noise 7, 8): handshake pattern, cipher and hash."""

    name: bytes
    responder_known: bool  # pre-message `<- s`: the initiator knows the responder's static key
    messages: tuple[tuple[str, ...], ...]  # the tokens of each message, the initiator's first
    aead: type[AESGCM] | type[ChaCha20Poly1305]
    nonce: Struct  # layout: four zero bytes, 64 bits in the cipher's byte order (Noise 12.3, 12.4)
    hash_name: str  # hashlib's


_PATTERNS = {
    b"XK": (True, (("e", "es"), ("e", "ee"), ("s", "se"))),
    b"XX": (False, (("e",), ("e", "ee", "s", "es"), ("s", "se"))),
    b"NNpsk0": (False, (("psk", "e"), ("e", "ee"))),
}
_CIPHERS: dict[bytes, tuple[type[AESGCM] | type[ChaCha20Poly1305], Struct]] = {
    b"AESGCM": (AESGCM, Struct(">4xQ")),
    b"ChaChaPoly": (ChaCha20Poly1305, Struct("<4xQ")),
}
_HASHES = {b"SHA256": "sha256", b"SHA512": "sha512", b"BLAKE2s": "blake2s", b"BLAKE2b": "blake2b"}


def parse_protocol_name(name: bytes) -> Suite:
    """Take a name such as b"Noise_XK_25519_AESGCM_SHA256" apart.

    Raises LocalProtocolError for a pattern, DH function, cipher or hash that is not implemented.
    """
    try:
        noise, pattern, dh, cipher, digest = name.split(b"_")
        if (noise, dh) == (b"Noise", b"25519"):
            return Suite(name, *_PATTERNS[pattern], *_CIPHERS[cipher], _HASHES[digest])
    except (ValueError, KeyError):
        pass
    expected = "Noise_{XK,XX,NNpsk0}_25519_{AESGCM,ChaChaPoly}_{SHA256,SHA512,BLAKE2s,BLAKE2b}"
    raise LocalProtocolError(f"Noise protocol name: expected {expected}, got {name!r}")
