"""Find back ends by name: those that come with Alpyne, and those that other distributions add.

A distribution adds one by an entry point of the group ``alpyne.compute_backends`` or
``alpyne.data_backends``; the entry point's name is what ``--backend`` takes.
"""

from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from alpyne_grid.nodes.errors import ConfigError


def find(group: str, own: Mapping[str, tuple[str, str]], name: str) -> Any:
    """Return the factory of the back end ``name``.

    ``own``: Alpyne's back ends, each as (MODULE:ATTRIBUTE, what to install where a package that it
    needs is missing). They cannot be replaced by an entry point of the same name.

    Raises ConfigError where none has that name, or where it cannot be loaded.
    """
    if name in own:
        place, remedy = own[name]
        module, _, attribute = place.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"backend: {name} needs the package {error.name}, which is not installed; {remedy}"
            ) from None
    found = {entry.name: entry for entry in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted({*own, *found}))
        raise ConfigError(f"backend: expected one of {known}, got {name!r}")
    entry = found[name]
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        of = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
        raise ConfigError(
            f"backend: {name} ({entry.value}{of}) cannot be loaded: {error}; install that "
            f"distribution again, or leave --backend out"
        ) from error


def check_options(name: str, factory: object, given: Collection[str]) -> None:
    """Raise ConfigError where ``given`` holds options that the back end does not take."""
    taken: Collection[str] = getattr(factory, "options", frozenset())
    unknown = sorted(set(given) - set(taken))
    if unknown:
        raise ConfigError(
            f"backend {name}: takes no option {', '.join(unknown)}; it takes "
            f"{', '.join(sorted(taken)) or 'none'}"
        )
