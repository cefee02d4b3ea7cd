"""The Noise Protocol Framework, revision 34, unmodified: handshakes XK, XX and NNpsk0 over X25519.

Names are the specification's (5.1 to 5.3), so that the code can be read beside it. Pattern, cipher
and hash are parameters (noise_suites.py); ephemeral keys come from the caller.

Source: https://noiseprotocol.org/noise.html, revision 34; spec/PROTOCOL.md, "Handshake".
"""

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from alpyne_proto.errors import HandshakeFailed, LocalProtocolError
from alpyne_proto.limits import AEAD_TAG
from alpyne_proto.noise_suites import Suite, parse_protocol_name

KEY_SIZE = 32  # bytes of an X25519 key and of a cipher key (Noise 4.1, 4.2: DHLEN and k)
MAX_MESSAGE_SIZE = 65_535  # bytes of a handshake message (Noise 3)
MAX_NONCE = 2**64 - 1  # for REKEY only, never for a message (Noise 4.2, 5.1)


class CipherState:
    """A cipher key `key`, its AEAD and the next nonce (Noise 5.1); None passes data unchanged."""

    def __init__(self, suite: Suite, key: bytes | None = None) -> None:
        self.suite = suite
        self.initialize_key(key)

    def initialize_key(self, key: bytes | None) -> None:
        """Set the key, 32 bytes or None, and the nonce to 0."""
        self.key = key
        self.aead = None if key is None else self.suite.aead(key)
        self.nonce = 0

    def encrypt_with_ad(self, ad: bytes, plaintext: bytes) -> bytes:
        """Encrypt and authenticate, `ad` authenticated beside it; the nonce rises by one."""
        if self.aead is None:
            return plaintext
        ciphertext = self.aead.encrypt(self._packed_nonce(), plaintext, ad)
        self.nonce += 1
        return ciphertext

    def decrypt_with_ad(self, ad: bytes, ciphertext: bytes) -> bytes:
        """Decrypt what encrypt_with_ad made; raises HandshakeFailed, the nonce then stays."""
        if self.aead is None:
            return ciphertext
        try:
            plaintext = self.aead.decrypt(self._packed_nonce(), ciphertext, ad)
        except InvalidTag:
            raise HandshakeFailed("Noise message: authentication failed") from None
        self.nonce += 1
        return plaintext

    def rekey(self) -> None:
        """Replace the key by REKEY(k) (Noise 4.2, 11.3); the nonce goes on counting."""
        if self.aead is None:
            raise LocalProtocolError("Noise rekey: this cipher has no key")
        zeros = bytes(KEY_SIZE)
        self.key = self.aead.encrypt(self.suite.nonce.pack(MAX_NONCE), zeros, b"")[:KEY_SIZE]
        self.aead = self.suite.aead(self.key)

    def _packed_nonce(self) -> bytes:
        if self.nonce >= MAX_NONCE:
            raise LocalProtocolError("Noise nonce exhausted: open a new connection")
        return self.suite.nonce.pack(self.nonce)


