"""Guests: accounts that compute on a node of somebody else's, which isolates their jobs."""

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager import Job, Manager, NotRegistered, UnknownJob
from alpyne_grid.manager.admin import connected, invite, register
from alpyne_grid.manager.identity import create_account, load_identity
from alpyne_grid.tools.cluster import Daemon, DaemonFailed, LocalCluster

from alpyne_proto.address import Address
from alpyne_proto.errors import RequestFailed
from alpyne_proto.messages import compute
from alpyne_proto.registry import Message

pytestmark = pytest.mark.integration
Run = Callable[[Awaitable[Any]], Any]
RUNS_S = 0.8  # a job that others ask about meanwhile
LEVELS = [
    pytest.param(1, marks=pytest.mark.bubblewrap, id="level-1"),
    pytest.param(2, marks=pytest.mark.docker, id="level-2"),
]


@dataclass
class Site:
    """An isolated node that asks for invitations, one that asks for none, and their owner."""

    cluster: LocalCluster
    level: int
    administered: Daemon
    open: Daemon

    @property
    def home(self) -> Path:
        """The owner's."""
        return self.cluster.home


@pytest.fixture(scope="module", params=LEVELS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The nodes, at each level that admits guests."""
    options = ["--slots", "2", "--level", "1"]
    if request.param == 2:
        engine = request.getfixturevalue("engine")
        options = ["--slots", "2", "--backend", "docker", "--docker-host", engine.host]
        options += ["--image", engine.image]
    with LocalCluster(tmp_path_factory.mktemp("guests") / "cluster", create_account) as cluster:
        nodes = [
            cluster.add("compute", *options, "--registration", how)
            for how in ("administered", "open")
        ]
        cluster.start_all(nodes)
        yield Site(cluster, request.param, *nodes)


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """The home of an account that no node knows yet."""
    create_account(tmp_path / "guest")
    return tmp_path / "guest"


@pytest.fixture
def programs() -> Iterator[Callable[[Daemon, Path], Manager]]:
    """Connects programs of accounts to nodes."""
    with ExitStack() as opened:

        def connect(node: Daemon, home: Path) -> Manager:
            return opened.enter_context(Manager.connect([node.address], home=home))

        yield connect


def invitation_to(node: Daemon, owner: Path) -> Awaitable[str]:
    async def asked() -> str:
        async with connected(load_identity(owner), Address.parse(node.address)) as connection:
            return (await invite(connection, life_s=60)).code

    return asked()


def whoami() -> tuple[int, int]:
    return os.getuid(), os.getpid()


def lasts() -> str:
    print("begun", flush=True)
    time.sleep(RUNS_S)
    return "done"


def test_guest_computes_by_invitation_where_an_administrator_admits(
    site: Site, guest: Path, run: Run
) -> None:
    node = site.administered
    with pytest.raises(NotRegistered):
        Manager.connect([node.address], home=guest)
    code = run(invitation_to(node, site.home))

    async def enter(home: Path) -> None:
        async with connected(load_identity(home), Address.parse(node.address)) as connection:
            await register(connection, name="guest", invitation=code)

    run(enter(guest))
    with Manager.connect([node.address], home=guest) as grid:
        job = grid.submit(pow, 2, 10, require=f"isolation>={site.level}")
        assert job.result(30) == 1024
    other = guest.with_name("other")
    create_account(other)
    with pytest.raises(RequestFailed, match="invitation"):
        run(enter(other))  # a code is good for one account


def test_guest_computes_uninvited_where_the_node_is_open(
    site: Site, guest: Path, programs: Callable[[Daemon, Path], Manager]
) -> None:
    theirs, own = programs(site.open, guest), programs(site.open, site.home)
    require = f"isolation>={site.level}"
    jobs = [grid.submit(whoami, require=require) for grid in (theirs, own)]
    users = [job.result(30)[0] for job in jobs]
    assert 0 not in users


async def answers(home: Path, node: Daemon, job_id: bytes) -> list[str]:
    """Return what the node answers to each question about a job, as text without its id."""
    questions: list[Message] = [
        compute.ListJobs(job_id=job_id),
        compute.GetResult(job_id),
        compute.ReadOutput(job_id),
    ]
    said = []
    async with connected(load_identity(home), Address.parse(node.address)) as connection:
        for question in questions:
            try:
                answer = await connection.call(question)
                text = f"{answer.message} {(await answer.body.read(100_000)).hex()}"
            except RequestFailed as error:
                text = f"{error.code} {error}"
            said.append(text.replace(job_id.hex(), "?"))
    return said


async def order_an_end(home: Path, node: Daemon, job_id: bytes) -> None:
    """Give all orders that stop a job; the node answers none of them."""
    async with connected(load_identity(home), Address.parse(node.address)) as connection:
        await connection.interrupt(compute.SuspendJobs((job_id,)))
        await connection.interrupt(compute.CancelJobs((job_id,)))
        await connection.call(compute.ListJobs(job_id=job_id))  # it has read them


def refusal(grid: Manager, job_id: bytes) -> str:
    with pytest.raises(UnknownJob) as refused:
        grid.job(job_id)
    return str(refused.value).replace(job_id.hex(), "?")


@pytest.mark.parametrize("whose", ["of the owner", "of the guest"])
def test_job_of_another_account_answers_like_one_that_does_not_exist(
    site: Site, guest: Path, programs: Callable[[Daemon, Path], Manager], run: Run, whose: str
) -> None:
    homes = [site.home, guest] if whose == "of the owner" else [guest, site.home]
    holder, other = (programs(site.open, home) for home in homes)
    job: Job = holder.submit(lasts)
    assert next(iter(job.output()), "") == "begun"
    known, unknown = bytes.fromhex(job.id), secrets.token_bytes(16)

    async def asked() -> list[list[str]]:
        cases = ((homes[1], known), (homes[1], unknown), (homes[0], known))
        said = [await answers(home, site.open, job_id) for home, job_id in cases]
        await order_an_end(homes[1], site.open, known)
        return said

    foreign, nothing, own = run(asked())
    assert foreign == nothing
    assert not set(own) & set(foreign)  # whom it belongs to is told of it
    assert refusal(other, known) == refusal(other, unknown)
    assert job.id not in [one.id for one in other.jobs()]
    assert job.result(30) == "done"


@pytest.mark.parametrize("how", ["administered", "open"])
def test_node_without_isolation_admits_no_guests(tmp_path: Path, how: str) -> None:
    with (
        LocalCluster(tmp_path / "cluster", create_account) as cluster,
        pytest.raises(DaemonFailed, match="without isolation and serves only the keys"),
    ):
        cluster.start("compute", "--level", "0", "--registration", how)
