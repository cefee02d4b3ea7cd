"""The examples, run as a user runs them: scripts in their own process, on several real daemons."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster

EXAMPLES = Path(__file__).parents[2] / "examples"
PI_100 = (
    "3.1415926535897932384626433832795028841971693993751"
    "05820974944592307816406286208998628034825342117067"
)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pair(cluster: LocalCluster) -> dict[str, str]:
    """Take all daemons into the pool of the cluster's account; return the environment for that."""
    environment = {**os.environ, "ALPYNE_HOME": str(cluster.home)}
    for daemon in cluster.daemons:
        subprocess.run(
            [sys.executable, "-m", "alpyne_grid", "pair", daemon.address],
            env=environment,
            check=True,
            capture_output=True,
        )
    return environment


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two compute nodes and two data nodes under two host labels; runs Python on them."""
    folder = tmp_path_factory.mktemp("grid")
    with LocalCluster(folder / "cluster", create_account) as cluster:
        daemons = []
        for label in ("east", "west"):
            daemons.append(cluster.add("compute", "--slots", "1", "--host-label", label))
            daemons.append(cluster.add("data", "--host-label", label))
        cluster.start_all(daemons)
        environment = pair(cluster)

        def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [sys.executable, *map(str, arguments)],
                env=environment,
                cwd=folder,
                check=False,
                capture_output=True,
                text=True,
                timeout=90,
            )

        yield run


def test_pi_comes_from_independent_units_and_a_failing_one_disturbs_none(grid: Run) -> None:
    done = grid(EXAMPLES / "pi_digits.py", "4")
    assert done.returncode == 0, done.stderr
    digits = done.stdout.strip()
    assert len(digits) == 2 + 200
    assert digits.startswith(PI_100)
    lines = done.stderr.splitlines()
    assert sum(line.endswith(" finished") for line in lines) == 4
    failed = [line for line in lines if " failed: " in line]
    assert len(failed) == 1
    assert "ZeroDivisionError" in failed[0]


def test_pi_is_the_same_on_one_node(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, create_account) as cluster:
        cluster.start("compute", "--slots", "1")
        done = subprocess.run(
            [sys.executable, EXAMPLES / "pi_digits.py", "2"],
            env=pair(cluster),
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
        )
    assert done.stdout.startswith(PI_100[:100]), done.stderr
    assert len({line.split(" on ")[1].split()[0] for line in done.stderr.splitlines()}) == 1


def test_recursive_fibonacci_ships_from_the_script(grid: Run) -> None:
    done = grid(EXAMPLES / "fibonacci.py", "15")
    assert done.stdout.splitlines()[-1] == "fibonacci(15) = 610", done.stderr


def test_functions_of_a_second_module_beside_the_script_travel(grid: Run) -> None:
    done = grid(EXAMPLES / "two_modules" / "areas.py")
    assert done.stdout.splitlines() == [
        "3.1416",
        "12.5664",
        "28.2743",
        "hexagon: 6 corners",
        "square: 4 corners",
        "triangle: 3 corners",
    ], done.stderr


def test_program_runs_with_arguments_and_prints_what_it_returns(grid: Run) -> None:
    done = grid("-m", "alpyne_grid", "run", EXAMPLES / "primes_program.py", "10", "30")
    assert done.returncode == 0, done.stderr
    assert "6 primes from 10 to 30" in done.stdout
    assert "[11, 13, 17, 19, 23, 29]" in done.stdout


def test_program_without_main_is_refused_with_what_to_do(grid: Run) -> None:
    done = grid("-m", "alpyne_grid", "run", EXAMPLES / "no_main.py")
    assert done.returncode == 1
    assert "bad program format: no_main.py has no function main" in done.stderr
    assert "Traceback" not in done.stderr


def test_work_runs_beside_its_data(grid: Run) -> None:
    done = grid(EXAMPLES / "parity.py")
    assert done.returncode == 0, done.stderr
    crossed = re.findall(r"(\d+) bytes between host labels", done.stdout)
    assert crossed == ["0", "0"]
    assert "host label east, beside the larger set under east" in done.stdout


def test_seven_files_over_five_nodes_are_each_handled_once(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, create_account) as cluster:
        nodes = [cluster.add("compute", "--slots", "1") for _ in range(5)]
        cluster.start_all([*nodes, cluster.add("data")])
        environment = pair(cluster)
        done = subprocess.run(
            [sys.executable, EXAMPLES / "seven_files.py"],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        names = re.findall(r"^(file-\d)\.txt: \d+ words", done.stdout, flags=re.M)
        assert names == [f"file-{n}" for n in range(1, 8)]
        assert "words: 2800" in done.stdout
        assert "in order: 1234567" in done.stdout
        listed = subprocess.run(
            [sys.executable, "-m", "alpyne_grid", "jobs", "--all", "--json"],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert listed.stdout.count('"count_words"') == 7, listed.stdout


def test_reduce_of_a_thousand_parts_gives_one_value_in_order(grid: Run, tmp_path: Path) -> None:
    script = tmp_path / "concatenate.py"
    script.write_text(
        "import operator\n"
        "from alpyne_grid.manager import Manager\n"
        "with Manager.connect() as grid:\n"
        "    print(grid.reduce(operator.add, [f'{n},' for n in range(1000)]))\n"
    )
    done = grid(script)
    assert done.stdout.strip() == "".join(f"{n}," for n in range(1000)), done.stderr


def test_concurrent_puts_into_one_container_lose_none(grid: Run, tmp_path: Path) -> None:
    script = tmp_path / "puts.py"
    script.write_text(
        "import sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from alpyne_grid.manager import Manager\n"
        "with Manager.connect() as grid, ThreadPoolExecutor(8) as pool:\n"
        "    box = grid.container('box', copies=2)\n"
        "    put = lambda n: box.put(f'{sys.argv[1]}/{n}', b'x' * n)\n"
        "    list(pool.map(put, range(50)))\n"
        "    list(pool.map(lambda n: box.put('same', b'%d' % n), range(20)))\n"
        "    assert box.get('same').isdigit()\n"
    )
    with ThreadPoolExecutor(2) as pool:  # two managers at once, eight puts each
        for done in pool.map(lambda name: grid(script, name), ("a", "b")):
            assert done.returncode == 0, done.stderr
    listed = grid("-m", "alpyne_grid", "ls", "--json", "box")
    assert listed.stdout.count('"path"') == 101, listed.stderr
