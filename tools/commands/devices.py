"""`alpyne device`: the machines that may act as the account."""

import base64
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from alpyne_grid.tools.option_types import as_json
from alpyne_grid.tools.screen import Column, note, print_facts, print_json, print_table

from alpyne_proto.errors import AlpyneError, ErrorCode, KeyFileError

if TYPE_CHECKING:
    from alpyne_grid.tools.device_book import Device

    from alpyne_proto.keys import SigningKey

ssh_option = click.option(
    "--ssh",
    "ssh_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The account's key, where it is not in ALPYNE_HOME.",
)


class DeviceExists(AlpyneError):
    """Another device has this name."""

    code = ErrorCode.VERSION_CONFLICT


@click.group()
def device() -> None:
    """Certify, list and revoke machines that act as you."""


@device.command()
@click.argument("name", required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the other machine's files are written.",
)
@click.option("--renew", is_flag=True, help="Only a new certificate for a device that exists.")
@ssh_option
@as_json
def add(
    name: str | None, out: Path | None, renew: bool, ssh_file: Path | None, as_json: bool
) -> None:
    """Certify another machine, or this one anew.

    With NAME, the folder given by --out gets all that the other machine needs: keys of its own, a
    certificate for a year, your pool. Move it there as ALPYNE_HOME (~/.config/alpyne). The
    account's key is not in it. Without NAME, this machine's certificate is renewed.
    """
    from alpyne_grid.tools import home

    if (name is None) != (out is None) or (renew and name is None):
        raise click.UsageError("give NAME and --out FOLDER for another machine, or none for this")
    account = _account_key(home.home(), ssh_file)
    if name is None or out is None:
        kept, files = _renew_own(account), [str(home.home() / "device.cert")]
    elif renew:
        kept, files = _renew_other(account, name, out)
    else:
        kept, files = _make_other(account, name, out)
    if as_json:
        print_json({**_as_dict(kept), "files": files})
        return
    print_facts([("device", kept.name), ("certified until", _day(kept.not_after))])
    for file in files:
        print_facts([("written", file)])
    if name is not None and not renew:
        note(
            f"Next: move the folder {out} to the other machine as ~/.config/alpyne, over a way "
            f"that nobody listens to (scp), and remove it here. If it is lost: `alpyne device "
            f"revoke {name}`."
        )


@device.command("list")
@as_json
def list_devices(as_json: bool) -> None:
    """List the devices that were certified on this machine."""
    from alpyne_grid.tools import device_book, home

    devices = device_book.load(home.home())
    if as_json:
        print_json([_as_dict(one) for one in devices])
        return
    columns = [Column("DEVICE"), Column("KEY"), Column("CERTIFIED UNTIL"), Column("STATE")]
    print_table(
        columns, [[d.name, d.noise_key[:12], _day(d.not_after), _state(d)] for d in devices]
    )


@device.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also if it is the machine that you are using.")
@as_json
def revoke(name: str, force: bool, as_json: bool) -> int:
    """End a device's access at every node.

    Its connections and tickets end at all nodes of the pool. NAME is its name or the start of its
    key in `alpyne device list`, or its whole key. Nodes that cannot be reached are named; run the
    command again when they are back.
    """
    from alpyne_grid.manager import admin
    from alpyne_grid.tools import device_book, home
    from alpyne_grid.tools.pool_requests import at_each_node, print_outcomes

    folder, me = home.home(), home.who()
    found = _named(folder, name)
    key = bytes.fromhex(found.noise_key)
    if key == me.device.noise_public and not force:
        raise click.UsageError(
            "this is the machine that you are using, and it could act no more; use another one, or "
            "give --force"
        )
    outcomes = at_each_node(
        me, home.pool_nodes(), lambda link: admin.revoke_device(link, me.account, key)
    )
    if not outcomes or any(outcome.error is None for outcome in outcomes):
        device_book.mark_revoked(folder, found, int(time.time()))
    return print_outcomes(f"device {found.name}", "revoked", outcomes, as_json)


