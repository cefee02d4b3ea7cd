"""How a worker gets its descriptors, with a worker that is played here."""

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute.backends.containers.recipe import SOCKET
from alpyne_grid.nodes.compute.backends.containers.rendezvous import Met, Refused, Rendezvous


def folders() -> list[int]:
    return [os.open("/tmp", os.O_PATH | os.O_DIRECTORY) for _ in range(2)]


def play(
    folder: Path, answer: Callable[[], list[int]] = folders
) -> tuple[threading.Thread, list[int]]:
    """Come to the socket in ``folder`` as a worker; return what it was handed in."""
    got: list[int] = []

    def work() -> None:
        at = os.open(folder, os.O_PATH)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
            end.connect(f"/proc/self/fd/{at}/{SOCKET}")
            os.close(at)
            got.extend(socket.recv_fds(end, 1, 4)[1])
            given = answer()
            socket.send_fds(end, [b"+"], given)
            for descriptor in given:
                os.close(descriptor)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, got


def met(folder: Path) -> tuple[Met, list[int]]:
    rendezvous = Rendezvous(folder)
    try:
        thread, got = play(folder)
        found = rendezvous.meet(10)
        thread.join()
    finally:
        rendezvous.close()
    assert found is not None
    return found, got


def closed(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def test_worker_gets_the_other_ends_of_what_the_daemon_has(tmp_path: Path) -> None:
    found, (control, job, stdout, stderr) = met(tmp_path)
    near = found.descriptors
    assert found.pid == os.getpid()
    for mine, its in ((near[0], control), (near[1], job)):
        os.write(mine, b"down")
        assert os.read(its, 9) == b"down"
        os.write(its, b"up")
        assert os.read(mine, 9) == b"up"
    for mine, its in ((near[2], stdout), (near[3], stderr)):
        os.write(its, b"said")
        assert os.read(mine, 9) == b"said"
    assert all(stat.S_ISDIR(os.fstat(handle).st_mode) for handle in near[4:])
    closed(*near, control, job, stdout, stderr)


def test_daemons_ends_do_not_block_and_are_not_inherited(tmp_path: Path) -> None:
    found, got = met(tmp_path)
    for descriptor in found.descriptors[:4]:
        assert not os.get_blocking(descriptor)
    assert not any(map(os.get_inheritable, found.descriptors))
    closed(*found.descriptors, *got)


def test_nobody_comes_after_the_worker(tmp_path: Path) -> None:
    found, got = met(tmp_path)
    assert list(tmp_path.iterdir()) == []
    closed(*found.descriptors, *got)


def test_nobody_has_come_yet(tmp_path: Path) -> None:
    rendezvous = Rendezvous(tmp_path)
    assert rendezvous.meet(0.01) is None
    rendezvous.close()
    assert list(tmp_path.iterdir()) == []


def test_worker_that_has_come_may_take_longer_than_a_look(tmp_path: Path) -> None:
    go_on = threading.Event()

    def slowly() -> list[int]:
        go_on.wait(10)
        return folders()

    rendezvous = Rendezvous(tmp_path)
    thread, got = play(tmp_path, slowly)
    threading.Timer(0.1, go_on.set).start()
    found = None
    while found is None:
        found = rendezvous.meet(0.01)
    thread.join()
    rendezvous.close()
    closed(*found.descriptors, *got)


def test_worker_is_met_in_a_folder_whose_path_is_longer_than_a_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    found, got = met(deep)
    closed(*found.descriptors, *got)


def _sockets() -> list[int]:
    # One that is not connected: whoever gets it could connect it to anything.
    return [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach() for _ in range(2)]


def _readable_folders() -> list[int]:
    return [os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY) for _ in range(2)]


def _files() -> list[int]:
    return [os.open("/etc/passwd", os.O_PATH) for _ in range(2)]


def _one() -> list[int]:
    return folders()[:1]


@pytest.mark.parametrize("answer", [_sockets, _readable_folders, _files, _one])
def test_worker_is_refused_when_it_hands_out_anything_but_its_folders(
    tmp_path: Path, answer: Callable[[], list[int]]
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    rendezvous = Rendezvous(tmp_path)
    thread, got = play(tmp_path, answer)
    with pytest.raises(Refused):
        rendezvous.meet(10)
    thread.join()
    rendezvous.close()
    closed(*got)
    assert len(os.listdir("/proc/self/fd")) <= len(before) + (answer is _one)
