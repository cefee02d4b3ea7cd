"""Tickets: a device lets one node act on some of the account's objects, for one job, for a time.

    bytes  field
        1  version, 1
       16  serial, random
      177  device certificate
       32  holder: X25519 static key of the node that may show the ticket
       16  container
       16  job
        4  allocation of the job
        2  verbs: 1 READ, 2 WRITE, 4 LIST; any other bit is refused
        8  not_after, seconds since the epoch
        1  number of audiences, 1 to 8
        2  bytes of the prefix, 0 to 1024
     32 each  audiences: X25519 static keys of the data nodes that may take the ticket
        -  prefix, UTF-8: what it covers in the container; empty = everything
       64  signature by the device's Ed25519 key over a context string and all bytes before

All numbers are big-endian. A ticket has 371 to 1,619 bytes; anything else is refused unread.

Source: spec/PROTOCOL.md, "Tickets".
"""

import re
from dataclasses import dataclass, replace
from enum import IntFlag
from struct import Struct
from typing import Self

from alpyne_proto.certificate import CERTIFICATE_SIZE, Certificate
from alpyne_proto.errors import CertificateInvalid, LocalProtocolError, TicketInvalid
from alpyne_proto.keys import KEY_SIZE, SIGNATURE_SIZE, DeviceIdentity, signature_holds
from alpyne_proto.limits import CLOCK_TOLERANCE_S, PATH_MAX

CONTEXT = b"alpyne ticket v1\x00"
VERSION = 1
ID_SIZE = 16  # bytes of serial, container and job
AUDIENCES_MAX = 8  # data nodes that a job reads and writes; a job may have several tickets

_FIXED = Struct(f">B16s{CERTIFICATE_SIZE}s32s16s16sIHQBH")
TICKET_SIZE_MIN = _FIXED.size + KEY_SIZE + SIGNATURE_SIZE
TICKET_SIZE_MAX = _FIXED.size + AUDIENCES_MAX * KEY_SIZE + PATH_MAX + SIGNATURE_SIZE


class Verb(IntFlag):
    """What a ticket allows on its subject."""

    READ = 1
    WRITE = 2
    LIST = 4


