"""Parts beyond Python that some rows need: an engine, a replica set, bubblewrap."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from alpyne_proto.errors import AlpyneError

PING_TIMEOUT_MS = 2000


class PartMissing(AlpyneError):
    """A row cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What `./dev parts` has found: by the name of the part, how it is reached."""

    found: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file of `./dev parts`; without it nothing was found."""
        try:
            return cls(json.loads(path.read_text()))
        except (OSError, ValueError):
            return cls()

    def docker(self) -> list[str]:
        """Return a compute node's options for the engine. Raises PartMissing."""
        found = self._part("docker")
        with socket.socket(socket.AF_UNIX) as tried:
            try:
                tried.connect(found["host"].removeprefix("unix://"))
            except OSError as error:
                raise _missing(f"no engine at {found['host']}: {error}") from error
        return ["--backend", "docker", "--docker-host", found["host"], "--image", found["image"]]

    def bubblewrap(self) -> list[str]:
        """Return a compute node's options for level 1. Raises PartMissing."""
        self._part("bubblewrap")
        return ["--backend", "process", "--level", "1"]

    def mongodb(self) -> Path:
        """Return the file with the URI of a replica set that answers. Raises PartMissing."""
        found = self._part("mongodb")
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        path = Path(found["uri_file"])
        try:
            with MongoClient[dict[str, object]](
                path.read_text().strip(), serverSelectionTimeoutMS=PING_TIMEOUT_MS
            ) as client:
                client.admin.command("ping")
        except (OSError, PyMongoError) as error:
            raise _missing(f"no MongoDB by {path}: {str(error)[:200]}") from error
        return path

    def _part(self, name: str) -> Mapping[str, str]:
        if name not in self.found:
            raise _missing(f"there is no {name}")
        return self.found[name]


def _missing(what: str) -> PartMissing:
    return PartMissing(f"{what}; run ./dev parts")
