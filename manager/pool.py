"""The pool: the nodes that this user's managers know, in one file, pool.json.

    {"version": 1,
     "nodes": [{"address": "alpyne://...", "kind": "compute", "trusted": true, "label": "host",
                "name": ""}, ...],
     "seen": {"<node key>": {"store": "<hex>", "generation": 3}, ...}}

Trust is the user's word about a node's key: results of a trusted node are unpickled here. ``seen``
holds the highest generation of each node's store: an older one is a restored backup.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alpyne_grid.manager.errors import PoolError
from alpyne_grid.manager.files import locked

from alpyne_grid.durable import write_durably
from alpyne_proto.address import Address, key_to_text
from alpyne_proto.errors import AddressError
from alpyne_proto.messages.hello import NodeKind

FILE = "pool.json"
VERSION = 1
NODES_MAX = 4_096
SHOWN_KEY_MIN = 4  # characters of a key that may name it
_FILE_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class PoolNode:
    """A node that the user knows.

    ``kind``: None until it was reached once. ``trusted``: its results may be unpickled here.
    ``label``: its host label, as it last said. ``name``: the user's name for it, or "".
    """

    address: Address
    kind: NodeKind | None = None
    trusted: bool = True
    label: str = ""
    name: str = ""

    @property
    def key(self) -> bytes:
        """The node's static key, 32 bytes."""
        return self.address.key

    @property
    def shown(self) -> str:
        """What people call the node: its name, else its first route and the start of its key."""
        host, port = self.address.routes[0]
        return self.name or f"{host}:{port}#{key_to_text(self.key)[:6]}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A node's store as it was last seen."""

    store_id: bytes
    generation: int


@dataclass(slots=True)
class Pool:
    """The nodes by key, in the file's order, and what was seen of their stores."""

    nodes: dict[bytes, PoolNode] = field(default_factory=dict)
    seen: dict[bytes, Seen] = field(default_factory=dict)

    def add(self, node: PoolNode) -> None:
        """Add a node, or replace what is known of its key."""
        if node.key not in self.nodes and len(self.nodes) >= NODES_MAX:
            raise PoolError(f"pool: {NODES_MAX} nodes at most; remove some first")
        self.nodes[node.key] = node

    def find(self, text: str) -> PoolNode:
        """Return the node that ``text`` names: an address, a name, or the start of a key.

        Raises PoolError where there is none, or more than one.
        """
        found = [node for node in self.nodes.values() if _is_named(node, text)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(node.shown for node in self.nodes.values()) or "none"
        what = "no node" if not found else f"{len(found)} nodes"
        raise PoolError(f"pool: {what} named {text!r}; known are: {known}")


def load(home: Path) -> Pool:
    """Return the pool in ``home``; an empty one where there is no file. Raises PoolError."""
    path = home / FILE
    try:
        if path.stat().st_size > _FILE_MAX:
            raise PoolError(f"{path}: more than {_FILE_MAX} bytes; it is no pool file")
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return Pool()
    except (OSError, ValueError) as error:
        raise PoolError(f"{path}: cannot be read ({error}); repair it or pair anew") from None
    try:
        return _from_json(content)
    except (AddressError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PoolError(f"{path}: not a pool file ({error}); repair it or pair anew") from None


def save_node(home: Path, node: PoolNode) -> None:
    """Add ``node`` to the pool file, or replace what it says of its key."""
    with locked(home):
        pool = load(home)
        pool.add(node)
        _write(home, pool)


def remove_node(home: Path, key: bytes) -> None:
    """Take a node out of the pool file; what was seen of its store stays known."""
    with locked(home):
        pool = load(home)
        pool.nodes.pop(key, None)
        _write(home, pool)


def note(home: Path, key: bytes, seen: Seen, kind: NodeKind, label: str) -> None:
    """Remember the highest generation of a node's store, and its kind and label if it is paired."""
    with locked(home):
        pool = load(home)
        before = pool.seen.get(key)
        if (
            before is None
            or before.store_id != seen.store_id
            or (before.generation < seen.generation)
        ):
            pool.seen[key] = seen
        if key in pool.nodes:
            pool.nodes[key] = replace(pool.nodes[key], kind=kind, label=label)
        _write(home, pool)


def from_addresses(addresses: Iterable[str | Address], known: Pool) -> list[PoolNode]:
    """Return nodes for addresses that the program gives; what the pool says of a key holds."""
    found: dict[bytes, PoolNode] = {}
    for given in addresses:
        address = Address.parse(given) if isinstance(given, str) else given
        paired = known.nodes.get(address.key)
        found[address.key] = (
            PoolNode(address) if paired is None else replace(paired, address=address)
        )
    return list(found.values())


def distrust(nodes: Iterable[PoolNode], untrusted: Collection[str]) -> list[PoolNode]:
    """Return ``nodes`` with trust taken from those named in ``untrusted``; PoolError for others."""
    pool = Pool({node.key: node for node in nodes})
    for text in untrusted:
        node = pool.find(text)
        pool.nodes[node.key] = replace(node, trusted=False)
    return list(pool.nodes.values())


def _is_named(node: PoolNode, text: str) -> bool:
    routes = [f"{host}:{port}" for host, port in node.address.routes]
    if text and text in (node.name, str(node.address), node.shown, *routes):
        return True
    return len(text) >= SHOWN_KEY_MIN and key_to_text(node.key).startswith(text)


def _from_json(content: Any) -> Pool:
    if content.get("version") != VERSION:
        raise ValueError(f"version {content.get('version')!r}, expected {VERSION}")
    pool = Pool()
    for entry in content["nodes"]:
        kind = entry.get("kind")
        pool.add(
            PoolNode(
                Address.parse(entry["address"]),
                NodeKind[kind.upper()] if kind else None,
                entry.get("trusted") is True,
                str(entry.get("label", "")),
                str(entry.get("name", "")),
            )
        )
    for key, seen in content.get("seen", {}).items():
        store = Seen(bytes.fromhex(seen["store"]), int(seen["generation"]))
        pool.seen[bytes.fromhex(key)] = store
    return pool


def _write(home: Path, pool: Pool) -> None:
    content = {
        "version": VERSION,
        "nodes": [
            {
                "address": str(node.address),
                "kind": node.kind.name.lower() if node.kind is not None else "",
                "trusted": node.trusted,
                "label": node.label,
                "name": node.name,
            }
            for node in pool.nodes.values()
        ],
        "seen": {
            key.hex(): {"store": seen.store_id.hex(), "generation": seen.generation}
            for key, seen in pool.seen.items()
        },
    }
    write_durably(home / FILE, (json.dumps(content, indent=1) + "\n").encode())
