"""A node's configuration: one frozen dataclass, read once from command line, environment and file.

Precedence: command line > environment (``ALPYNE_NODE_<NAME>``) > file (``--config``, TOML, the same
names) > default.
"""

import dataclasses
import os
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from alpyne_grid.nodes.backend_options import NAMED, OPTION, take_options
from alpyne_grid.nodes.errors import ConfigError

from alpyne_proto.errors import KeyFileError
from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.ssh_keys import read_public_line

DEFAULT_QUOTA = 10 << 30  # bytes an account may keep when nothing else is said
OPEN_QUOTA = 1 << 30  # the same for accounts that registered themselves


class Registration(Enum):
    """How accounts get known to a node."""

    OPEN = "open"  # any key registers itself
    ADMINISTERED = "administered"  # with an invitation code
    OWNERS = "owners"  # only the keys given by --owner


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a daemon is told at its start.

    ``kind``: compute or data. ``state``: its folder. ``host``, ``port``: where it listens; port 0
    takes a free one. ``advertise``: the host that its address names. ``owners``: Ed25519 keys of
    its administrators. ``quota_bytes``: what an account may keep (0 = no limit). ``slots``:
    execution places of a compute node (0 = one per core). ``address_file``: where the address is
    written once it serves. ``host_label``: names the machine, so that work runs beside its data.
    ``options``: what the back end is told, each entry with its values in the order given.
    """

    kind: NodeKind
    state: Path
    owners: tuple[bytes, ...]
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    registration: Registration = Registration.ADMINISTERED
    host_label: str = ""
    quota_bytes: int = DEFAULT_QUOTA
    open_quota_bytes: int = OPEN_QUOTA
    slots: int = 0
    backend: str = ""
    labels: tuple[str, ...] = ()
    address_file: Path | None = None
    log_level: str = "info"
    compression: str = "auto"
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def validated(self) -> "NodeConfig":
        """Return this configuration, or raise ConfigError naming the entry and what to do."""
        if not self.owners:
            raise ConfigError(
                "owner: none given and no account found; run `alpyne keygen` first, or give a "
                "public key file by --owner KEY.pub"
            )
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port: expected 0 to 65535, got {self.port}")
        if not 0 <= self.slots <= 4_096:
            raise ConfigError(f"slots: expected 0 to 4096, got {self.slots}")
        if len(self.host_label.encode()) > 64:
            raise ConfigError("host-label: expected at most 64 bytes")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ConfigError(
                f"log-level: expected debug, info, warning or error, got {self.log_level!r}"
            )
        if self.compression not in ("auto", "on", "off"):
            raise ConfigError(f"compression: expected auto, on or off, got {self.compression!r}")
        if self.backend == "process":
            self.check_isolation(int(self.options.get("level", ("0",))[-1] == "1"))
        return self

    def check_isolation(self, level: int) -> None:
        """Raise ConfigError where a back end of isolation ``level`` may not serve as configured."""
        if level == 0 and self.registration is not Registration.OWNERS:
            raise ConfigError(
                f"registration: a compute node at level 0 runs jobs without isolation and serves "
                f"only the keys given by --owner; got {self.registration.value!r}, leave "
                "--registration out, or isolate jobs by --level 1 or --backend docker"
            )


def read_config(
    kind: NodeKind, options: Mapping[str, Any], environment: Mapping[str, str]
) -> NodeConfig:
    """Return the validated configuration from ``options`` (None = not given) and its other sources.

    Raises ConfigError.
    """
    given: dict[str, Any] = {}
    file = options.get("config") or environment.get("ALPYNE_NODE_CONFIG")
    if file:
        given.update(_from_file(Path(file)))
    backend_options = take_options(kind, given, environment, options)
    known = {entry.name for entry in dataclasses.fields(NodeConfig)}
    known -= {"kind", "owners", "options"}
    for name in (*known, "owner"):
        value = environment.get(f"ALPYNE_NODE_{name.upper()}")
        if value is not None:
            given[name] = value.split(",") if name in ("owner", "labels") else value
        if options.get(name) is not None:
            given[name] = options[name]
    unknown = sorted(set(given) - known - {"owner"})
    if unknown:
        raise ConfigError(
            f"{file}: unknown entries {', '.join(unknown)}; known are "
            f"{', '.join(sorted({*known, 'owner', OPTION, *NAMED[kind]}))}"
        )
    return _build(kind, {**given, "options": backend_options}, environment).validated()


def _from_file(path: Path) -> dict[str, Any]:
    try:
        entries = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return {name.replace("-", "_"): value for name, value in entries.items()}


def _build(kind: NodeKind, given: dict[str, Any], environment: Mapping[str, str]) -> NodeConfig:
    is_compute = kind is NodeKind.COMPUTE
    owners = given.pop("owner", None) or _default_owner(environment)
    values: dict[str, Any] = {
        "state": _default_state(kind, environment),
        "backend": "process" if is_compute else "local",
        "registration": Registration.OWNERS if is_compute else Registration.ADMINISTERED,
        "host_label": socket.gethostname()[:64],
        **given,
    }
    for name in ("port", "slots", "quota_bytes", "open_quota_bytes"):
        if name in values:
            values[name] = _whole(name, values[name])
    for name in ("state", "address_file"):
        if values.get(name) is not None:
            # Absolute, because workers have working folders of their own.
            values[name] = Path(values[name]).expanduser().absolute()
    values["labels"] = tuple(values.get("labels", ()))
    try:
        values["registration"] = Registration(values["registration"])
    except ValueError:
        raise ConfigError(
            f"registration: expected open or administered, got {values['registration']!r}"
        ) from None
    return NodeConfig(kind=kind, owners=tuple(_owner_key(Path(o)) for o in owners), **values)


def _whole(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}: expected a whole number, got {value!r}") from None
    if number < 0:
        raise ConfigError(f"{name}: expected 0 or more, got {number}")
    return number


def home_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of the user's own keys and pool: ALPYNE_HOME, else ~/.config/alpyne."""
    chosen = environment.get("ALPYNE_HOME")
    return Path(chosen) if chosen else Path("~/.config/alpyne").expanduser()


def _default_owner(environment: Mapping[str, str]) -> list[str]:
    own = home_folder(environment) / "account.pub"
    return [str(own)] if own.exists() else []


def _default_state(kind: NodeKind, environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "alpyne" / kind.name.lower()


def _owner_key(path: Path) -> bytes:
    try:
        line = path.expanduser().read_text(errors="replace")
    except OSError as error:
        raise ConfigError(
            f"owner: {path} cannot be read ({error.strerror}); give the .pub file of an Ed25519 "
            "key, for instance one made by `alpyne keygen`"
        ) from None
    try:
        return read_public_line(line, str(path))[0]
    except KeyFileError as error:
        raise ConfigError(f"owner: {error}") from None
