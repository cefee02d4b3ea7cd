"""Identity: account, device and certificate, made on first use and found again."""

import base64
import stat
import threading
import time
from pathlib import Path

import pytest
from alpyne_grid.manager import identity
from alpyne_grid.manager.identity import ManagerIdentity, load_identity
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from alpyne_proto.certificate import Certificate
from alpyne_proto.errors import KeyFileError
from alpyne_proto.keys import SigningKey
from alpyne_proto.ssh_keys import write_private_key, write_public_line

YEAR_S = 365 * 86_400


def ssh_key(
    folder: Path, passphrase: bytes = b"", *, public: bool = True
) -> tuple[Path, SigningKey]:
    key = SigningKey(b"k" * 32)
    folder.mkdir(exist_ok=True)
    path = folder / "id_ed25519"
    path.write_bytes(write_private_key(key, passphrase))
    if public:
        path.with_suffix(".pub").write_text(write_public_line(key.public, "me@host"))
    return path, key


def expire(home: Path, made: ManagerIdentity, left_s: float) -> None:
    """Replace the certificate by one that ends in ``left_s``."""
    account = identity.load_account(home)
    assert account is not None
    certificate = Certificate.issue(
        account,
        serial=1,
        noise_key=made.device.noise_public,
        signing_key=made.device.signing.public,
        not_after=int(time.time() + left_s),
    )
    identity.install_certificate(home, certificate)


def test_identity_is_made_on_first_use_and_the_same_later(tmp_path: Path) -> None:
    made = load_identity(tmp_path / "home")
    made.certificate.verify(int(time.time()), noise_key=made.device.noise_public)
    assert made.certificate.account_key == made.account
    again = load_identity(tmp_path / "home")
    assert (again.account, again.device.noise_public) == (made.account, made.device.noise_public)


def test_private_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    load_identity(home)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    assert modes["account"] == modes["device"] == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_identity_is_one_when_many_processes_make_it_at_once(tmp_path: Path) -> None:
    made: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: made.append(load_identity(tmp_path).device.noise_public))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len(set(made)) == 1


@pytest.mark.parametrize("public", [True, False])
def test_identity_uses_an_existing_ssh_key(tmp_path: Path, public: bool) -> None:
    path, key = ssh_key(tmp_path / "ssh", public=public)
    home = tmp_path / "home"
    assert load_identity(home, path).account == key.public
    assert not (home / "account").exists()
    path.unlink()
    assert load_identity(home).account == key.public  # the certificate is enough from now on


def test_identity_asks_for_the_passphrase_of_a_protected_key(tmp_path: Path) -> None:
    path, key = ssh_key(tmp_path / "ssh", b"secret")
    with pytest.raises(KeyFileError, match="give its passphrase"):
        load_identity(tmp_path / "home", path)
    assert load_identity(tmp_path / "home", path, lambda: b"secret").account == key.public


def test_identity_refuses_a_key_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "id_rsa"
    rsa = generate_private_key(65537, 2048)
    path.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    with pytest.raises(KeyFileError, match="expected an Ed25519 key"):
        load_identity(tmp_path / "home", path)


def test_identity_says_which_key_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"gone: no such file"):
        load_identity(tmp_path / "home", tmp_path / "gone")


def test_certificate_is_renewed_before_it_ends(tmp_path: Path) -> None:
    made = load_identity(tmp_path)
    expire(tmp_path, made, 86_400)
    again = load_identity(tmp_path)
    assert again.certificate.not_after > time.time() + YEAR_S - 60
    assert again.device.noise_public == made.device.noise_public


def test_certificate_is_used_to_its_end_when_the_accounts_key_is_elsewhere(tmp_path: Path) -> None:
    made = load_identity(tmp_path)
    expire(tmp_path, made, 86_400)
    (tmp_path / "account").unlink()
    assert load_identity(tmp_path).account == made.account


def test_expired_certificate_says_where_to_renew_it(tmp_path: Path) -> None:
    made = load_identity(tmp_path)
    expire(tmp_path, made, -86_400)
    (tmp_path / "account").unlink()
    with pytest.raises(KeyFileError, match="alpyne device add"):
        load_identity(tmp_path)


def test_damaged_certificate_says_what_to_do(tmp_path: Path) -> None:
    load_identity(tmp_path)
    (tmp_path / "device.cert").write_bytes(base64.b64encode(b"short"))
    with pytest.raises(KeyFileError, match="remove it"):
        load_identity(tmp_path)


def test_certificate_of_another_device_is_not_installed(tmp_path: Path) -> None:
    other = load_identity(tmp_path / "other")
    load_identity(tmp_path / "home")
    with pytest.raises(KeyFileError, match="another device"):
        identity.install_certificate(tmp_path / "home", other.certificate)


def test_second_machine_acts_as_the_account_with_a_certificate_alone(tmp_path: Path) -> None:
    first = load_identity(tmp_path / "first")
    account = identity.load_account(tmp_path / "first")
    assert account is not None
    device = identity.device_keys(tmp_path / "second")
    certificate = identity.issue(account, device.noise_public, device.signing.public)
    identity.install_certificate(tmp_path / "second", certificate)
    second = load_identity(tmp_path / "second")
    assert second.account == first.account
    assert second.device.noise_public != first.device.noise_public
    assert not (tmp_path / "second" / "account").exists()


def test_home_is_the_folder_that_the_environment_names() -> None:
    assert identity.home_folder({"ALPYNE_HOME": "/x/y"}) == Path("/x/y")
    assert identity.home_folder({}).parts[-2:] == (".config", "alpyne")
