"""Replica sets of MongoDB on loopback, with authentication, whose members may be killed.

    mongo = MongoSet(folder).start()        # three members, SCRAM-SHA-256, a key file between them
    mongo.uri, mongo.uri_file               # as the administrator of the set
    dead = mongo.kill_primary()             # SIGKILL; another one is elected within about a second
    mongo.restart(dead)
    mongo.make_whole()                      # all members run, and one is primary
    mongo.remove()

What it knows stands in its folder, so that a later process goes on with the same set.
"""

import base64
import importlib.util
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from parts import processes
from parts.certificates import make_certificates
from parts.places import PartFailed, ends, found, free_ports, read_json, write_whole

START_TIMEOUT_S = 30.0
ELECTION_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
ADMINISTRATOR = "administrator"
NAME = "alpyne"


class MongoSet:
    """A replica set with its data below ``folder``.

    ``members``: how many; one is a set too. ``authentication``: without it anybody may do anything,
    as servers do that were never set up. ``tls``: clients and members use TLS; ``ca_file`` then
    checks the servers. ``options``: more arguments of mongod.
    """

    def __init__(
        self,
        folder: Path,
        members: int = 3,
        *,
        authentication: bool = True,
        tls: bool = False,
        options: tuple[str, ...] = (),
        mongod: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.authentication = authentication
        self.tls = tls
        self.ca_file = self.folder / "ca.pem"
        self._members = members
        self._options = options
        self._mongod = mongod
        self._known: dict[str, Any] = read_json(self.folder / "set.json")

    # ---- how it is reached ----

    @property
    def ports(self) -> list[int]:
        """Ports of the members on 127.0.0.1."""
        return [int(port) for port in self._known.get("ports", ())]

    @property
    def uri(self) -> str:
        """The set's URI, with the rights of its administrator."""
        return self.uri_of(ADMINISTRATOR, self._known["password"])

    @property
    def uri_file(self) -> Path:
        """A file with the URI that only its owner reads."""
        return self.folder / "uri"

    def uri_of(self, user: str = "", password: str = "", source: str = "admin") -> str:
        """Return the set's URI for a user; without one, that of somebody unknown."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        known = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        more = f"&authSource={source}" if user else ""
        if self.tls:
            more += f"&tls=true&tlsCAFile={quote(str(self.ca_file), safe='')}"
        if not self.authentication:
            known = more = ""
        return f"mongodb://{known}{hosts}/?replicaSet={NAME}{more}"

    @contextmanager
    def client(self, index: int | None = None, *, known: bool = True) -> Iterator[Any]:
        """Open a pymongo.MongoClient: of the set, or of one member; ``known``: with a password."""
        from pymongo import MongoClient

        options: dict[str, Any] = {"serverSelectionTimeoutMS": int(ELECTION_TIMEOUT_S * 1000)}
        if index is not None:
            options = {
                "host": f"mongodb://127.0.0.1:{self.ports[index]}/?directConnection=true",
                "serverSelectionTimeoutMS": 2000,
            }
            if self.tls:
                options |= {"tls": True, "tlsCAFile": str(self.ca_file)}
            if known and self.authentication:
                options |= {"username": ADMINISTRATOR, "password": self._known["password"]}
        else:
            options["host"] = self.uri if known else self.uri_of()
        opened: Any = MongoClient(**options)
        try:
            yield opened
        finally:
            opened.close()

    def add_user(self, user: str, password: str, roles: list[Mapping[str, str]]) -> str:
        """Add a user with these roles and return the URI for it."""
        with self.client() as client:
            client.admin.command("createUser", user, pwd=password, roles=roles)
        return self.uri_of(user, password)

    # ---- the whole set ----

    def start(self) -> Self:
        """Start all members that do not run; return when one is primary. Raises PartFailed."""
        if importlib.util.find_spec("pymongo") is None:
            raise PartFailed("pymongo is not installed here; type: ./dev parts")
        if not self._known.get("ready"):
            self.remove()
            with ExitStack() as failed:
                failed.callback(self.remove)
                self._make()
                failed.pop_all()
        self.make_whole()
        return self

    def stop(self) -> None:
        """End all members in order; what they hold stays."""
        running = [process for process in map(self.process, range(len(self.ports))) if process]
        for process in running:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        for process in running:
            if not process.wait(STOP_TIMEOUT_S):
                process.end(signal.SIGKILL)

    def remove(self) -> None:
        """SIGKILL all members and remove all that they held."""
        for index in range(len(self.ports)):
            self.kill(index)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._known = {}

    def make_whole(self) -> None:
        """Start and wake the members that are down, and wait for a primary. Raises PartFailed."""
        for index in range(len(self.ports)):
            if (process := self.process(index)) is None:
                self._launch(index)
            else:
                process.send(signal.SIGCONT)
        for index in range(len(self.ports)):
            self._wait_member(index)
        self.primary()

    @property
    def runs(self) -> bool:
        """Whether all members run."""
        return bool(self.ports) and all(map(self.process, range(len(self.ports))))

    def primary(self) -> int:
        """Return the index of the primary, waiting until there is one. Raises PartFailed."""
        deadline = time.monotonic() + ELECTION_TIMEOUT_S
        while time.monotonic() < deadline:
            for index in range(len(self.ports)):
                if self.process(index) is not None and self._hello(index).get("isWritablePrimary"):
                    return index
            time.sleep(POLL_S)
        raise PartFailed(f"{self.folder}: no primary was elected in {ELECTION_TIMEOUT_S:.0f} s")

    # ---- single members ----

    def process(self, index: int) -> processes.Process | None:
        """Return a member's process, if it runs."""
        return processes.recorded(self._member(index) / "mongod.process")

    def log(self, index: int) -> Path:
        """Return the log of a member."""
        return self._member(index) / "mongod.log"

    def kill(self, index: int) -> None:
        """SIGKILL a member and wait until it is gone."""
        if (process := self.process(index)) is not None:
            process.end(signal.SIGKILL)

    def kill_primary(self) -> int:
        """SIGKILL the primary; return which one it was."""
        index = self.primary()
        self.kill(index)
        return index

    def restart(self, index: int) -> None:
        """Start a member that was killed, and wait until it answers. Raises PartFailed."""
        if self.process(index) is None:
            self._launch(index)
        self._wait_member(index)

    def suspend(self, index: int) -> None:
        """SIGSTOP a member: it keeps its connections and answers nothing."""
        if (process := self.process(index)) is not None:
            process.send(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """SIGCONT a member."""
        if (process := self.process(index)) is not None:
            process.send(signal.SIGCONT)

    # ---- within ----

    def _member(self, index: int) -> Path:
        return self.folder / f"member-{index}"

    def _keep(self, **entries: Any) -> None:
        self._known |= entries
        write_whole(self.folder / "set.json", json.dumps(self._known))

    def _make(self) -> None:
        self._prepare()
        for index in range(self._members):
            self._launch(index)
        self._initiate()
        write_whole(self.uri_file, self.uri + "\n")
        self._keep(ready=True)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700)
        for index in range(self._members):
            (self._member(index) / "data").mkdir(parents=True)
        self._keep(ports=free_ports(self._members), password=secrets.token_urlsafe(16))
        write_whole(self.folder / "key", base64.b64encode(os.urandom(96)).decode() + "\n")
        if self.tls:
            make_certificates(self.folder)

    def _launch(self, index: int) -> None:
        mongod = self._mongod or Path(found().get("mongodb", {}).get("mongod", ""))
        if not mongod.is_file():
            raise PartFailed("mongod is not there; run ./dev parts")
        member = self._member(index)
        command: list[str | Path] = [
            mongod,
            *("--replSet", NAME, "--port", str(self.ports[index]), "--bind_ip", "127.0.0.1"),
            *("--dbpath", member / "data", "--logpath", self.log(index), "--logappend"),
            # Its unix socket would lie in /tmp, where others' sets may have the same port.
            *("--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "256"),
            *("--setParameter", "ttlMonitorSleepSecs=1"),
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=200"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        if self.authentication:
            command += ["--keyFile", self.folder / "key"]
        if self.tls:
            command += ["--tlsMode", "requireTLS", "--tlsCAFile", self.ca_file]
            command += ["--tlsCertificateKeyFile", self.folder / "server.pem"]
            command += ["--tlsAllowConnectionsWithoutCertificates"]
        output = member / "output.log"
        processes.start(
            [*command, *self._options], member / "mongod.process", output, dict(os.environ)
        )

    def _wait_member(self, index: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._hello(index):
            if self.process(index) is None or time.monotonic() > deadline:
                said = ends(self._member(index) / "output.log") or ends(self.log(index))
                raise PartFailed(
                    f"mongod on port {self.ports[index]} does not start; its log ends:\n{said}"
                )
            time.sleep(POLL_S)

    def _hello(self, index: int) -> dict[str, Any]:
        """Return what a member says of itself; empty while it says nothing."""
        from pymongo.errors import PyMongoError

        try:
            with self.client(index, known=False) as client:
                return dict(client.admin.command("hello"))
        except PyMongoError:
            return {}

    def _initiate(self) -> None:
        for index in range(self._members):
            self._wait_member(index)
        hosts = [
            {"_id": index, "host": f"127.0.0.1:{port}"} for index, port in enumerate(self.ports)
        ]
        settings = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 500}
        with self.client(0, known=False) as client:
            client.admin.command(
                "replSetInitiate", {"_id": NAME, "members": hosts, "settings": settings}
            )
        if not self.authentication:
            return
        # Before there is any user, whoever comes from this machine may make the first one.
        with self.client(self.primary(), known=False) as client:
            client.admin.command(
                "createUser", ADMINISTRATOR, pwd=self._known["password"], roles=["root"]
            )
