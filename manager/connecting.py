"""From addresses and a home folder to a running core."""

import secrets
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from alpyne_grid.manager import journal as journals
from alpyne_grid.manager import pool as pools
from alpyne_grid.manager.core import GridCore
from alpyne_grid.manager.errors import NodeUnreachable, NotRegistered, PoolError
from alpyne_grid.manager.grid_table import GridTable
from alpyne_grid.manager.identity import Passphrase, load_identity
from alpyne_grid.manager.links import LinkSettings

from alpyne_proto.address import Address
from alpyne_proto.compression import Compression
from alpyne_proto.errors import AlpyneError

JOURNALS = "journals"


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What ``connect`` was asked for; see AsyncManager.connect."""

    home: Path
    addresses: tuple[str | Address, ...] | None
    account: Path | None
    passphrase: Passphrase | None
    invitation: bytes
    untrusted: Collection[str]
    lost_after_s: float
    timeout_s: float
    host_label: str
    compression: Compression


async def connect_core(options: ConnectOptions) -> GridCore:
    """Return a core with at least one node connected.

    Raises PoolError, KeyFileError, JournalError, NotRegistered, NodeUnreachable.
    """
    home = options.home
    identity = load_identity(home, options.account, options.passphrase)
    nodes = _nodes(options)
    settings = LinkSettings(
        identity,
        secrets.token_bytes(16),
        invitation=options.invitation,
        host_label=options.host_label or socket.gethostname()[:64],
        compression=options.compression,
        home=home,
    )
    journals.remove_old(home / JOURNALS)
    journal = journals.Journal.create(home / JOURNALS, identity.account, secrets.token_bytes)
    table = GridTable(lost_after_s=options.lost_after_s)
    core = GridCore(settings=settings, journal=journal, nodes=nodes, table=table)
    core.start()
    try:
        await core.heard(options.timeout_s)
        if not any(link.is_up for link in core.links.values()):
            raise _nobody(core)
    except BaseException:
        await core.close()
        raise
    return core


def _nodes(options: ConnectOptions) -> list[pools.PoolNode]:
    known = pools.load(options.home)
    nodes: Iterable[pools.PoolNode] = known.nodes.values()
    if options.addresses is not None:
        nodes = pools.from_addresses(options.addresses, known)
    found = pools.distrust(nodes, options.untrusted)
    if not found:
        raise PoolError(
            f"{options.home / pools.FILE}: no nodes; pair with some (`alpyne pair ADDRESS`), or "
            "give their addresses"
        )
    return found


def _nobody(core: GridCore) -> AlpyneError:
    """Return why no node can be used."""
    errors = [link.error for link in core.links.values() if link.error is not None]
    why = "; ".join(dict.fromkeys(map(str, errors))) or "no answer in time"
    if errors and all(isinstance(error, NotRegistered) for error in errors):
        return NotRegistered(why)
    return NodeUnreachable(f"no node can be reached: {why}")
