"""Who the manager is: an account's key, and this machine's device with its certificate.

In the home folder (ALPYNE_HOME, default ~/.config/alpyne):

    account        the account's Ed25519 key, OpenSSH format (as ~/.ssh/id_ed25519), mode 0600
    account.pub    its public line; nodes take it by --owner
    device         this machine's two private keys, mode 0600
    device.cert    the account's certificate for the device, base64

All are made on first use. The account's private key is needed only to certify devices: a machine
that has a device and its certificate works without it.
"""

import base64
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from alpyne_grid.manager.errors import NotRegistered
from alpyne_grid.manager.files import locked, make_home

from alpyne_grid.durable import write_durably
from alpyne_proto.certificate import CERTIFICATE_LIFE_S, Certificate
from alpyne_proto.errors import CertificateInvalid, KeyFileError
from alpyne_proto.keys import DeviceIdentity, SigningKey
from alpyne_proto.ssh_keys import (
    read_private_key,
    read_public_line,
    write_private_key,
    write_public_line,
)

ACCOUNT, PUBLIC, DEVICE, CERTIFICATE = "account", "account.pub", "device", "device.cert"
RENEW_BEFORE_S = 30 * 86_400  # a certificate that ends within a month is renewed, if possible

Passphrase = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class ManagerIdentity:
    """An account's device: what it proves in handshakes and signs tickets with."""

    account: bytes  # Ed25519 public key, 32 bytes
    device: DeviceIdentity
    certificate: Certificate


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the user's keys and pool: ALPYNE_HOME, else ~/.config/alpyne."""
    chosen = environment.get("ALPYNE_HOME")
    return Path(chosen).expanduser() if chosen else Path("~/.config/alpyne").expanduser()


def load_identity(
    home: Path, account_file: Path | None = None, passphrase: Passphrase | None = None
) -> ManagerIdentity:
    """Return the identity in ``home``, made where it is missing.

    ``account_file``: an existing Ed25519 key (``~/.ssh/id_ed25519`` works) that certifies this
    device, instead of ``home``'s own. ``passphrase``: asked for a protected key file. Raises
    KeyFileError for files that cannot be used.
    """
    with locked(home):
        device = _load_device(home)
        certificate = _load_certificate(home, device, account_file)
        now_s = int(time.time())
        if certificate is not None and certificate.not_after - now_s > RENEW_BEFORE_S:
            return ManagerIdentity(certificate.account_key, device, certificate)
        key = load_account(home, account_file, passphrase, create=certificate is None)
        if key is not None:
            certificate = issue(key, device.noise_public, device.signing.public)
            install_certificate(home, certificate)
        if certificate is None or certificate.not_after < now_s:
            raise KeyFileError(
                f"{home / CERTIFICATE}: it has expired, and the account's key is not here; renew "
                "it where the account's key is: `alpyne device add`"
            )
        return ManagerIdentity(certificate.account_key, device, certificate)


def load_account(
    home: Path,
    account_file: Path | None = None,
    passphrase: Passphrase | None = None,
    *,
    create: bool = False,
) -> SigningKey | None:
    """Return the account's private key, made where ``create`` says so; None where there is none."""
    path = account_file or home / ACCOUNT
    try:
        data = path.expanduser().read_bytes()
    except FileNotFoundError:
        if account_file is not None:
            raise KeyFileError(f"{path}: no such file; give an Ed25519 private key") from None
        return create_account(home) if create else None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read ({error.strerror})") from None
    return read_private_key(data, passphrase, str(path))


def create_account(home: Path, passphrase: bytes = b"") -> SigningKey:
    """Make a new account in ``home``; KeyFileError where there is one."""
    make_home(home)
    if (home / ACCOUNT).exists():
        raise KeyFileError(f"{home / ACCOUNT}: there is an account already; remove it by hand")
    key = SigningKey.create(secrets.token_bytes)
    write_durably(home / ACCOUNT, write_private_key(key, passphrase))
    _write_public(home, key.public)
    return key


def load_public(home: Path) -> bytes | None:
    """Return the account's public key, 32 bytes, or None where ``home`` has none."""
    try:
        line = (home / PUBLIC).read_text(errors="replace")
    except OSError:
        return None
    return read_public_line(line, str(home / PUBLIC))[0]


def issue(account: SigningKey, noise_key: bytes, signing_key: bytes) -> Certificate:
    """Certify a device's public keys for a year."""
    return Certificate.issue(
        account,
        serial=int.from_bytes(secrets.token_bytes(8), "big"),
        noise_key=noise_key,
        signing_key=signing_key,
        not_after=int(time.time()) + CERTIFICATE_LIFE_S,
    )


def install_certificate(home: Path, certificate: Certificate) -> None:
    """Keep ``certificate`` for this machine's device; KeyFileError where it is another's."""
    device = _load_device(home)
    if certificate.noise_key != device.noise_public:
        raise KeyFileError("the certificate is for another device; make one for this machine")
    write_durably(home / CERTIFICATE, base64.b64encode(certificate.encode()) + b"\n")
    if load_public(home) != certificate.account_key:
        _write_public(home, certificate.account_key)


def device_keys(home: Path) -> DeviceIdentity:
    """Return this machine's device keys, made where they are missing."""
    with locked(home):
        return _load_device(home)


def _write_public(home: Path, key: bytes) -> None:
    comment = f"alpyne@{socket.gethostname()}"[:64]
    write_durably(home / PUBLIC, f"{write_public_line(key, comment)}\n".encode(), mode=0o644)


def _load_device(home: Path) -> DeviceIdentity:
    path = home / DEVICE
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        device = DeviceIdentity.create(secrets.token_bytes)
        write_durably(path, device.to_text().encode())
        return device
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read ({error.strerror})") from None
    return DeviceIdentity.from_text(text, str(path))


def _load_certificate(
    home: Path, device: DeviceIdentity, account_file: Path | None
) -> Certificate | None:
    """Return the device's certificate, or None where it is missing or of no use here."""
    try:
        data = base64.b64decode((home / CERTIFICATE).read_bytes())
        certificate = Certificate.parse(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, CertificateInvalid) as error:
        raise KeyFileError(
            f"{home / CERTIFICATE}: cannot be used ({error}); remove it, a new one is made where "
            "the account's key is"
        ) from None
    if certificate.noise_key != device.noise_public:
        return None
    wanted = _wanted_account(home, account_file)
    if wanted is not None and wanted != certificate.account_key:
        return None
    return certificate


def _wanted_account(home: Path, account_file: Path | None) -> bytes | None:
    """Return the account that the caller names by its file, as far as its .pub file tells."""
    if account_file is None:
        return load_public(home)
    public = account_file.expanduser().with_name(account_file.name + ".pub")
    if not public.exists():
        return b""  # unknown without reading the private key: certify anew
    return read_public_line(public.read_text(errors="replace"), str(public))[0]


def not_registered(node: str, why: str) -> NotRegistered:
    """Return the error of a node that does not let this account in."""
    return NotRegistered(
        f"node {node} does not know this account ({why}); ask its administrator for an "
        "invitation (`alpyne invite`) and pair with it (`alpyne pair ADDRESS --invitation CODE`)"
    )
