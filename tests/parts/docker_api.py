"""The few requests to a container engine that `./dev parts` makes, with nothing installed.

Source: Docker Engine API, https://docs.docker.com/reference/api/engine/. No version is asked for:
what is used here is the same in all of them, and newer engines refuse the older numbers.
"""

import http.client
import json
import socket
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

from parts.places import PartFailed

TIMEOUT_S = 120.0


class DockerApi:
    """Requests to the engine that serves the unix socket ``path``, one connection each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def answers(self) -> bool:
        """Whether an engine serves the socket, and lets this user in."""
        try:
            return self._ask("GET", "/_ping", timeout_s=5.0)[0] == 200
        except OSError:
            return False

    def get(self, path: str, /, **query: str) -> Any:
        """Return what the engine tells, None where it has no such thing. Raises PartFailed."""
        return self._json("GET", path, query)

    def post(self, path: str, body: object = None, /, **query: str) -> Any:
        """Make or change something. Raises PartFailed."""
        sent = b"" if body is None else json.dumps(body).encode()
        return self._json("POST", path, query, sent)

    def put(self, path: str, body: bytes, /, **query: str) -> Any:
        """Hand over a tar. Raises PartFailed."""
        return self._json("PUT", path, query, body, "application/x-tar")

    def delete(self, path: str, /, **query: str) -> Any:
        """Remove something. Raises PartFailed."""
        return self._json("DELETE", path, query)

    def log(self, container: str) -> str:
        """Return what a container has written to its standard output."""
        _, body = self._ask("GET", f"/containers/{container}/logs?stdout=true")
        text = b""
        while len(body) >= 8:  # each piece has a head: stream, three zeros, its length
            length = int.from_bytes(body[4:8], "big")
            text += body[8 : 8 + length]
            body = body[8 + length :]
        return text.decode(errors="replace")

    def load(self, archive: BinaryIO, repository: str, tag: str, changes: list[str]) -> None:
        """Make an image of a tar, as `docker import` does. Raises PartFailed."""
        query = [("fromSrc", "-"), ("repo", repository), ("tag", tag)]
        query += [("changes", change) for change in changes]
        asked = f"/images/create?{urlencode(query)}"
        status, body = self._ask("POST", asked, archive, "application/x-tar")
        if status != 200 or b'"error"' in body:  # an error may follow a good beginning
            raise PartFailed(f"{self.path}: image {repository}:{tag}: {body.decode()[-500:]}")

    def _json(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: bytes = b"",
        kind: str = "application/json",
    ) -> Any:
        asked = f"{path}?{urlencode(query)}" if query else path
        try:
            status, answer = self._ask(method, asked, body, kind)
        except OSError as error:
            raise PartFailed(f"{self.path}: {method} {asked}: {error}") from error
        if status == 404 and method == "GET":
            return None
        if status >= 400:
            raise PartFailed(f"{self.path}: {method} {asked}: {status} {answer.decode()[-500:]}")
        return json.loads(answer) if answer.strip() else None

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | BinaryIO = b"",
        kind: str = "application/json",
        timeout_s: float = TIMEOUT_S,
    ) -> tuple[int, bytes]:
        connection = _OverUnixSocket(self.path, timeout_s)
        try:
            connection.request(method, path, body or None, {"Content-Type": kind})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"the engine broke off: {error!r}") from error
        finally:
            connection.close()


class _OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
