"""The journal: what it has acknowledged survives, what it has not is no record."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from alpyne_grid.manager import journal as journals
from alpyne_grid.manager.errors import JournalError
from alpyne_grid.manager.journal import BLOCK, RECORD_SIZE, Journal, Kind, Record

ACCOUNT = b"a" * 32
SETTLED = Record(Kind.SETTLED, 7, 1, 2, b"h" * 32)


@pytest.fixture
def made(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path, ACCOUNT, os.urandom)


def append(journal: Journal, *records: Record) -> BaseException | None:
    """Append and wait; return the error."""
    done = threading.Event()
    errors: list[BaseException | None] = []

    def settle(error: BaseException | None) -> None:
        errors.append(error)
        done.set()

    journal.append(records, settle)
    assert done.wait(10)
    return errors[0]


def reopened(journal: Journal) -> Journal:
    journal.close()
    again = Journal.adopt(journal.path.parent, journal.id)
    assert again is not None
    return again


def test_journal_says_after_reopening_what_it_acknowledged(made: Journal) -> None:
    assert append(made, SETTLED, Record(Kind.ALLOCATED, 9, 3)) is None
    again = reopened(made)
    assert again.known.settled == {7: SETTLED}
    assert again.known.allocations == {9: 3}
    again.close()


def test_journal_keeps_the_first_execution_when_a_job_is_settled_twice(made: Journal) -> None:
    append(made, SETTLED, SETTLED._replace(allocation=2))
    again = reopened(made)
    assert again.known.settled[7].allocation == 1
    again.close()


def test_journal_gives_no_counter_twice_when_a_later_process_adopts_it(made: Journal) -> None:
    before = [made.take_counter() for _ in range(10)]
    again = reopened(made)
    assert again.take_counter() > max(before)
    again.close()


def test_journal_reserves_the_next_block_before_it_gives_a_counter_of_it(made: Journal) -> None:
    last = max(made.take_counter() for _ in range(BLOCK + 10))
    again = reopened(made)
    assert again.known.reserved > last
    again.close()


def test_journal_gives_each_counter_once_when_many_threads_take_them(made: Journal) -> None:
    taken: list[list[int]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(
            target=lambda mine=mine: mine.extend(made.take_counter() for _ in range(5000))
        )
        for mine in taken
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = list(itertools.chain.from_iterable(taken))
    assert len(set(everything)) == len(everything)
    made.close()


def test_journal_is_not_adopted_while_its_process_lives(made: Journal) -> None:
    assert Journal.adopt(made.path.parent, made.id) is None
    made.close()


def test_journal_of_another_home_is_nobodys_here(tmp_path: Path) -> None:
    assert Journal.adopt(tmp_path, b"unknown.") is None


@pytest.mark.parametrize("cut", [1, RECORD_SIZE // 2, RECORD_SIZE - 1])
def test_journal_drops_a_record_that_was_written_in_part(made: Journal, cut: int) -> None:
    append(made, SETTLED)
    append(made, SETTLED._replace(counter=8))
    made.close()
    data = bytearray(made.path.read_bytes())
    end = journals._HEADER.size + 3 * RECORD_SIZE  # RESERVED and the two
    data[end - cut : end] = bytes(cut)
    made.path.write_bytes(data)
    again = Journal.adopt(made.path.parent, made.id)
    assert again is not None
    assert list(again.known.settled) == [7]
    append(again, SETTLED._replace(counter=9))
    again = reopened(again)
    assert list(again.known.settled) == [7, 9]
    again.close()


def test_journal_refuses_a_file_whose_head_is_damaged(made: Journal) -> None:
    made.close()
    data = bytearray(made.path.read_bytes())
    data[20] ^= 1
    made.path.write_bytes(data)
    with pytest.raises(JournalError, match="is no journal"):
        Journal.adopt(made.path.parent, made.id)


def test_journal_writes_nothing_more_when_a_write_has_failed(
    made: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals, "_write_at", full)
    assert isinstance(append(made, SETTLED), JournalError)
    monkeypatch.undo()
    assert isinstance(append(made, SETTLED), JournalError)
    again = reopened(made)
    assert again.known.settled == {}
    again.close()


def test_journal_says_what_to_do_when_its_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="set ALPYNE_HOME"):
        Journal.create(tmp_path / "file" / "journals", ACCOUNT, os.urandom)


def test_journal_file_goes_when_nobody_needs_it(made: Journal) -> None:
    made.close(remove=True)
    assert list(made.path.parent.iterdir()) == []


def test_old_journals_go_and_those_in_use_stay(tmp_path: Path) -> None:
    dead = Journal.create(tmp_path, ACCOUNT, os.urandom)
    dead.close()
    alive = Journal.create(tmp_path, ACCOUNT, os.urandom)
    fresh = Journal.create(tmp_path, ACCOUNT, os.urandom)
    fresh.close()
    long_ago = time.time() - journals.KEPT_S - 60
    for journal in (dead, alive):
        os.utime(journal.path, (long_ago, long_ago))
    journals.remove_old(tmp_path)
    assert set(tmp_path.iterdir()) == {alive.path, fresh.path}
    alive.close()


WRITER = """
import os, sys
from pathlib import Path
from alpyne_grid.manager.journal import Journal, Kind, Record

journal = Journal.create(Path(sys.argv[1]), b"a" * 32, os.urandom)
sys.stdout.write(journal.id.hex() + "\\n")
def done(counter):
    def say(error):
        os.write(1, f"{counter}\\n".encode())
    return say
while True:
    counter = journal.take_counter()
    journal.append([Record(Kind.SETTLED, counter, 1, 1, b"h" * 32)], done(counter))
"""


@pytest.mark.crash
def test_journal_has_all_that_it_acknowledged_when_its_process_is_killed(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(WRITER), str(tmp_path)],
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    journal_id = bytes.fromhex(writer.stdout.readline().decode())
    said = [writer.stdout.readline() for _ in range(2000)]
    writer.send_signal(signal.SIGKILL)
    said += writer.stdout.readlines()
    writer.stdout.close()
    writer.wait()
    acknowledged = {int(line) for line in said if line.endswith(b"\n")}
    adopted = Journal.adopt(tmp_path, journal_id)
    assert adopted is not None
    assert acknowledged <= adopted.known.settled.keys()
    assert adopted.known.reserved > max(acknowledged)
    adopted.close()
