"""Real daemons on loopback, and people with keys who talk to them over the bare wire."""

import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.tools.cluster import Daemon, LocalCluster
from alpyne_grid.wire import Connection, dial

from alpyne_proto.certificate import Certificate
from alpyne_proto.keys import DeviceIdentity, Identity, NodeIdentity, SigningKey
from alpyne_proto.messages.hello import DiallerHello
from alpyne_proto.registry import Role
from alpyne_proto.ssh_keys import write_public_line
from alpyne_proto.ticket import Ticket, Verb

HOUR_S = 3600

# Test files are imported by themselves; what several of them share is made importable here.
for _name in ("grid_simulation", "rude_peer"):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(
            _name, Path(__file__).with_name(f"{_name}.py")
        )
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])


@dataclass
class Person:
    """An account with one device, and whatever connections it opened."""

    account: SigningKey = field(default_factory=lambda: SigningKey.create(os.urandom))
    device: DeviceIdentity = field(default_factory=lambda: DeviceIdentity.create(os.urandom))

    @property
    def key(self) -> bytes:
        """The account's public key."""
        return self.account.public

    def certificate(self, not_after: int | None = None) -> Certificate:
        """The account's certificate for the device."""
        return Certificate.issue(
            self.account,
            serial=1,
            noise_key=self.device.noise_public,
            signing_key=self.device.signing.public,
            not_after=int(time.time()) + HOUR_S if not_after is None else not_after,
        )

    def another_device(self) -> "Person":
        """The same account on another machine."""
        return Person(self.account)

    def write_public(self, folder: Path) -> Path:
        """Write the account's .pub file into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "account.pub"
        path.write_text(write_public_line(self.key) + "\n")
        return path

    async def dial(self, daemon: Daemon, **more: Any) -> Connection:
        """Connect as this account's device."""
        hello = DiallerHello(int(Role.MANAGER), os.urandom(16), self.certificate().encode())
        return await dial(daemon.address, identity=self.device, hello=hello, **more)

    def ticket(
        self,
        *,
        holder: bytes,
        audience: bytes,
        container: bytes,
        verbs: Verb = Verb.READ,
        not_after: int | None = None,
        prefix: str = "",
    ) -> Ticket:
        """A ticket that lets ``holder`` act at ``audience``."""
        return Ticket.issue(
            self.device,
            self.certificate(),
            serial=os.urandom(16),
            holder=holder,
            audiences=(audience,),
            container=container,
            verbs=verbs,
            job=os.urandom(16),
            allocation=1,
            not_after=int(time.time()) + HOUR_S if not_after is None else not_after,
            prefix=prefix,
        )


async def dial_bare(daemon: Daemon, identity: Identity, role: Role = Role.NODE) -> Connection:
    """Connect without a certificate, as a compute node does."""
    hello = DiallerHello(int(role), os.urandom(16), b"")
    return await dial(daemon.address, identity=identity, hello=hello)


def node_identity() -> NodeIdentity:
    """A compute node's keys, without a compute node."""
    return NodeIdentity.create(os.urandom)


@pytest.fixture
def owner() -> Person:
    """The administrator of the cluster's nodes."""
    return Person()


@pytest.fixture
def cluster(tmp_path: Path, owner: Person) -> Iterator[LocalCluster]:
    """An empty cluster of the owner's."""
    with LocalCluster(tmp_path / "cluster", owner.write_public) as made:
        yield made


@pytest.fixture(scope="session")
def person() -> Callable[[], Person]:
    """Makes people."""
    return Person


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, person: Callable[[], Person]) -> Iterator[Any]:
    """A compute and a data node for all tests that are rude to them; see rude_peer."""
    yield from sys.modules["rude_peer"].started(tmp_path_factory.mktemp("site"), person)


@pytest.fixture
def bearer() -> Callable[[Daemon, Identity], Awaitable[Connection]]:
    """Dials without a certificate."""
    return dial_bare


@pytest.fixture
def run() -> Callable[[Awaitable[Any]], Any]:
    """Runs a coroutine to its end, within 30 seconds."""

    def run_within(awaitable: Awaitable[Any]) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(awaitable, 30)

        return asyncio.run(bounded())

    return run_within
