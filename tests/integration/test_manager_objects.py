"""Objects through the manager library on real data nodes: versions, copies, failover, folders."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager import (
    Container,
    ContainerError,
    JobObject,
    Manager,
    MaybeStale,
    NotEnoughCopies,
    ObjectNotFound,
    ObjectUnavailable,
    ProgramError,
    VersionConflict,
)
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import Daemon, LocalCluster

from alpyne_proto.address import Address, key_to_text
from alpyne_proto.container import NameRefused

MIB = 1 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three data nodes and a compute node for the tests that leave them as they were."""
    with LocalCluster(tmp_path_factory.mktemp("objects") / "cluster", create_account) as made:
        nodes = [made.add("data") for _ in range(3)]
        made.start_all([*nodes, made.add("compute", "--slots", "2")])
        yield made


@pytest.fixture(scope="module")
def grid(shared: LocalCluster) -> Iterator[Manager]:
    with Manager.connect(shared.addresses, home=shared.home) as made:
        yield made


@pytest.fixture
def container(grid: Manager, request: pytest.FixtureRequest) -> Container:
    return grid.container(request.node.name[:200], copies=2)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three data nodes for a test that breaks them."""
    with LocalCluster(tmp_path / "cluster", create_account) as made:
        made.start_all([made.add("data") for _ in range(3)])
        yield made


@pytest.fixture
def own_grid(own: LocalCluster) -> Iterator[Manager]:
    with Manager.connect(own.addresses, home=own.home) as made:
        yield made


def holders(cluster: LocalCluster, item: JobObject) -> list[Daemon]:
    """Return the daemons that hold a version."""
    return [d for d in cluster.daemons if Address.parse(d.address).key in item.holders]


# ---- contents --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 48 * 1024, 48 * 1024 + 1, 3 * MIB + 7])
def test_object_is_read_as_it_was_put(container: Container, size: int) -> None:
    data = os.urandom(size)
    item = container.put("a/b", data)
    assert (item.size, item.sha256) == (size, hashlib.sha256(data).digest())
    assert len(item.holders) == 2
    assert container.get("a/b") == data == item.read()
    assert b"".join(container.stream("a/b")) == data
    assert item.read(size // 2, 10) == data[size // 2 :][:10]
    with item.open() as file:
        file.seek(size // 3)
        assert file.read() == data[size // 3 :]


def test_object_is_put_from_files_and_streams(container: Container, tmp_path: Path) -> None:
    data = os.urandom(9 * MIB)
    file = tmp_path / "file"
    file.write_bytes(data)
    container.put("path", file)
    with file.open("rb") as opened:
        container.put("file", opened)
    container.put("pieces", (data[at : at + MIB] for at in range(0, len(data), MIB)))
    assert container.push(file).path == "file"
    wanted = hashlib.sha256(data).digest()
    assert [item.sha256 for item in container.ls()] == [wanted] * 3
    container.pull("pieces", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_put_refuses_what_has_no_bytes(container: Container, tmp_path: Path) -> None:
    text: Any = "text"
    with pytest.raises(ProgramError, match=r"expected bytes, a pathlib\.Path"):
        container.put("a", text)
    with pytest.raises(ProgramError, match="use push_tree"):
        container.put("a", tmp_path)
    assert not container.exists("a")


@pytest.mark.parametrize("path", ["", "/a", "a/../b", "a//b", "a\x00", "x" * 5000, "a/."])
def test_path_that_is_none_is_refused_before_anything_is_sent(
    container: Container, path: str
) -> None:
    for use in (lambda: container.put(path, b""), lambda: container.stat(path)):
        with pytest.raises(NameRefused):
            use()


def test_list_and_glob_give_newest_versions_in_path_order(container: Container) -> None:
    for path in ("b/1.txt", "a.txt", "b/c/2.txt", "b.bin", "ä.txt"):
        container.put(path, b"old")
        container.put(path, b"new!")
    container.delete("b.bin")
    assert [item.path for item in container.ls()] == ["a.txt", "b/1.txt", "b/c/2.txt", "ä.txt"]
    assert [item.path for item in container.ls("b/")] == ["b/1.txt", "b/c/2.txt"]
    assert [item.path for item in container.glob("*.txt")] == ["a.txt", "ä.txt"]
    assert [item.path for item in container.glob("**/*.txt")][1:3] == ["b/1.txt", "b/c/2.txt"]
    assert {item.counter for item in container.ls()} == {2}
    assert {item.size for item in container.ls()} == {4}


def test_deleted_object_is_gone_and_can_be_put_again(container: Container) -> None:
    container.put("a", b"1")
    container.delete("a")
    with pytest.raises(ObjectNotFound, match="'a'"):
        container.get("a")
    with pytest.raises(ObjectNotFound):
        container.delete("a")
    container.delete("a", missing_ok=True)
    assert container.put("a", b"2", if_absent=True).counter == 3


def test_values_are_kept_as_objects(container: Container) -> None:
    item = container.put_value("v", {"numbers": [1, 2, 3]})
    assert item.value() == container.value("v") == {"numbers": [1, 2, 3]}


# ---- versions and conditions -----------------------------------------------------------------


def test_condition_that_does_not_hold_writes_nothing(container: Container) -> None:
    first = container.put("a", b"1")
    with pytest.raises(VersionConflict, match="expected none"):
        container.put("a", b"2", if_absent=True)
    second = container.put("a", b"2", if_version=first)
    with pytest.raises(VersionConflict, match="expected version 1, there is 2"):
        container.put("a", b"3", if_version=first)
    with pytest.raises(VersionConflict):
        container.delete("a", if_version=first)
    assert container.get("a") == b"2"
    container.delete("a", if_version=second)


def test_concurrent_additions_lose_none_when_each_is_conditional(container: Container) -> None:
    """Sixteen writers add to one object, each on the version that it has read."""
    container.put("counter", b"0")

    def add() -> None:
        while True:
            seen = container.stat("counter")
            value = int(container.get(seen))
            try:
                container.put("counter", str(value + 1).encode(), if_version=seen)
            except VersionConflict:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(add) for _ in range(16)]:
            done.result(60)
    assert container.get("counter") == b"16"


def test_only_one_of_many_creates_an_object_that_must_be_absent(container: Container) -> None:
    def create(number: int) -> bool:
        try:
            container.put("one", str(number).encode(), if_absent=True)
        except VersionConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(16)))
    assert made.count(True) == 1
    assert container.get("one") == str(made.index(True)).encode()


def test_concurrent_puts_of_one_path_leave_one_whole_version(container: Container) -> None:
    versions = [bytes([n]) * (200_000 + n) for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        items = list(pool.map(lambda data: container.put("same", data), versions))
    found = container.get("same")
    assert found in versions
    newest = max(items, key=lambda item: (item.counter, item.writer))
    assert hashlib.sha256(found).digest() == newest.sha256
    assert len({(item.counter, item.writer) for item in items}) == 12


def test_reader_sees_one_version_whole_while_writers_replace_it(container: Container) -> None:
    stop = threading.Event()
    container.put("a", bytes(500_000))

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            container.put("a", bytes([number % 256]) * 500_000)

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(30):
                assert len(set(container.get("a"))) == 1
        finally:
            stop.set()
        writing.result(30)


def test_superseded_version_can_still_be_read_by_who_knows_it(container: Container) -> None:
    old = container.put("a", b"old")
    container.put("a", b"new")
    assert (old.read(), container.get("a")) == (b"old", b"new")


# ---- containers ------------------------------------------------------------------------------


def test_container_is_the_same_for_every_manager_of_the_account(
    shared: LocalCluster, grid: Manager, container: Container
) -> None:
    container.put("a", b"1")
    with Manager.connect(shared.addresses, home=shared.home) as other:
        again = other.container(container.name)
        assert again.describe() == container.describe()
        assert again.get("a") == b"1"
        assert container.name in [row.name for row in other.containers()]


def test_container_with_other_copies_is_refused_and_can_be_changed(
    grid: Manager, container: Container
) -> None:
    container.put("a", b"1")
    with pytest.raises(ContainerError, match="copies=2, asked 3"):
        grid.container(container.name, copies=3).describe()
    container.reconfigure(copies=3)
    assert len(container.put("b", b"2").holders) == 3
    assert grid.container(container.name, copies=3).get("a") == b"1"


def test_container_with_more_copies_than_nodes_is_refused(grid: Manager) -> None:
    with pytest.raises(ContainerError, match="there are 3"):
        grid.container("too many", copies=4).describe()


def test_container_keeps_its_objects_on_the_members_it_was_given(
    shared: LocalCluster, grid: Manager
) -> None:
    members = shared.addresses[:1]
    container = grid.container("one member", copies=1, members=members)
    item = container.put("a", b"1")
    assert [daemon.address for daemon in holders(shared, item)] == members


# ---- nodes that fail -------------------------------------------------------------------------


def test_put_takes_another_member_when_one_is_gone(own: LocalCluster, own_grid: Manager) -> None:
    container = own_grid.container("c", copies=2)
    container.put("warm", b"")
    own.daemons[0].kill()
    for number in range(6):
        assert len(container.put(f"p{number}", b"x").holders) == 2
    assert len(list(container.ls())) == 7


def test_put_says_what_exists_when_there_are_too_few_members(
    own: LocalCluster, own_grid: Manager
) -> None:
    container = own_grid.container("c", copies=2)
    container.put("warm", b"")
    for daemon in own.daemons[:2]:
        daemon.kill()
    with pytest.raises(NotEnoughCopies, match="1 of 2 copies") as raised:
        container.put("p", b"x")
    assert len(raised.value.holders) == 1 and len(raised.value.failures) == 2
    with pytest.raises(MaybeStale, match="1 members answered, 2 are needed"):
        container.get("p")
    assert container.get("p", allow_stale=True) == b"x"


def test_put_says_what_to_do_when_the_accounts_quota_is_full(
    own: LocalCluster, tmp_path: Path
) -> None:
    options = ("--registration", "open", "--open-quota-bytes", str(MIB))
    small = [own.add("data", *options) for _ in range(2)]
    own.start_all(small)
    guest = tmp_path / "guest"
    create_account(guest)
    with Manager.connect([node.address for node in small], home=guest) as grid:
        container = grid.container("c", copies=2)
        container.put("fits", os.urandom(900_000))
        with pytest.raises(NotEnoughCopies, match="0 of 2 copies") as raised:
            container.put("does not", os.urandom(900_000))
        assert container.get("fits") != b""
    text = str(raised.value)
    assert text.count("900000 bytes do not fit: 900000 of 1048576 bytes are used") == 1
    assert "delete objects" in text
    assert "start the nodes" not in text


def test_read_is_newest_when_the_node_with_the_old_version_alone_is_back(
    own: LocalCluster, own_grid: Manager
) -> None:
    container = own_grid.container("c", copies=2)
    item = container.put("a", b"old")
    away = holders(own, item)[0]
    away.kill()
    container.put("a", b"new")
    away.start()
    wait_until(lambda: all(node.is_up for node in own_grid.statistics().nodes))
    assert container.get("a") == b"new"
    assert container.stat("a").counter == 2


def test_open_read_goes_on_at_another_node_when_its_node_is_killed(
    own: LocalCluster, own_grid: Manager
) -> None:
    container = own_grid.container("c", copies=2)
    data = os.urandom(40 * MIB)
    item = container.put("a", data)
    stream = container.stream(item)
    received = [next(stream)]
    received_bytes = {node.key: node.received_bytes for node in own_grid.statistics().nodes}
    reading = max(
        holders(own, item),
        key=lambda daemon: received_bytes[key_to_text(Address.parse(daemon.address).key)],
    )
    reading.kill()
    received += stream
    assert b"".join(received) == data
    assert own_grid.statistics().failed_over_reads >= 1


def test_file_is_whole_when_its_node_stops_answering_meanwhile(
    own: LocalCluster, own_grid: Manager, tmp_path: Path
) -> None:
    container = own_grid.container("c", copies=2)
    item = container.put("a", os.urandom(60 * MIB))
    victim = holders(own, item)[0]
    timer = threading.Timer(0.05, victim.kill)
    timer.start()
    container.pull(item, tmp_path / "a")
    timer.join()
    assert hashlib.sha256((tmp_path / "a").read_bytes()).digest() == item.sha256


def damage(daemon: Daemon, item: JobObject) -> None:
    """Change one byte of an object's content in a data node's folder."""
    blob = next(
        path
        for path in daemon.state.rglob("*")
        if path.is_file() and path.stat().st_size == item.size
    )
    with blob.open("r+b") as file:
        file.seek(item.size // 2)
        byte = file.read(1)
        file.seek(item.size // 2)
        file.write(bytes([byte[0] ^ 1]))


def test_damaged_copy_is_never_served_as_good(own: LocalCluster, own_grid: Manager) -> None:
    container = own_grid.container("c", copies=2)
    data = os.urandom(3 * MIB + 1)
    item = container.put("a", data)
    one, other = holders(own, item)
    damage(one, item)
    for _ in range(3):
        assert item.read() == data
        assert b"".join(container.stream(item)) == data
    damage(other, item)
    with pytest.raises(ObjectUnavailable, match="none of its 2 holders"):
        item.read()


def test_node_that_hangs_is_passed_over(own: LocalCluster, own_grid: Manager) -> None:
    container = own_grid.container("c", copies=2)
    item = container.put("a", b"x" * 100)
    hanging = holders(own, item)[0]
    os.kill(hanging.pid, signal.SIGSTOP)
    try:
        assert item.read() == b"x" * 100
    finally:
        os.kill(hanging.pid, signal.SIGCONT)


# ---- folders, maps ---------------------------------------------------------------------------


def test_folder_goes_to_the_grid_and_back(container: Container, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(40):
        file = source / f"d{number % 3}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(number * 1000))
    done = container.push_tree(source)
    assert (done.files, done.unchanged) == (40, 0)
    assert container.push_tree(source).unchanged == 40
    container.pull_tree(tmp_path / "back")
    before = {p.relative_to(source): p.read_bytes() for p in source.rglob("f*")}
    after = {
        p.relative_to(tmp_path / "back"): p.read_bytes() for p in (tmp_path / "back").rglob("f*")
    }
    assert before == after


def measure(item: JobObject) -> int:
    return len(item.read())


def join(left: bytes, right: bytes) -> bytes:
    return left + right


def test_map_over_objects_reads_them_from_the_data_nodes(
    grid: Manager, container: Container
) -> None:
    for number in range(20):
        container.put(f"o{number:02}", bytes(number * 10_000))
    before = grid.statistics().to_compute
    assert list(grid.map(measure, container.ls())) == [n * 10_000 for n in range(20)]
    assert grid.statistics().to_compute - before < 100_000


def test_map_and_reduce_leave_values_on_the_data_nodes(grid: Manager, container: Container) -> None:
    parts = list(grid.map(lambda n: bytes([n]) * 200_000, range(20), into=container))
    assert [type(part) for part in parts] == [JobObject] * 20
    assert parts[3].value() == b"\x03" * 200_000
    whole = grid.reduce(join, parts, into=container, fan_in=3)
    assert whole.value() == b"".join(bytes([n]) * 200_000 for n in range(20))
    left = {item.path for item in container.ls()}
    assert left == {part.path for part in parts} | {whole.path}


def test_job_reaches_no_object_that_it_was_not_given(grid: Manager, container: Container) -> None:
    given = container.put("given/a", b"1")
    other = container.put("other/b", b"2")
    fields = (*other.as_plain(),)

    def steal(item: JobObject) -> bytes:
        from alpyne_proto.jobobject import from_plain

        return from_plain(fields).read()

    error = grid.submit(steal, given).exception(20)
    assert error is not None
    assert isinstance(error.__cause__, PermissionError)


def test_map_resumes_by_tag_and_does_only_what_is_missing(
    shared: LocalCluster, grid: Manager, tmp_path: Path
) -> None:
    log = tmp_path / "executed"

    def logged(item: int) -> int:
        with open(log, "a") as file:
            file.write(f"{item}\n")
        return item * 2

    with Manager.connect(shared.addresses, home=shared.home) as first:
        assert list(first.map(logged, range(30), resume="my run", chunk=5)) == [
            n * 2 for n in range(30)
        ]
    again = grid.map(logged, range(50), resume="my run", chunk=5)
    assert list(again) == [n * 2 for n in range(50)]
    executed = [int(line) for line in log.read_text().split()]
    assert sorted(executed) == list(range(50))


def wait_until(is_true: Any) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, "waited 20 s"
        time.sleep(0.02)