_ALL_VERBS = int(Verb.READ | Verb.WRITE | Verb.LIST)  # `~` of a flag would drop unknown bits
_NO_SEGMENTS = {"", ".", ".."}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a ticket says; it is worth nothing before `check`."""

    serial: bytes  # 16 bytes, random
    certificate: Certificate  # of the device that signed
    holder: bytes  # 32 bytes: static key of the node that may show it
    audiences: tuple[bytes, ...]  # 1 to 8 static keys of data nodes, 32 bytes each
    container: bytes  # 16 bytes
    prefix: str  # whole segments of a path, without a slash at either end; "" = everything
    verbs: Verb  # at least one
    job: bytes  # 16 bytes
    allocation: int  # 32 bits
    not_after: int  # seconds since the epoch, 64 bits
    signature: bytes = b""  # 64 bytes

    def __post_init__(self) -> None:
        """Raise TicketInvalid for what no ticket may say."""
        ids = (self.serial, self.container, self.job)
        _expect(all(len(i) == ID_SIZE for i in ids), f"ids of {ID_SIZE} bytes")
        keys = (self.holder, *self.audiences)
        _expect(all(len(key) == KEY_SIZE for key in keys), f"keys of {KEY_SIZE} bytes")
        _expect(0 < len(self.audiences) <= AUDIENCES_MAX, f"1 to {AUDIENCES_MAX} audiences")
        _expect(len(set(self.audiences)) == len(self.audiences), "each audience once")
        _expect(0 < self.verbs <= _ALL_VERBS, f"verbs of 1 to {_ALL_VERBS}")
        _expect(0 <= self.allocation < 1 << 32, "an allocation of 32 bits")
        _expect(0 <= self.not_after < 1 << 64, "a not_after of 64 bits")
        _expect(len(_prefix_bytes(self.prefix)) <= PATH_MAX, f"a prefix of {PATH_MAX} bytes")
        segments = self.prefix.split("/") if self.prefix else []
        _expect(not _NO_SEGMENTS & {*segments}, "a prefix of whole segments, none `.` or `..`")
        _expect(not _CONTROL.search(self.prefix), "a prefix without control characters")

    @classmethod
    def issue(
        cls,
        device: DeviceIdentity,
        certificate: Certificate,
        *,
        serial: bytes,
        holder: bytes,
        audiences: tuple[bytes, ...],
        container: bytes,
        verbs: Verb,
        job: bytes,
        allocation: int,
        not_after: int,
        prefix: str = "",
    ) -> Self:
        """Sign a ticket; the arguments are the fields of the same name.

        certificate: the device's own. serial: 16 fresh random bytes.
        Raises TicketInvalid for what no ticket may say, LocalProtocolError for another device's
        certificate.
        """
        if certificate.signing_key != device.signing.public:
            raise LocalProtocolError("ticket: the certificate is another device's")
        unsigned = cls(
            serial=serial,
            certificate=certificate,
            holder=holder,
            audiences=audiences,
            container=container,
            prefix=prefix,
            verbs=verbs,
            job=job,
            allocation=allocation,
            not_after=not_after,
        )
        return replace(unsigned, signature=device.signing.sign(CONTEXT + unsigned._body()))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a ticket, without judging it; raises TicketInvalid for what encode never makes."""
        _expect(
            TICKET_SIZE_MIN <= len(data) <= TICKET_SIZE_MAX,
            f"{TICKET_SIZE_MIN} to {TICKET_SIZE_MAX} bytes, got {len(data)}",
        )
        (version, serial, certificate, holder, container, job, allocation, verbs, not_after, count,
         prefix_size) = _FIXED.unpack_from(data)  # fmt: skip
        _expect(version == VERSION, f"version {VERSION}, got {version}")
        prefix_at = _FIXED.size + count * KEY_SIZE
        end = prefix_at + prefix_size
        _expect(len(data) == end + SIGNATURE_SIZE, "the length that its counts add up to")
        try:
            parsed, prefix = Certificate.parse(certificate), data[prefix_at:end].decode()
        except (CertificateInvalid, UnicodeDecodeError) as error:
            raise TicketInvalid(f"ticket: {error}") from None
        starts = range(_FIXED.size, prefix_at, KEY_SIZE)
        _expect(not verbs & ~_ALL_VERBS, f"verbs of 1 to {_ALL_VERBS}, got {verbs}")
        return cls(
            serial=serial,
            certificate=parsed,
            holder=holder,
            audiences=tuple(data[at : at + KEY_SIZE] for at in starts),
            container=container,
            prefix=prefix,
            verbs=Verb(verbs),
            job=job,
            allocation=allocation,
            not_after=not_after,
            signature=data[end:],
        )

    def encode(self) -> bytes:
        """Return the ticket's bytes."""
        return self._body() + self.signature

    @property
    def account(self) -> bytes:
        """The account that the ticket acts for: an Ed25519 public key, 32 bytes."""
        return self.certificate.account_key

    def check(
        self,
        *,
        audience: bytes,
        holder: bytes,
        now_s: int,
        tolerance_s: int = CLOCK_TOLERANCE_S,
    ) -> None:
        """Accept the ticket at a data node, or raise TicketInvalid saying why not.

        audience: this node's static key. holder: the static key that the peer proved in its
        handshake. now_s: the wall clock, seconds since the epoch. tolerance_s: by how much clocks
        may differ. What remains for the caller: that the account is registered, and that neither
        it nor the device is revoked, on every request.
        """
        _expect(audience in self.audiences, "this node among its audiences")
        _expect(holder == self.holder, "its holder to show it, not another peer")
        try:
            self.certificate.verify(now_s, tolerance_s)
        except CertificateInvalid as error:
            raise TicketInvalid(f"ticket: {error}") from None
        signed = CONTEXT + self._body()
        holds = signature_holds(self.certificate.signing_key, self.signature, signed)
        _expect(holds, "a signature by its device")
        self.check_time(now_s, tolerance_s)

    def check_time(self, now_s: int, tolerance_s: int = CLOCK_TOLERANCE_S) -> None:
        """Raise TicketInvalid once the ticket or its certificate has expired; for each request."""
        late_s = now_s - min(self.not_after, self.certificate.not_after)
        if late_s > tolerance_s:
            raise TicketInvalid(f"ticket: expired {late_s} s ago; the job's manager can renew it")

    def permits(self, verb: Verb, container: bytes, path: str) -> bool:
        """Say whether it covers all of `verb` on a path of a container.

        path: a valid path, or for LIST the prefix to be listed. A ticket for `a/b` covers `a/b`
        and `a/b/c`, and not `a/bc`.
        """
        inside = not self.prefix or path == self.prefix or path.startswith(self.prefix + "/")
        allowed = bool(verb) and self.verbs & verb == verb
        return allowed and container == self.container and inside

    def _body(self) -> bytes:
        prefix = _prefix_bytes(self.prefix)
        fixed = _FIXED.pack(
            VERSION,
            self.serial,
            self.certificate.encode(),
            self.holder,
            self.container,
            self.job,
            self.allocation,
            self.verbs,
            self.not_after,
            len(self.audiences),
            len(prefix),
        )
        return b"".join((fixed, *self.audiences, prefix))


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise TicketInvalid(f"ticket: expected {what}")


def _prefix_bytes(prefix: str) -> bytes:
    try:
        return prefix.encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise TicketInvalid("ticket: expected a prefix of Unicode characters") from None