class SymmetricState:
    """The chaining key `ck` and transcript hash `h` of a handshake; methods as in Noise 5.2."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.cipher = CipherState(suite)
        size = hashlib.new(suite.hash_name).digest_size
        self.h = suite.name.ljust(size, b"\0")
        if len(suite.name) > size:
            self.h = hashlib.new(suite.hash_name, suite.name).digest()
        self.ck = self.h

    def hkdf(self, input_key_material: bytes, outputs: int) -> list[bytes]:
        """HKDF of Noise 4.3 (RFC 5869 with ck as the salt and an empty info)."""
        name, results = self.suite.hash_name, [b""]
        temp_key = hmac.digest(self.ck, input_key_material, name)
        for number in range(1, outputs + 1):
            results.append(hmac.digest(temp_key, results[-1] + bytes((number,)), name))
        return results[1:]

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.new(self.suite.hash_name, self.h + data).digest()

    def mix_key(self, input_key_material: bytes) -> None:
        self.ck, temp_k = self.hkdf(input_key_material, 2)
        self.cipher.initialize_key(temp_k[:KEY_SIZE])

    def mix_key_and_hash(self, input_key_material: bytes) -> None:
        self.ck, temp_h, temp_k = self.hkdf(input_key_material, 3)
        self.mix_hash(temp_h)
        self.cipher.initialize_key(temp_k[:KEY_SIZE])

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = self.cipher.encrypt_with_ad(self.h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = self.cipher.decrypt_with_ad(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext


class HandshakeState:
    """One party's side of one handshake (Noise 5.3); the initiator writes the first message."""

    def __init__(
        self,
        protocol_name: bytes | Suite,
        initiator: bool,
        prologue: bytes,
        static: bytes | None,
        ephemeral: bytes,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        """Begin a handshake; every key is 32 bytes.

        prologue: what both parties must have alike. static: this party's private key (XK, XX).
        ephemeral: a private key of fresh random bytes, never used twice. remote_static: the
        responder's public key (initiator of XK). psk: the pre-shared key (NNpsk0).
        Raises LocalProtocolError for a key that is missing, of another size, or out of place.
        """
        suite = protocol_name
        self.suite = suite = suite if isinstance(suite, Suite) else parse_protocol_name(suite)
        self._uses_psk = "psk" in suite.messages[0]
        _check_key("static", static, any("s" in message for message in suite.messages))
        _check_key("ephemeral", ephemeral, True)
        _check_key("remote static", remote_static, suite.responder_known and initiator)
        _check_key("pre-shared", psk, self._uses_psk)
        private = {"s": static, "e": ephemeral}
        self._keys = {n: X25519PrivateKey.from_private_bytes(k) for n, k in private.items() if k}
        self._public = {n: k.public_key().public_bytes_raw() for n, k in self._keys.items()}
        self._remote = {"s": remote_static or b"", "e": b""}
        self._psk = psk or b""
        self.initiator = initiator
        self._next = 0  # number of the next message
        self._usable = True  # False while a message is worked on, and for ever after an error
        self.symmetric = SymmetricState(suite)
        self.symmetric.mix_hash(prologue)
        if suite.responder_known:
            self.symmetric.mix_hash(self._remote["s"] or self._public["s"])

    @property
    def finished(self) -> bool:
        """Whether every message was written or read."""
        return self._usable and self._next == len(self.suite.messages)

    @property
    def handshake_hash(self) -> bytes:
        """The transcript hash, for channel binding once finished (Noise 11.2)."""
        return self.symmetric.h

    @property
    def remote_static(self) -> bytes | None:
        """The peer's static public key, None while unknown; proven once finished."""
        return self._remote["s"] or None

    def write_message(self, payload: bytes = b"") -> bytes:
        """Return the next message, `payload` in it; LocalProtocolError out of turn or too long."""
        message = b""
        for token in self._begin(self.initiator):
            if token == "e":
                message += self._mix_ephemeral(self._public["e"])
            elif token == "s":
                message += self.symmetric.encrypt_and_hash(self._public["s"])
            else:
                self._mix_secret(token)
        message += self.symmetric.encrypt_and_hash(payload)
        if len(message) > MAX_MESSAGE_SIZE:
            raise LocalProtocolError(f"Noise message: {len(message)} bytes, {MAX_MESSAGE_SIZE} fit")
        return self._end(message)

    def read_message(self, message: bytes) -> bytes:
        """Return the payload of the peer's next message.

        Raises HandshakeFailed, and is dead then, for a message that is cut, too long, changed, or
        made for other keys or another prologue; LocalProtocolError when it is not the peer's turn.
        """
        tokens = self._begin(not self.initiator)
        for token in tokens:
            if token in self._remote:  # "e" or "s": a public key, sealed if it is static
                sealed = token == "s" and self.symmetric.cipher.key is not None
                size = KEY_SIZE + AEAD_TAG * sealed
                if not size <= len(message) <= MAX_MESSAGE_SIZE:
                    raise HandshakeFailed(f"Noise message: no {token} in {len(message)} bytes")
                key, message = message[:size], message[size:]
                mix = self.symmetric.decrypt_and_hash if token == "s" else self._mix_ephemeral
                self._remote[token] = mix(key)
            else:
                self._mix_secret(token)
        return self._end(self.symmetric.decrypt_and_hash(message))

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the (sending, receiving) ciphers of this party, once, after the last message."""
        if not self.finished:
            raise LocalProtocolError("Noise split: the handshake is unfinished, or split already")
        self._usable = False  # a second pair would use the same nonces again
        keys = self.symmetric.hkdf(b"", 2)
        first, second = (CipherState(self.suite, key[:KEY_SIZE]) for key in keys)
        return (first, second) if self.initiator else (second, first)

    def _begin(self, by_initiator: bool) -> tuple[str, ...]:
        due = self._next < len(self.suite.messages) and (self._next % 2 == 0) == by_initiator
        if not (self._usable and due):
            raise LocalProtocolError("Noise handshake: out of turn, finished, or failed before")
        self._usable = False
        return self.suite.messages[self._next]

    def _end(self, result: bytes) -> bytes:
        self._next += 1
        self._usable = True
        return result

    def _mix_ephemeral(self, public: bytes) -> bytes:
        self.symmetric.mix_hash(public)
        if self._uses_psk:  # Noise 9.2
            self.symmetric.mix_key(public)
        return public

    def _mix_secret(self, token: str) -> None:
        if token == "psk":
            self.symmetric.mix_key_and_hash(self._psk)
            return
        local, remote = tuple(token) if self.initiator else tuple(reversed(token))
        try:
            public = X25519PublicKey.from_public_bytes(self._remote[remote])
            self.symmetric.mix_key(self._keys[local].exchange(public))
        except ValueError:  # the result is all zero: a point of small order (RFC 7748, 6.1)
            raise HandshakeFailed(f"Noise {token}: the peer's key has small order") from None


def _check_key(name: str, key: bytes | None, wanted: bool) -> None:
    if (None if key is None else len(key)) != (KEY_SIZE if wanted else None):
        expected = f"{KEY_SIZE} bytes" if wanted else "none in this pattern and role"
        raise LocalProtocolError(f"Noise {name} key: expected {expected}")
