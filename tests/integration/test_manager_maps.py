"""Maps and reductions through the manager library on real nodes: every form, plain and async."""

import asyncio
import operator
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager import (
    AsyncManager,
    Command,
    JobRaised,
    Manager,
    NoNodeFits,
    ProgramError,
    Source,
)
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster

WITHIN_S = 30.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("maps") / "cluster", create_account) as made:
        made.start_all([made.add("compute", "--slots", "2"), made.add("data")])
        yield made


@pytest.fixture(scope="module")
def grid(shared: LocalCluster) -> Iterator[Manager]:
    with Manager.connect(shared.addresses, home=shared.home) as made:
        yield made


def is_even(number: int) -> bool:
    return number % 2 == 0


def minus(left: int, right: int) -> int:
    return left - right


# ---- functions -------------------------------------------------------------------------------


def test_map_takes_several_iterables_side_by_side(grid: Manager) -> None:
    assert list(grid.map(minus, [5, 6, 7], [1, 2])) == [4, 4]


def test_starmap_spreads_each_item_over_the_arguments(grid: Manager) -> None:
    pairs = [(n, n * n) for n in range(40)]
    assert list(grid.starmap(minus, pairs)) == [n - n * n for n in range(40)]


def test_filter_gives_the_items_themselves_in_order(grid: Manager) -> None:
    words = [f"{n:03}" for n in range(100)]
    found = grid.filter(lambda word: is_even(int(word)), words)
    assert list(found) == words[::2]


def test_filter_raises_at_the_item_whose_predicate_raised_and_goes_on(grid: Manager) -> None:
    found = grid.filter(lambda n: 1 / n > 0, [1, 0, -1, 2])
    assert next(found) == 1
    with pytest.raises(JobRaised, match="ZeroDivisionError"):
        next(found)
    assert list(found) == [2]


# ---- source files ----------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(
        "LOADED = []\n"
        "class Pair:\n"
        "    def __init__(self, *both): self.both = both\n"
        "def main(left, right=1):\n"
        "    if left == 'pair': return Pair(left, right).both\n"
        "    return left * 10 + right\n"
        "if __name__ == '__main__':\n"
        "    raise RuntimeError('this must not run')\n"
    )
    return path


def test_source_file_is_mapped_over_items(grid: Manager, program: Path) -> None:
    assert list(grid.map(Source(program), range(50))) == [n * 10 + 1 for n in range(50)]
    assert list(grid.starmap(Source(program), [(1, 2), (3, 4)])) == [12, 34]
    assert list(grid.map(Source(program), ["pair"])) == [("pair", 1)]


def test_source_file_filters_items(grid: Manager, tmp_path: Path) -> None:
    (tmp_path / "keep.py").write_text("def main(n):\n    return n > 2\n")
    assert list(grid.filter(Source(tmp_path / "keep.py"), range(5))) == [3, 4]


def test_source_file_reduces_parts_in_order(grid: Manager, tmp_path: Path) -> None:
    (tmp_path / "join.py").write_text("def main(left, right):\n    return left + right\n")
    parts = [f"{n}," for n in range(100)]
    assert grid.reduce(Source(tmp_path / "join.py"), parts) == "".join(parts)


def test_source_file_shows_its_own_lines_when_it_raises(grid: Manager, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def main(n):\n    return 1 // n  # the line\n")
    one, other = grid.map(Source(tmp_path / "bad.py"), [1, 0], return_exceptions=True)
    assert one == 1
    assert 'File "bad.py", line 2, in main' in str(other)
    assert "# the line" in str(other)


def test_source_file_without_main_fails_its_items_with_what_to_do(
    grid: Manager, tmp_path: Path
) -> None:
    (tmp_path / "none.py").write_text("x = 1\n")
    with pytest.raises(JobRaised, match=r"none\.py has no function main; define"):
        list(grid.map(Source(tmp_path / "none.py"), [1]))


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "cannot be read"), (b"def main(:\n", "line 1"), (b"x = '\0'", "bad program format")],
)
def test_source_file_is_refused_here_when_it_is_no_program(
    tmp_path: Path, content: bytes | None, text: str
) -> None:
    path = tmp_path / "p.py"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProgramError, match=text):
        Source(path)


# ---- commands --------------------------------------------------------------------------------


