"""The container engine, asked through the package ``docker``; the launcher alone does that.

Source: Docker Engine API, https://docs.docker.com/reference/api/engine/. Nothing here pulls an
image: a container is made from what the machine has, or it is an error.
"""

import contextlib
import errno
import getpass
import grp
import os
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from docker import APIClient, errors
from urllib3.exceptions import HTTPError

TIMEOUT_S = 30.0  # of one request; making a container takes 0.1 s, on a machine under load more
REQUESTS_MAX = 24  # at once
_KNOCK_S = 5.0
_LOG_LINES = 20


class EngineLost(Exception):
    """The engine cannot be reached; the text says what to do."""


class EngineFailed(Exception):
    """The engine could not do what it was asked; the text says why and what to do."""


class Engine:
    """One engine on this machine. All methods raise EngineLost or EngineFailed."""

    def __init__(self, host: str) -> None:
        """``host``: unix:///PATH."""
        self._host = host
        self._path = Path(host.removeprefix("unix://"))
        self._client: Any = None

    def connect(self) -> None:
        """Begin to talk with it, or begin anew after it was lost."""
        _knock(self._path)
        with self._asking():
            self._client = APIClient(
                self._host, version="auto", timeout=TIMEOUT_S, max_pool_size=REQUESTS_MAX
            )

    def info(self) -> Mapping[str, Any]:
        """Return what the engine says about itself and its machine."""
        with self._asking():
            return dict(self._client.info())

    def image(self, name: str) -> Mapping[str, Any]:
        """Return the configuration of an image that is on this machine."""
        try:
            with self._asking():
                return dict(self._client.inspect_image(name).get("Config") or {})
        except errors.NotFound:
            raise missing(name) from None

    def has_network(self, name: str) -> bool:
        """Say whether a network of that name exists."""
        try:
            with self._asking():
                self._client.inspect_network(name)
        except errors.NotFound:
            return False
        return True

    def create(self, body: Mapping[str, Any], name: str) -> str:
        """Make a container and return its id."""
        try:
            with self._asking():
                made = self._client.create_container_from_config(dict(body), name)
                return str(made["Id"])
        except errors.NotFound:
            raise missing(body["Image"]) from None

    def start(self, container: str) -> None:
        """Start its first process; ``EngineFailed`` where its program is not in the image."""
        try:
            with self._asking():
                self._client.start(container)
        except errors.NotFound as error:  # of the program, or of a network
            raise EngineFailed(str(error.explanation or error)) from None

    def wait(self, container: str, within_s: float) -> None:
        """Return once the container does not run any more; EngineLost where that takes longer."""
        with self._asking(), contextlib.suppress(errors.NotFound):
            self._client.wait(container, timeout=within_s)

    def state(self, container: str) -> Mapping[str, Any]:
        """Return ``State`` of the container; empty where there is none."""
        try:
            with self._asking():
                return dict(self._client.inspect_container(container)["State"])
        except errors.NotFound:
            return {}

    def log(self, container: str) -> str:
        """Return the last lines that its first process wrote before it had its descriptors."""
        with self._asking():
            data = self._client.logs(container, stdout=True, stderr=True, tail=_LOG_LINES)
        return bytes(data).decode("utf-8", "replace").strip()

    def pause(self, container: str) -> None:
        """Freeze all processes of a container."""
        with self._found():
            self._client.pause(container)

    def unpause(self, container: str) -> None:
        """Let them run again."""
        with self._found():
            self._client.unpause(container)

    def remove(self, container: str) -> None:
        """End a container, frozen ones too, and remove it with its volumes."""
        with self._asking(), contextlib.suppress(errors.NotFound):
            try:
                self._client.remove_container(container, force=True, v=True)
            except errors.APIError as error:
                if error.status_code != 409:  # it is being removed already
                    raise

    def tagged(self, label: str) -> list[tuple[str, str]]:
        """Return id and name of all containers with a label, those that have ended too."""
        with self._asking():
            rows = self._client.containers(all=True, filters={"label": label})
        return [(str(row["Id"]), str((row["Names"] or [""])[0]).lstrip("/")) for row in rows]

    def listen(self, label: str) -> None:
        """Return, or raise EngineLost, when the engine ends."""
        with self._asking():
            for _ in self._client.events(filters={"label": label}):
                pass  # what happened is asked where it matters

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what the package and those below it raise into the errors of this module.

        NotFound passes: what was not found, only the caller knows.
        """
        try:
            yield
        except errors.NotFound:
            raise
        except errors.APIError as error:
            raise EngineFailed(str(error.explanation or error)) from None
        except (errors.DockerException, OSError, HTTPException, HTTPError, ValueError) as error:
            raise EngineLost(
                f"the container engine at {self._host} does not answer ({type(error).__name__}); "
                "see to it: systemctl status docker"
            ) from None

    @contextlib.contextmanager
    def _found(self) -> Iterator[None]:
        try:
            with self._asking():
                yield
        except errors.NotFound:
            raise EngineFailed("its container is gone") from None


def missing(image: str) -> EngineFailed:
    """Return the error for an image that this machine does not have."""
    return EngineFailed(
        f"the image {image} is not on this machine, and none is pulled unasked; get it by: "
        f"docker pull {image}"
    )


def _knock(path: Path) -> None:
    """Raise EngineLost with what to do where the engine's socket does not let us in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(_KNOCK_S)
        try:
            knocking.connect(str(path))
        except OSError as error:
            raise EngineLost(f"no container engine at {path}: {remedy(path, error)}") from None


def remedy(path: Path, error: OSError) -> str:
    """Return what to do where the socket ``path`` gave ``error``."""
    match error.errno:
        case errno.ENOENT:
            return (
                "the socket is not there; install Docker Engine and start it (systemctl start "
                "docker), or name another socket by --docker-host unix:///PATH"
            )
        case errno.EACCES | errno.EPERM:
            return f"permission denied; {_admission(path)}"
        case errno.ECONNREFUSED:
            return "nobody answers at the socket; start the engine: systemctl start docker"
    return f"{error}; expected the unix socket of a Docker Engine"


def _admission(path: Path) -> str:
    """Say how this user gets in: mostly by the group that the socket belongs to."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    try:
        number = path.stat().st_gid
    except OSError:
        return f"let user {user} write to it"
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:
        group = str(number)
    return (
        f"it belongs to the group {group}: add the node's user to it (usermod -aG {group} {user}) "
        "and start the node in a new session"
    )