def _account_key(folder: Path, ssh_file: Path | None) -> "SigningKey":
    from alpyne_grid.manager import identity
    from alpyne_grid.tools import home

    key = identity.load_account(folder, ssh_file, home.ask_passphrase)
    if key is None:
        raise KeyFileError(
            f"{folder / identity.ACCOUNT}: the account's key is not here; run this where it is, "
            "give it by --ssh FILE, or make one with `alpyne keygen`"
        )
    known = identity.load_public(folder)
    if known not in (None, key.public):
        raise KeyFileError(f"{ssh_file}: another account's key than {folder / identity.PUBLIC}")
    return key


def _renew_own(account: "SigningKey") -> "Device":
    from alpyne_grid.manager import identity
    from alpyne_grid.tools import device_book, home

    folder = home.home()
    keys = identity.device_keys(folder)
    certificate = identity.issue(account, keys.noise_public, keys.signing.public)
    identity.install_certificate(folder, certificate)
    own = [d for d in device_book.load(folder) if d.noise_key == keys.noise_public.hex()]
    return device_book.keep(folder, own[0].name if own else socket.gethostname(), certificate)


def _make_other(account: "SigningKey", name: str, out: Path) -> tuple["Device", list[str]]:
    from alpyne_grid.manager import identity, pool
    from alpyne_grid.manager.files import make_home
    from alpyne_grid.tools import device_book, home

    from alpyne_grid.durable import write_durably

    folder = home.home()
    if any(d.name == name and not d.revoked_at for d in device_book.load(folder)):
        raise DeviceExists(
            f"device {name!r} exists; choose another name, revoke it first, or give --renew for a "
            "new certificate"
        )
    if out.exists() and any(out.iterdir()):
        raise DeviceExists(f"{out}: the folder is not empty; choose a new one")
    make_home(out)
    keys = identity.device_keys(out)
    certificate = identity.issue(account, keys.noise_public, keys.signing.public)
    identity.install_certificate(out, certificate)
    for node in pool.load(folder).nodes.values():
        pool.save_node(out, node)
    public = folder / identity.PUBLIC
    if public.exists():
        write_durably(out / identity.PUBLIC, public.read_bytes(), mode=0o644)
    files = sorted(str(path) for path in out.iterdir() if not path.name.startswith("."))
    return device_book.keep(folder, name, certificate), files


def _renew_other(account: "SigningKey", name: str, out: Path) -> tuple["Device", list[str]]:
    from alpyne_grid.manager import identity
    from alpyne_grid.manager.files import make_home
    from alpyne_grid.tools import device_book, home

    from alpyne_grid.durable import write_durably

    folder = home.home()
    known = device_book.find(device_book.load(folder), name)
    if known.revoked_at:
        raise DeviceExists(f"device {known.name!r} is revoked; add it anew under another name")
    keys = (bytes.fromhex(known.noise_key), bytes.fromhex(known.signing_key))
    certificate = identity.issue(account, *keys)
    make_home(out)
    target = out / identity.CERTIFICATE
    write_durably(target, base64.b64encode(certificate.encode()) + b"\n")
    return device_book.keep(folder, known.name, certificate), [str(target)]


def _named(folder: Path, name: str) -> "Device":
    """Return the device in the book, or one that is known by its whole key alone."""
    from alpyne_grid.tools import device_book

    try:
        return device_book.find(device_book.load(folder), name)
    except device_book.DeviceNotFound:
        try:
            whole = len(bytes.fromhex(name)) == 32
        except ValueError:
            whole = False
        if not whole:
            raise
        return device_book.Device(name[:12], name.lower(), "", 0)


def _as_dict(one: "Device") -> dict[str, object]:
    return {
        "name": one.name,
        "key": one.noise_key,
        "certified_until": one.not_after,
        "state": _state(one),
    }


def _state(one: "Device") -> str:
    if one.revoked_at:
        return "revoked"
    return "expired" if one.not_after < time.time() else "valid"


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
