"""The command `alpyne` as a whole: help, exit codes, errors without tracebacks, what it loads."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alpyne_grid.tools.cli import main
from alpyne_grid.tools.commands.root import COMMANDS
from alpyne_grid.tools.exit_codes import ExitCode

Captured = pytest.CaptureFixture[str]
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
NOBODY = f"alpyne://127.0.0.1:1#{KEY}"  # nobody listens on port 1


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test a home folder of its own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ALPYNE_HOME", str(folder))
    yield folder


def write_pool(home: Path) -> None:
    home.mkdir(exist_ok=True)
    node = {"address": NOBODY, "kind": "compute", "trusted": True, "label": "h", "name": "gone"}
    (home / "pool.json").write_text(json.dumps({"version": 1, "nodes": [node]}))


def modules_after(arguments: str) -> set[str]:
    """Return the modules that are loaded once `alpyne` with these arguments has ended."""
    code = (
        "import sys, json\nfrom alpyne_grid.tools.cli import main\n"
        f"try: main({arguments!r}.split())\nexcept SystemExit: pass\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_names_every_command_and_exit_code(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert all(f"{code.value:>4}  {code.meaning}" in out for code in ExitCode)


def test_help_loads_neither_the_manager_nor_what_is_slow() -> None:
    slow = {"asyncio", "rich", "cryptography", "cloudpickle", "alpyne_grid.manager", "psutil"}
    assert slow & modules_after("--help") == set()


def test_node_is_handed_on_before_the_command_line_is_loaded() -> None:
    loaded = modules_after("node compute --help")
    assert {"click", "rich", "alpyne_grid.manager", "cloudpickle"} & loaded == set()
    assert "alpyne_grid.nodes.daemon" in loaded


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "node"])
def test_command_explains_itself(name: str, capsys: Captured) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: alpyne {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        "frobnicate",
        "pair",
        "pair --name x alpyne://a:1 alpyne://b:1",
        "jobs --state asleep",
        "invite gone --life soon",
        "revoke somebody",
        "revoke somebody --pool --node x",
        "device add laptop",
        "keygen --ssh k --passphrase",
        "nodes --forget",
    ],
)
def test_wrong_usage_ends_in_2_and_says_how_to_get_help(arguments: str, capsys: Captured) -> None:
    assert main(arguments.split()) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "--help" in err
    assert "Error: " in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (f"pair {NOBODY}", ExitCode.UNREACHABLE, "no connection"),
        ("pair alpyne://127.0.0.1", ExitCode.USAGE, "expected alpyne://host:port#key"),
        ("pair --address-file none --wait 0s", ExitCode.UNREACHABLE, "has the node started"),
        ("pair --address-file /", ExitCode.USAGE, "Is a directory"),
        ("nodes", ExitCode.UNREACHABLE, "gone: "),
        ("nodes other", ExitCode.NOT_FOUND, "no node named 'other'"),
        ("invite gone", ExitCode.UNREACHABLE, "no connection"),
        ("accounts gone", ExitCode.UNREACHABLE, "gone: "),
        ("revoke SHA256:AAAAAAAA --pool", ExitCode.UNREACHABLE, "not revoked at gone"),
        ("revoke none.pub --pool", ExitCode.USAGE, "none.pub"),
        ("jobs", ExitCode.UNREACHABLE, "gone: "),
        ("device revoke phone", ExitCode.NOT_FOUND, "alpyne device list"),
    ],
)
def test_failure_is_one_line_and_an_exit_code(
    arguments: str, code: ExitCode, said: str, home: Path, capsys: Captured
) -> None:
    write_pool(home)
    assert main(arguments.split()) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_unknown_command_is_answered_with_the_nearest(capsys: Captured) -> None:
    assert main(["pairr", "x"]) == ExitCode.USAGE
    assert "did you mean `alpyne pair`?" in capsys.readouterr().err


def test_nodes_says_what_to_do_when_the_pool_is_empty(capsys: Captured) -> None:
    assert main(["nodes"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "alpyne pair ADDRESS" in captured.err


def test_nodes_lists_unreachable_nodes_as_json(home: Path, capsys: Captured) -> None:
    write_pool(home)
    assert main(["nodes", "--json"]) == ExitCode.UNREACHABLE
    [node] = json.loads(capsys.readouterr().out)
    assert (node["node"], node["health"], node["reachable"]) == ("gone", "unreachable", False)


def test_nodes_forgets_a_node(home: Path, capsys: Captured) -> None:
    write_pool(home)
    assert main(["nodes", "--forget", "gone"]) == 0
    assert json.loads((home / "pool.json").read_text())["nodes"] == []


def test_output_that_nobody_reads_ends_quietly() -> None:
    command = f"{sys.executable} -m alpyne_grid --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
