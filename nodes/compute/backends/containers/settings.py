"""What a node's administrator says about containers."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from alpyne_grid.nodes.compute.backends.wall_defaults import WallDefaults, read_defaults
from alpyne_grid.nodes.errors import ConfigError

OPTIONS = frozenset({"image", "network", "docker-host", "job-memory", "job-processes", "job-disk"})
HOST = "unix:///var/run/docker.sock"
IMAGE_MAX, NETWORK_MAX, HOST_MAX = 256, 64, 256  # bytes
# Longer than any reference of an image that people write, without spaces or control characters.
IMAGE_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,255}")
NETWORK_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# The first gives a job all that listens on the machine's loopback, the others mean no network.
_NO_NETWORKS = frozenset({"host", "none", "default"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of the back end, read and checked."""

    images: tuple[str, ...]  # that jobs may ask for, the default first
    networks: tuple[str, ...]  # that jobs may ask for; without one they have none
    host: str  # of the engine: unix:///PATH
    defaults: WallDefaults  # of a job that asks for no limit


def default_image() -> str:
    """Return the public image that has this daemon's Python version."""
    return f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def read_settings(options: Mapping[str, tuple[str, ...]]) -> Settings:
    """Return what ``options`` say; ConfigError where they cannot be used."""
    host = _single(options, "docker-host", HOST)
    if not host.startswith("unix:///") or len(host.encode()) > HOST_MAX:
        raise ConfigError(
            f"docker-host: expected unix:///PATH of an engine on this machine, got {host!r:.80}; "
            "the workers of an engine elsewhere cannot be reached"
        )
    networks = _named(options, "network", NETWORK_PATTERN)
    for name in networks:
        if name in _NO_NETWORKS:
            raise ConfigError(
                f"network: expected the name of a Docker network that jobs may use, got {name!r}; "
                "make one by: docker network create NAME (a job that asks for none has none)"
            )
    return Settings(
        images=_named(options, "image", IMAGE_PATTERN) or (default_image(),),
        networks=networks,
        host=host,
        defaults=read_defaults(options),
    )


def _single(options: Mapping[str, tuple[str, ...]], name: str, default: str) -> str:
    values = options.get(name, ())
    if len(values) > 1:
        raise ConfigError(f"{name}: expected one value, got {len(values)}")
    return values[0] if values else default


def _named(
    options: Mapping[str, tuple[str, ...]], name: str, pattern: re.Pattern[str]
) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(options.get(name, ())))  # each once, in their order
    for value in values:
        if not pattern.fullmatch(value):
            raise ConfigError(f"{name}: expected a name as Docker has them, got {value!r:.80}")
    return values
