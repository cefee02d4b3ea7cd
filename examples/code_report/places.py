"""Where the main job's nodes run jobs and keep objects: with their own means, or on an engine."""

import secrets
from pathlib import Path
from typing import Self


class Places:
    """The nodes' back ends. ``docker_host``, ``image``: an engine; ``uri_file``: a replica set.

    What the data nodes have kept in MongoDB is dropped on leaving.
    """

    def __init__(
        self, docker_host: str = "", image: str = "", uri_file: Path | None = None
    ) -> None:
        self._docker = ["--docker-host", docker_host, "--image", image] if docker_host else []
        # Nodes have current folders of their own.
        self._uri_file = None if uri_file is None else uri_file.absolute()
        self._databases: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._uri_file is None or not self._databases:
            return
        from pymongo import MongoClient

        with MongoClient[dict[str, object]](self._uri_file.read_text().strip()) as client:
            for name in self._databases:
                client.drop_database(name)

    def __str__(self) -> str:
        compute = "containers" if self._docker else "processes"
        data = "MongoDB" if self._uri_file else "files"
        return f"jobs run in {compute}, objects are kept in {data}"

    def compute(self) -> list[str]:
        """Return the options of a compute node's back end."""
        return ["--backend", "docker", *self._docker] if self._docker else []

    def data(self) -> list[str]:
        """Return the options of one more data node's back end."""
        if self._uri_file is None:
            return []
        # Of its own: other runs use the same servers.
        self._databases.append(f"alpyne_run_{secrets.token_hex(6)}")
        chosen = ["--uri-file", str(self._uri_file), "--database", self._databases[-1]]
        return ["--backend", "mongodb", *chosen]
