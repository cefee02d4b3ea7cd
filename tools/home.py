"""The user's own folder as commands use it: who the user is, and which nodes are in the pool."""

from pathlib import Path

import click
from alpyne_grid.manager import identity, pool
from alpyne_grid.manager.identity import ManagerIdentity
from alpyne_grid.manager.pool import PoolNode

from alpyne_proto.address import SCHEME, Address
from alpyne_proto.errors import AlpyneError, ErrorCode


class NodeNotFound(AlpyneError):
    """No node of the pool has the name that was typed."""

    code = ErrorCode.NOT_FOUND


def home() -> Path:
    """Return the folder of keys and pool: ALPYNE_HOME, else ~/.config/alpyne."""
    return identity.home_folder()


def who(ssh_file: Path | None = None) -> ManagerIdentity:
    """Return the user's identity, made where there is none; asks for a passphrase if need be."""
    return identity.load_identity(home(), ssh_file, ask_passphrase)


def ask_passphrase() -> bytes:
    """Ask for the passphrase of a protected account key."""
    answer: str = click.prompt("Passphrase of the account's key", hide_input=True, err=True)
    return answer.encode()


def pool_nodes() -> list[PoolNode]:
    """Return the nodes of the pool, in the order in which they were paired."""
    return list(pool.load(home()).nodes.values())


def find_node(text: str) -> PoolNode:
    """Return the node that ``text`` names: its name, address, or the start of its key.

    An address need not be in the pool. Raises NodeNotFound and AddressError.
    """
    known = pool.load(home())
    if text.startswith(SCHEME):
        address = Address.parse(text)
        return known.nodes.get(address.key, PoolNode(address))
    try:
        return known.find(text)
    except AlpyneError as error:
        raise NodeNotFound(f"{error}; `alpyne nodes` lists them") from None
