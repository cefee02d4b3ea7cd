"""`alpyne keygen`: the user's account and this machine's device."""

import socket
import time
from pathlib import Path

import click
from alpyne_grid.tools.option_types import as_json
from alpyne_grid.tools.screen import note, print_facts, print_json

from alpyne_proto.errors import AlpyneError, ErrorCode


class KeysExist(AlpyneError):
    """There are keys already, and they are not replaced."""

    code = ErrorCode.VERSION_CONFLICT


@click.command()
@click.option(
    "--ssh",
    "ssh_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Use this OpenSSH Ed25519 key as the account's, for instance ~/.ssh/id_ed25519. It stays "
    "where it is.",
)
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase that protects the new key.")
@as_json
def keygen(ssh_file: Path | None, passphrase: bool, as_json: bool) -> None:
    """Make your account and this machine's device.

    The account is an Ed25519 key in OpenSSH's format; nodes know you by it. It certifies devices:
    this machine gets keys of its own, for connections and tickets. Both lie in ALPYNE_HOME.
    """
    from alpyne_grid.manager import identity
    from alpyne_grid.tools import device_book, home

    from alpyne_proto.ssh_keys import account_fingerprint

    if passphrase and ssh_file is not None:
        raise click.UsageError("--passphrase protects a new key; the one given by --ssh exists")
    folder = home.home()
    known = identity.load_public(folder)
    if known is not None:
        raise KeysExist(
            f"{folder}: your keys are there already (account {account_fingerprint(known)}); use "
            "them, or choose another folder with ALPYNE_HOME"
        )
    secret = b""
    if passphrase:
        secret = click.prompt(
            "Passphrase", hide_input=True, confirmation_prompt=True, err=True
        ).encode()
    if ssh_file is None:
        identity.create_account(folder, secret)
    made = identity.load_identity(folder, ssh_file, lambda: secret or home.ask_passphrase())
    name = socket.gethostname()
    device_book.keep(folder, name, made.certificate)
    public = folder / identity.PUBLIC
    until = made.certificate.not_after
    if as_json:
        facts = {"account": account_fingerprint(made.account), "public_key_file": str(public)}
        print_json({**facts, "device": name, "device_valid_until": until, "home": str(folder)})
        return
    print_facts(
        [
            ("account", account_fingerprint(made.account)),
            ("public key", f"{public} (for a node's --owner)"),
            ("device", f"{name}, certified until {time.strftime('%Y-%m-%d', time.gmtime(until))}"),
        ]
    )
    note(
        "Next: start nodes with `alpyne node compute` and `alpyne node data`, then take each into "
        "your pool with `alpyne pair ADDRESS`."
    )