def test_command_is_mapped_over_words(grid: Manager) -> None:
    found = grid.map(Command(["echo", "-n", "item"]), range(30))
    assert list(found) == [b"item %d" % n for n in range(30)]
    assert list(grid.starmap(Command(["expr"]), [(2, "+", 3)])) == [b"5\n"]


def test_command_is_mapped_over_objects_and_leaves_files(grid: Manager) -> None:
    box = grid.container("command", copies=1)
    for name in ("b/two.txt", "a/one.txt"):
        box.put(name, name.encode() * 3)
    shout = Command(
        ["sh", "-c", 'tr a-z "$TO" < "$1" > out.txt; ln -s /etc/passwd link.txt', "sh"],
        outputs=["*.txt"],
        environment={"TO": "A-Z"},
    )
    found = list(grid.map(shout, box.ls()))
    assert found == [{"out.txt": b"A/ONE.TXT" * 3}, {"out.txt": b"B/TWO.TXT" * 3}]


def test_command_filters_by_its_status(grid: Manager) -> None:
    assert list(grid.filter(Command(["test", "3", "-lt"]), range(6))) == [4, 5]


def test_command_reduces_parts_in_order(grid: Manager) -> None:
    parts = [b"%d," % n for n in range(60)]
    assert grid.reduce(Command(["cat"]), parts) == b"".join(parts)


def test_command_that_ends_badly_fails_its_item_only(grid: Manager) -> None:
    script = Command(["sh", "-c", "exit $1", "sh"])
    good, bad, also_good = grid.map(script, [0, 3, 0], return_exceptions=True)
    assert (good, also_good) == (b"", b"")
    assert isinstance(bad, JobRaised)
    assert isinstance(bad.__cause__, subprocess.CalledProcessError)
    assert bad.__cause__.returncode == 3


def test_command_gives_bytes_from_a_node_that_is_not_trusted(shared: LocalCluster) -> None:
    with Manager.connect(shared.addresses, home=shared.home, untrusted=shared.addresses) as grid:
        assert list(grid.map(Command(["echo"]), ["x"])) == [b"x\n"]


@pytest.mark.parametrize("argv", [[], "echo x"])
def test_command_is_refused_when_it_is_no_list_of_words(argv: Any) -> None:
    with pytest.raises(ProgramError, match="a list of a program and its words"):
        Command(argv)


# ---- nodes that do not fit -------------------------------------------------------------------


def test_job_says_which_python_is_there_when_no_node_has_the_one_it_needs(grid: Manager) -> None:
    with pytest.raises(NoNodeFits, match=r"has Python 3\.\d+.*, the code needs 3\.5"):
        grid.submit(abs, -1, python="3.5").result(WITHIN_S)


# ---- without threads -------------------------------------------------------------------------


def test_async_manager_does_all_that_the_plain_one_does(
    shared: LocalCluster, tmp_path: Path
) -> None:
    async def main() -> dict[str, Any]:
        seen: dict[str, Any] = {}
        async with AsyncManager.connect(shared.addresses, home=shared.home) as grid:
            box = grid.container("async", copies=1)
            await box.put("a", b"four")
            job = grid.submit(operator.mul, 6, 7)
            await job.accepted(WITHIN_S)
            seen["submit"] = await job
            seen["map"] = [n async for n in grid.map(lambda item: item.size, box.ls())]
            seen["starmap"] = [n async for n in grid.starmap(minus, [(3, 1)])]
            seen["filter"] = [n async for n in grid.filter(is_even, range(5))]
            seen["reduce"] = await grid.reduce(operator.add, map(str, range(100)))
            command = await grid.run_command(["sh", "-c", "echo x > y"], outputs=["y"])
            seen["command"] = command.files
            again = await grid.job(job.id)
            seen["again"] = await again
            slow = grid.submit(__import__("time").sleep, 600)
            await slow.accepted(WITHIN_S)
            receipt = await slow.cancel().wait(WITHIN_S)
            seen["left"] = receipt.left
            seen["get"] = await box.get("a")
        return seen

    assert asyncio.run(main()) == {
        "submit": 42,
        "map": [4],
        "starmap": [2],
        "filter": [0, 2, 4],
        "reduce": "".join(map(str, range(100))),
        "command": {"y": b"x\n"},
        "again": 42,
        "left": 0,
        "get": b"four",
    }
