"""Device certificates: an account says that a device is its own.

     0       1           9             41          73            105         113            177
    +-------+-----------+-------------+-----------+-------------+-----------+--------------+
    |version| serial 64 | account 256 | noise 256 | signing 256 |not_after64| signature 512|
    +-------+-----------+-------------+-----------+-------------+-----------+--------------+

All numbers are big-endian. The account's Ed25519 key signs a context string and the first 113
bytes. A certificate grants nothing: what an account may do stands at each node.

Source: spec/PROTOCOL.md, "Identities".
"""

from dataclasses import dataclass
from struct import Struct
from typing import Self

from alpyne_proto.errors import CertificateInvalid, LocalProtocolError
from alpyne_proto.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, signature_holds
from alpyne_proto.limits import CLOCK_TOLERANCE_S

CONTEXT = b"alpyne device certificate v1\x00"
VERSION = 1
CERTIFICATE_LIFE_S = 365 * 86_400  # one year

_BODY = Struct(">BQ32s32s32sQ")
CERTIFICATE_SIZE = _BODY.size + SIGNATURE_SIZE
_U64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says; it is worth nothing before `verify`."""

    serial: int  # 64 bits, the account's choice
    account_key: bytes  # Ed25519 public key, 32 bytes
    noise_key: bytes  # the device's X25519 public key, 32 bytes
    signing_key: bytes  # the device's Ed25519 public key, 32 bytes
    not_after: int  # seconds since the epoch, 64 bits
    signature: bytes  # 64 bytes

    @classmethod
    def issue(
        cls,
        account: SigningKey,
        *,
        serial: int,
        noise_key: bytes,
        signing_key: bytes,
        not_after: int,
    ) -> Self:
        """Sign a certificate for a device's public keys until `not_after`.

        Raises LocalProtocolError for a number out of range or keys that `verify` would refuse.
        """
        if not (0 <= serial <= _U64_MAX and 0 <= not_after <= _U64_MAX):
            raise LocalProtocolError("certificate: serial and not_after need 0 to 2**64 - 1")
        if {len(noise_key), len(signing_key)} != {KEY_SIZE}:
            raise LocalProtocolError(f"certificate: expected device keys of {KEY_SIZE} bytes")
        if len({account.public, noise_key, signing_key}) != 3:
            raise LocalProtocolError("certificate: expected three different keys")
        body = _BODY.pack(VERSION, serial, account.public, noise_key, signing_key, not_after)
        signature = account.sign(CONTEXT + body)
        return cls(serial, account.public, noise_key, signing_key, not_after, signature)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a certificate, without judging it; raises CertificateInvalid for another shape."""
        if len(data) != CERTIFICATE_SIZE:
            raise CertificateInvalid(
                f"device certificate: expected {CERTIFICATE_SIZE} bytes, got {len(data)}"
            )
        version, serial, account_key, noise_key, signing_key, not_after = _BODY.unpack_from(data)
        if version != VERSION:
            raise CertificateInvalid(
                f"device certificate: expected version {VERSION}, got {version}; use one release "
                "of Alpyne on both sides"
            )
        signature = data[_BODY.size :]
        return cls(serial, account_key, noise_key, signing_key, not_after, signature)

    def encode(self) -> bytes:
        """Return the certificate's 177 bytes."""
        return self._body() + self.signature

    def verify(
        self, now_s: int, tolerance_s: int = CLOCK_TOLERANCE_S, *, noise_key: bytes | None = None
    ) -> None:
        """Accept the certificate, or raise CertificateInvalid saying why not.

        now_s: the wall clock, seconds since the epoch. tolerance_s: by how much clocks may differ.
        noise_key: the static key that the peer proved in its handshake, which must be the
        certificate's; leave it out only where there is no handshake with the device (tickets).
        """
        if noise_key is not None and noise_key != self.noise_key:
            raise CertificateInvalid("device certificate: it is another device's")
        if len({self.account_key, self.noise_key, self.signing_key}) != 3:
            raise CertificateInvalid("device certificate: one key stands for two purposes")
        if not signature_holds(self.account_key, self.signature, CONTEXT + self._body()):
            raise CertificateInvalid("device certificate: the account's signature does not hold")
        if now_s > self.not_after + tolerance_s:
            raise CertificateInvalid(
                f"device certificate: expired {now_s - self.not_after} s ago; renew it with "
                "`alpyne device add`"
            )

    def _body(self) -> bytes:
        return _BODY.pack(
            VERSION,
            self.serial,
            self.account_key,
            self.noise_key,
            self.signing_key,
            self.not_after,
        )
