"""`CONTAINER:PATH` on the command line."""

from dataclasses import dataclass
from typing import Any

import click

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A place in a container; ``path`` is "" for the container itself."""

    container: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "RemotePath":
        """Read `CONTAINER` or `CONTAINER:PATH`; raises ValueError for an empty container."""
        container, _, path = text.partition(":")
        if not container:
            raise ValueError(f"expected CONTAINER or CONTAINER:PATH, got {text!r}")
        return cls(container, path)

    @property
    def is_folder(self) -> bool:
        """Whether it names all objects below it: the container, or a path that ends in `/`."""
        return not self.path or self.path.endswith("/")

    @property
    def is_pattern(self) -> bool:
        """Whether the path is a pattern with `*`, `?` or `[`."""
        return not _GLOB.isdisjoint(self.path)

    def __str__(self) -> str:
        return f"{self.container}:{self.path}"


class RemotePathType(click.ParamType):
    """An argument `CONTAINER[:PATH]`."""

    name = "container:path"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> RemotePath:
        """Return the RemotePath, or fail with click's usage error."""
        if isinstance(value, RemotePath):
            return value
        try:
            return RemotePath.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
