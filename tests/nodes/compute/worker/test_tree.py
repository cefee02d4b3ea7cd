"""Trees of processes, on real ones."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from alpyne_grid.nodes.compute.worker import tree

# Starts a child and a grandchild, says so, and waits; the grandchild's parent can be told to end.
FAMILY = """
import os, sys, time
reader, writer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(writer, b"%d" % os.getpid())
    time.sleep(3600)
print(os.getpid(), os.read(reader, 20).decode(), flush=True)
time.sleep(3600)
"""


@pytest.fixture
def family() -> Iterator[subprocess.Popen[str]]:
    """A process with a child and a grandchild."""
    parent = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    yield parent
    for pid in [*tree.descendants(parent.pid), parent.pid]:
        os.kill(pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()


def until(happened: Callable[[], object]) -> None:
    """Wait for something that the kernel does in its own time."""
    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_descendants_are_found_parents_first(family: subprocess.Popen[str]) -> None:
    child, grandchild = tree.descendants(family.pid)
    assert tree.children(family.pid) == [child]
    assert tree.parent(grandchild) == child
    assert tree.descendants(grandchild) == []


def test_descendants_are_found_when_the_kernel_has_no_lists_of_children(
    family: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tree.descendants(family.pid)
    real_open = open

    def open_without(path: str, mode: str) -> object:
        if path.endswith("/children"):
            raise FileNotFoundError(path)
        return real_open(path, mode)

    monkeypatch.setattr(tree, "open", open_without, raising=False)
    assert tree.descendants(family.pid) == found


def test_process_that_is_gone_has_neither_children_nor_parent() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert tree.children(gone.pid) == []
    assert tree.parent(gone.pid) == 0
    assert tree.state(gone.pid) == "X"
    assert not tree.is_alive(gone.pid)
    assert tree.resident_bytes(gone.pid) == 0
    assert tree.proportional_bytes(gone.pid) == 0


def test_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    until(lambda: tree.state(child.pid) == "Z")
    assert not tree.is_alive(child.pid)
    child.wait()


def test_state_is_read_when_a_name_holds_brackets(tmp_path: object) -> None:
    code = "open('/proc/self/comm','w').write(') R (x'); print('ok', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    until(lambda: tree.state(child.pid) == "S")
    assert tree.parent(child.pid) == os.getpid()
    child.communicate(b"\n")


def test_memory_of_a_process_is_counted() -> None:
    resident, proportional = tree.resident_bytes(os.getpid()), tree.proportional_bytes(os.getpid())
    assert 1 << 20 < proportional <= resident


def test_marked_processes_are_found_by_the_beginning_of_their_mark() -> None:
    mark = uuid.uuid4().hex
    one, other = (
        subprocess.Popen(["sleep", "3600"], env={"TREE_MARK": f"{mark}.{n}."}) for n in (1, 10)
    )
    try:
        until(lambda: len(tree.marked("TREE_MARK", f"{mark}.")) == 2)
        assert tree.marked("TREE_MARK", f"{mark}.1.") == [one.pid]
    finally:
        for process in (one, other):
            process.kill()
            process.wait()


def test_session_is_found_by_its_leader() -> None:
    leader = subprocess.Popen(["sh", "-c", "sleep 3600 & sleep 3600"], start_new_session=True)
    try:
        until(lambda: len(tree.in_session(leader.pid)) == 3)
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()


def test_end_all_ends_a_tree_and_counts_it(family: subprocess.Popen[str]) -> None:
    def find() -> list[int]:
        return tree.descendants(family.pid)

    family.send_signal(signal.SIGSTOP)  # it does not reap its child; a zombie counts as ended
    assert tree.end_all(find) == tree.Receipt(ended=2, left=0)
    assert not any(map(tree.is_alive, find()))


def test_end_all_reaps_the_callers_own_children() -> None:
    children = [subprocess.Popen(["sleep", "3600"]) for _ in range(3)]
    pids = [child.pid for child in children]
    receipt = tree.end_all(lambda: pids, reap=lambda: [c.poll() for c in children] and None)
    assert receipt == (3, 0)
    assert all(child.returncode == -signal.SIGKILL for child in children)


def test_end_all_says_what_is_left_when_patience_runs_out(
    family: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_send", lambda pid, number: None)
    receipt = tree.end_all(lambda: tree.descendants(family.pid), patience_s=0.05)
    assert receipt == tree.Receipt(ended=0, left=2)


def test_end_all_of_nothing_is_done_at_once() -> None:
    assert tree.end_all(list) == (0, 0)


@pytest.mark.parametrize("has_files", [True, False])
def test_leftovers_are_seen_wherever_they_hang(
    family: subprocess.Popen[str], has_files: bool
) -> None:
    child, grandchild = tree.descendants(family.pid)
    watch = tree.Leftovers(family.pid, child)  # as if the child were the worker
    if not has_files:
        watch.close()
    assert watch.any()  # below the worker
    os.kill(grandchild, signal.SIGKILL)
    until(lambda: not tree.is_alive(grandchild))
    assert not watch.any()  # a zombie is nothing that goes on
    watch.close()
    other = tree.Leftovers(os.getpid(), child)
    assert other.any()  # the parent is beside the worker, as an orphan would be
    other.close()


# Each process of the chain forks its successor and ends; the first line is printed by the first.
CHAIN = """
import os, time
os.setpgid(0, 0)
print(os.getpgrp(), flush=True)
if os.fork() == 0:
    while True:
        if os.fork():
            os._exit(0)
time.sleep(3600)
"""


def test_stop_all_stops_a_chain_of_forks_and_continue_all_lets_it_go_on() -> None:
    first = subprocess.Popen([sys.executable, "-c", CHAIN], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    group = int(first.stdout.readline())

    def find() -> list[int]:
        return [pid for pid in tree.pids() if tree._stat(pid)[2:3] == [str(group)]]

    try:
        assert tree.stop_all(find, 5, spared=()) == 0
        stopped = find()
        assert len(stopped) >= 2
        time.sleep(0.02)
        assert find() == stopped
        tree.continue_all(stopped)
        until(lambda: set(find()) - set(stopped))
    finally:
        os.killpg(group, signal.SIGSTOP)
        os.killpg(group, signal.SIGKILL)
        first.wait()
        first.stdout.close()
        until(lambda: not any(map(tree.is_alive, find())))


def test_stop_all_lets_go_on_what_is_spared_of_the_same_group() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    child, grandchild = tree.descendants(parent.pid)
    try:
        assert tree.stop_all(lambda: [grandchild], 5, spared=(parent.pid,)) == 0
        until(lambda: tree.state(parent.pid) == "S")
        until(lambda: tree.state(child) == "T")
        assert tree.state(grandchild) == "T"
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
