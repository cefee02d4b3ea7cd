"""What a node's administrator tells its back end: from command line, environment and file.

Options of Alpyne's own back ends have names of their own (``--image``, ``--uri``); every back end
can be told more by ``--option NAME=VALUE``, in the file by a table ``[option]``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from alpyne_grid.nodes.errors import ConfigError

from alpyne_proto.messages.hello import NodeKind

OPTION = "option"
NAMED = {
    NodeKind.COMPUTE: ("level", "image", "network", "docker_host"),
    NodeKind.DATA: ("uri", "uri_file", "database"),
}
_MANY = ("image", "network")  # may be given more than once; by commas in the environment
_VALUES_MAX = 64


def take_options(
    kind: NodeKind,
    file: dict[str, Any],
    environment: Mapping[str, str],
    given: Mapping[str, Any],
) -> dict[str, tuple[str, ...]]:
    """Return the back end's options by name, and take their entries out of ``file``.

    Precedence: ``given`` (the command line) > ``environment`` > ``file``. Raises ConfigError.
    """
    found: dict[str, tuple[str, ...]] = {}
    table = file.pop(OPTION, {})
    if not isinstance(table, dict):
        raise ConfigError(f"option: expected a table [option] with NAME = VALUE, got {table!r:.80}")
    for name, value in table.items():
        found[name] = _texts(name, value)
    for name in NAMED[kind]:
        if name in file:
            found[_shown(name)] = _texts(name, file.pop(name))
    found.update(_from_environment(kind, environment))
    for name in NAMED[kind]:
        if given.get(name) is not None:
            found[_shown(name)] = _texts(name, given[name])
    found.update(_pairs(given.get(OPTION) or ()))
    return found


def _from_environment(
    kind: NodeKind, environment: Mapping[str, str]
) -> Iterable[tuple[str, tuple[str, ...]]]:
    for name in NAMED[kind]:
        value = environment.get(f"ALPYNE_NODE_{name.upper()}")
        if value is not None:
            yield _shown(name), tuple(value.split(",")) if name in _MANY else (value,)


def _pairs(given: Iterable[str]) -> dict[str, tuple[str, ...]]:
    pairs: dict[str, tuple[str, ...]] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"option: expected NAME=VALUE, got {pair!r:.80}")
        pairs[name] = (*pairs.get(name, ()), value)
    return pairs


def _texts(name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(one, dict | list | float | bool) for one in values):
        raise ConfigError(f"{_shown(name)}: expected a text or a list of texts, got {value!r:.80}")
    if len(values) > _VALUES_MAX:
        raise ConfigError(f"{_shown(name)}: at most {_VALUES_MAX} values, got {len(values)}")
    return tuple(map(str, values))


def _shown(name: str) -> str:
    return name.replace("_", "-")
