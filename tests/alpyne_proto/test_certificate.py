"""Device certificates: what holds, what does not, and that a parser judges nothing."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.certificate import CERTIFICATE_SIZE, Certificate
from alpyne_proto.errors import CertificateInvalid, LocalProtocolError
from alpyne_proto.keys import DeviceIdentity, SigningKey

ACCOUNT = SigningKey(b"\1" * 32)
DEVICE = DeviceIdentity(b"\2" * 32, SigningKey(b"\3" * 32))
NOT_AFTER = 1_900_000_000
NOW = NOT_AFTER - 1


def issue(account: SigningKey = ACCOUNT, **changes: Any) -> Certificate:
    fields: dict[str, Any] = {
        "serial": 1,
        "noise_key": DEVICE.noise_public,
        "signing_key": DEVICE.signing.public,
        "not_after": NOT_AFTER,
    }
    return Certificate.issue(account, **(fields | changes))


def test_certificate_holds_after_the_way_over_the_wire() -> None:
    encoded = issue().encode()
    assert len(encoded) == CERTIFICATE_SIZE == 177
    parsed = Certificate.parse(encoded)
    parsed.verify(NOW, noise_key=DEVICE.noise_public)
    assert parsed == issue()
    assert parsed.account_key == ACCOUNT.public


def test_certificate_never_holds_when_any_bit_is_flipped() -> None:
    encoded = issue().encode()
    for bit in range(8 * len(encoded)):
        changed = bytearray(encoded)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CertificateInvalid):
            Certificate.parse(bytes(changed)).verify(NOW)


@pytest.mark.parametrize(("late_s", "holds"), [(0, True), (300, True), (301, False)])
def test_certificate_expires_after_the_clocks_tolerance(late_s: int, holds: bool) -> None:
    certificate = issue()
    if holds:
        certificate.verify(NOT_AFTER + late_s)
        return
    with pytest.raises(CertificateInvalid, match="expired 301 s ago; renew it"):
        certificate.verify(NOT_AFTER + late_s)


def test_certificate_is_refused_from_another_devices_connection() -> None:
    with pytest.raises(CertificateInvalid, match="another device's"):
        issue().verify(NOW, noise_key=bytes(32))


def test_certificate_is_refused_when_another_account_signed_it() -> None:
    forged = replace(issue(SigningKey(b"\7" * 32)), account_key=ACCOUNT.public)
    with pytest.raises(CertificateInvalid, match="signature does not hold"):
        forged.verify(NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_key": ACCOUNT.public},
        {"noise_key": DEVICE.signing.public},
        {"signing_key": ACCOUNT.public},
        {"noise_key": bytes(31)},
        {"signing_key": b""},
        {"serial": -1},
        {"serial": 1 << 64},
        {"not_after": 1 << 64},
    ],
    ids=str,
)
def test_certificate_is_not_issued_for_what_would_not_hold(changes: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        issue(**changes)


def test_certificate_is_refused_when_the_account_key_is_used_as_a_noise_key() -> None:
    certificate = replace(issue(), noise_key=ACCOUNT.public)
    resigned = replace(certificate, signature=b"")
    with pytest.raises(CertificateInvalid, match="two purposes"):
        resigned.verify(NOW)


@given(st.binary(max_size=200))
def test_parser_raises_only_certificate_invalid_for_any_bytes(data: bytes) -> None:
    with pytest.raises(CertificateInvalid):
        Certificate.parse(data)


@given(st.binary(min_size=CERTIFICATE_SIZE - 1, max_size=CERTIFICATE_SIZE - 1))
def test_any_bytes_of_the_right_shape_parse_and_do_not_hold(data: bytes) -> None:
    certificate = Certificate.parse(b"\1" + data)
    assert certificate.encode() == b"\1" + data
    with pytest.raises(CertificateInvalid):
        certificate.verify(0)
