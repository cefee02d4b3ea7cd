"""`alpyne pair`: nodes into the pool."""

import getpass
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from alpyne_grid.tools.option_types import as_json, duration
from alpyne_grid.tools.quantities import size_text
from alpyne_grid.tools.screen import note, print_facts, print_json

from alpyne_proto.errors import AddressError, AlpyneError, ErrorCode

if TYPE_CHECKING:
    from alpyne_grid.manager.identity import ManagerIdentity
    from alpyne_grid.manager.pool import PoolNode

    from alpyne_proto.address import Address
    from alpyne_proto.messages.access import Registered
    from alpyne_proto.messages.hello import AcceptorHello

_POLL_S = 0.05


class NoAddressFile(AlpyneError):
    """A node has not written its address file."""

    code = ErrorCode.IDLE_TIMEOUT


@click.command()
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@click.option(
    "--address-file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the address from FILE, as a node writes it with the same option; may be repeated.",
)
@click.option("--invitation", metavar="CODE", help="The code that `alpyne invite` printed.")
@click.option(
    "--untrusted",
    is_flag=True,
    help="Take plain values only from it: its results are never unpickled here.",
)
@click.option("--name", default="", metavar="NAME", help="What you call the node; one address.")
@click.option(
    "--wait",
    "wait_s",
    type=duration,
    default="10s",
    show_default=True,
    help="How long to wait for an address file to appear.",
)
@as_json
def pair(
    addresses: tuple[str, ...],
    files: tuple[Path, ...],
    invitation: str | None,
    untrusted: bool,
    name: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Take nodes into your pool.

    That makes your account known to them. ADDRESS is what a node prints when it starts:
    alpyne://host:port#key. The key says which node it must be; a node with another one is refused.
    Pairing again changes what you say of a node.
    """
    from alpyne_grid.tools import home

    from alpyne_proto.address import Address

    if not addresses and not files:
        raise click.UsageError("give an ADDRESS (a node prints it when it starts), or a file")
    if name and len(addresses) + len(files) > 1:
        raise click.UsageError("--name is for one address")
    given = [Address.parse(text) for text in addresses]
    given += [read_address(file, wait_s) for file in files]
    me = home.who()
    found = []
    for address in given:
        node, hello, registered = _pair(me, address, invitation or "", not untrusted, name)
        found.append(_as_dict(node, registered))
        if not as_json:
            print_facts(_facts(node, hello, registered))
    if as_json:
        print_json(found)
    else:
        note("Next: `alpyne nodes` shows the pool; `alpyne run FILE` runs a program on it.")


def read_address(file: Path, wait_s: float) -> "Address":
    """Return the address in ``file``, which a starting node may still have to write.

    Raises NoAddressFile after ``wait_s`` seconds, AddressError for a file with something else.
    """
    from alpyne_proto.address import Address

    deadline = time.monotonic() + wait_s
    while True:
        try:
            text = file.read_text(encoding="utf-8")
            break
        except FileNotFoundError:
            if time.monotonic() >= deadline:
                raise NoAddressFile(
                    f"{file}: no such file after {wait_s:g} s; has the node started with "
                    f"`--address-file {file}`?"
                ) from None
            time.sleep(_POLL_S)
        except UnicodeDecodeError:
            raise AddressError(f"{file}: not the file of an address") from None
    try:
        return Address.parse(text)
    except AddressError as error:
        raise AddressError(f"{file}: {error}") from None


def _pair(
    me: "ManagerIdentity", address: "Address", invitation: str, trusted: bool, name: str
) -> tuple["PoolNode", "AcceptorHello", "Registered"]:
    import asyncio

    from alpyne_grid.manager import admin, pool
    from alpyne_grid.tools import home

    async def ask() -> tuple["AcceptorHello", "Registered"]:
        async with admin.connected(me, address) as connection:
            registered = await admin.register(
                connection,
                name=f"{getpass.getuser()}@{socket.gethostname()}",
                invitation=invitation,
            )
            return admin.hello_of(connection), registered

    hello, registered = asyncio.run(ask())
    folder = home.home()
    before = pool.load(folder).nodes.get(address.key)
    name = name or (before.name if before is not None else "")
    node = pool.PoolNode(address, hello.kind, trusted, hello.host_label, name)
    pool.save_node(folder, node)
    pool.note(folder, node.key, pool.Seen(hello.store_id, hello.generation), hello.kind, node.label)
    return node, hello, registered


def _own_name() -> str:
    """Return how this account is called in a node's lists."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _facts(
    node: "PoolNode", hello: "AcceptorHello", registered: "Registered"
) -> list[tuple[str, str]]:
    kind = hello.kind.name.lower()
    quota = size_text(registered.quota_bytes) if registered.quota_bytes else "no limit"
    trust = "yes, its results are unpickled here" if node.trusted else "no, plain values only"
    return [
        ("paired", f"{kind} node {node.shown}"),
        ("host", hello.host_label or "-"),
        ("you are", registered.role.name.lower()),
        ("quota", quota),
        *([("trusted", trust)] if kind == "compute" else []),
    ]


def _as_dict(node: "PoolNode", registered: "Registered") -> dict[str, Any]:
    return {
        "node": node.shown,
        "address": str(node.address),
        "kind": node.kind.name.lower() if node.kind is not None else None,
        "host": node.label,
        "trusted": node.trusted,
        "role": registered.role.name.lower(),
        "quota_bytes": registered.quota_bytes,
    }
