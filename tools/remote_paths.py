"""`CONTAINER:PATH` on the command line."""

from dataclasses import dataclass

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

    def below(self, name: str) -> "RemotePath":
        """Return the place of ``name`` in this folder."""
        return RemotePath(self.container, self.path + name)

    @property
    def is_pattern(self) -> bool:
        """Whether the path is a pattern with `*`, `?` or `[`."""
        return not _GLOB.isdisjoint(self.path)

    def __str__(self) -> str:
        return f"{self.container}:{self.path}"


def remote_path(text: str) -> RemotePath:
    """Return the RemotePath of an argument; click.BadParameter where it is none."""
    try:
        return RemotePath.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
