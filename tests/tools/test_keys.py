"""`alpyne keygen` and `alpyne device`: what they write, and what they refuse."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from alpyne_grid.manager.identity import load_identity
from alpyne_grid.tools.cli import main
from alpyne_grid.tools.exit_codes import ExitCode

from alpyne_proto.keys import SigningKey
from alpyne_proto.ssh_keys import read_private_key, write_private_key, write_public_line

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test a home folder of its own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ALPYNE_HOME", str(folder))
    yield folder


def out_json(capsys: Captured) -> object:
    return json.loads(capsys.readouterr().out)


def ssh_key(folder: Path, passphrase: bytes = b"") -> tuple[Path, bytes]:
    key = SigningKey.create(lambda size: bytes(range(size)))
    path = folder / "id_ed25519"
    path.write_bytes(write_private_key(key, passphrase))
    path.with_name("id_ed25519.pub").write_text(write_public_line(key.public, "me"))
    return path, key.public


def test_keygen_makes_an_account_and_a_device(home: Path, capsys: Captured) -> None:
    assert main(["keygen"]) == 0
    captured = capsys.readouterr()
    assert "SHA256:" in captured.out
    assert "alpyne node compute" in captured.err
    assert oct((home / "account").stat().st_mode)[-3:] == "600"
    assert oct((home / "device").stat().st_mode)[-3:] == "600"
    before = (home / "device.cert").read_bytes()
    load_identity(home)
    assert (home / "device.cert").read_bytes() == before


def test_keygen_refuses_and_keeps_keys_that_exist(home: Path, capsys: Captured) -> None:
    main(["keygen"])
    before = (home / "account").read_bytes()
    assert main(["keygen"]) == ExitCode.CONFLICT
    assert "ALPYNE_HOME" in capsys.readouterr().err
    assert (home / "account").read_bytes() == before


def test_keygen_uses_an_ssh_key_where_it_lies(home: Path, tmp_path: Path, capsys: Captured) -> None:
    path, public = ssh_key(tmp_path)
    assert main(["keygen", "--ssh", str(path), "--json"]) == 0
    assert not (home / "account").exists()
    assert load_identity(home).account == public


def test_keygen_protects_the_account_by_a_passphrase(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.prompt", lambda *_, **__: "sesame")
    assert main(["keygen", "--passphrase"]) == 0
    key = read_private_key((home / "account").read_bytes(), lambda: b"sesame", "account")
    assert load_identity(home).account == key.public


def test_device_add_writes_a_home_without_the_accounts_key(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    main(["keygen"])
    out = tmp_path / "laptop-home"
    assert main(["device", "add", "laptop", "--out", str(out)]) == 0
    assert sorted(f.name for f in out.iterdir() if f.name != ".lock") == [
        "account.pub",
        "device",
        "device.cert",
    ]
    mine, theirs = load_identity(home), load_identity(out)
    assert mine.account == theirs.account
    assert mine.device.noise_public != theirs.device.noise_public
    assert oct(out.stat().st_mode)[-3:] == "700"
    assert "alpyne device revoke laptop" in capsys.readouterr().err


def test_device_list_names_all_devices(tmp_path: Path, capsys: Captured) -> None:
    main(["keygen"])
    main(["device", "add", "laptop", "--out", str(tmp_path / "x")])
    capsys.readouterr()
    assert main(["device", "list", "--json"]) == 0
    devices = out_json(capsys)
    assert isinstance(devices, list)
    assert [(one["name"], one["state"]) for one in devices][1:] == [("laptop", "valid")]


def test_device_add_refuses_a_name_that_is_taken(tmp_path: Path, capsys: Captured) -> None:
    main(["keygen"])
    main(["device", "add", "laptop", "--out", str(tmp_path / "x")])
    assert main(["device", "add", "laptop", "--out", str(tmp_path / "y")]) == ExitCode.CONFLICT
    assert "--renew" in capsys.readouterr().err


def test_device_add_renews_another_machine_by_its_certificate_alone(tmp_path: Path) -> None:
    main(["keygen"])
    out, renewed = tmp_path / "x", tmp_path / "y"
    main(["device", "add", "laptop", "--out", str(out)])
    old = load_identity(out)
    assert main(["device", "add", "laptop", "--renew", "--out", str(renewed)]) == 0
    assert [f.name for f in renewed.iterdir()] == ["device.cert"]
    (out / "device.cert").write_bytes((renewed / "device.cert").read_bytes())
    new = load_identity(out)
    assert new.device.noise_public == old.device.noise_public
    assert new.certificate.serial != old.certificate.serial


def test_device_add_renews_this_machine(home: Path, capsys: Captured) -> None:
    main(["keygen"])
    before = load_identity(home)
    assert main(["device", "add"]) == 0
    after = load_identity(home)
    assert after.device.noise_public == before.device.noise_public
    assert after.certificate.serial != before.certificate.serial


def test_device_add_says_where_the_accounts_key_must_be(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    main(["keygen"])
    out = tmp_path / "x"
    main(["device", "add", "laptop", "--out", str(out)])
    monkeypatch.setenv("ALPYNE_HOME", str(out))
    assert main(["device", "add"]) == ExitCode.USAGE
    assert "the account's key is not here" in capsys.readouterr().err


def test_device_add_refuses_the_key_of_another_account(tmp_path: Path, capsys: Captured) -> None:
    main(["keygen"])
    path, _ = ssh_key(tmp_path)
    assert main(["device", "add", "--ssh", str(path)]) == ExitCode.USAGE
    assert "another account's key" in capsys.readouterr().err


def test_device_revoke_refuses_the_machine_in_use(capsys: Captured) -> None:
    main(["keygen"])
    capsys.readouterr()
    main(["device", "list", "--json"])
    devices = out_json(capsys)
    assert isinstance(devices, list)
    assert main(["device", "revoke", devices[0]["name"]]) == ExitCode.USAGE
    assert "--force" in capsys.readouterr().err
