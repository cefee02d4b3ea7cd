"""The command line against real daemons: what the page's session does not show."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from alpyne_grid.manager.identity import load_identity
from alpyne_grid.tools.cli import main
from alpyne_grid.tools.cluster import LocalCluster
from alpyne_grid.tools.exit_codes import ExitCode

pytestmark = pytest.mark.integration

Captured = pytest.CaptureFixture[str]
Binary = pytest.CaptureFixture[bytes]
PROGRAM = "def main(*words):\n    print('got', *words)\n    return {'words': list(words)}\n"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One compute node and one data node, paired."""
    folder = tmp_path_factory.mktemp("cli")
    with LocalCluster(folder, load_identity) as cluster:
        nodes = [cluster.add("compute", "--slots", "2"), cluster.add("data")]
        cluster.start_all(nodes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALPYNE_HOME", str(cluster.home))
            assert main(["pair", nodes[0].address, "--name", "worker"]) == 0
            assert main(["pair", nodes[1].address, "--name", "disk"]) == 0
        yield cluster


@pytest.fixture(autouse=True)
def at_home(grid: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as the cluster's owner, in an empty folder."""
    monkeypatch.setenv("ALPYNE_HOME", str(grid.home))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)


@pytest.fixture
def alpyne(capfd: Captured) -> Callable[..., tuple[int, str, str]]:
    """Runs a command, and returns its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(list(arguments))
        captured = capfd.readouterr()
        assert "Traceback (most recent" not in captured.err or "on the node" in captured.err
        return code, captured.out, captured.err

    return run


Alpyne = Callable[..., tuple[int, str, str]]


def marked_processes(mark: str) -> list[int]:
    """Return the ids of processes whose command line holds ``mark``."""
    every = psutil.process_iter(["cmdline"])
    return [one.pid for one in every if mark in " ".join(one.info["cmdline"] or [])]


def test_nodes_shows_score_load_slots_and_health(alpyne: Alpyne) -> None:
    code, out, _ = alpyne("nodes")
    titles, *lines = (line.split() for line in out.splitlines())
    assert code == 0
    assert titles[:7] == ["NODE", "KIND", "HEALTH", "SCORE", "SLOTS", "QUEUED", "LOAD"]
    worker, disk = lines
    assert worker[:3] == ["worker", "compute", "well"]
    assert float(worker[3].lstrip("~")) > 0
    assert worker[4:6] == ["0/2", "0"]
    assert float(worker[6]) >= 0
    assert disk[:3] == ["disk", "data", "well"]
    rows = {row["node"]: row for row in json.loads(alpyne("nodes", "--json")[1])}
    assert (rows["worker"]["slots"], rows["worker"]["busy_slots"]) == (2, 0)


def test_run_gives_all_words_behind_the_file_to_main(alpyne: Alpyne) -> None:
    code, out, _ = alpyne("run", "program.py", "--seed", "7", "--json")
    assert (code, out) == (0, "got --seed 7 --json\n{'words': ['--seed', '7', '--json']}\n")


def test_run_reads_literals_when_asked(alpyne: Alpyne) -> None:
    code, out, _ = alpyne("run", "--literal", "--json", "program.py", "7", "[1, 2]", "x")
    assert (code, json.loads(out)["result"]) == (0, {"words": [7, [1, 2], "x"]})


def test_run_sends_modules_from_the_files_folder(alpyne: Alpyne, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("from deeper.inner import VALUE\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "__init__.py").write_text("")
    (tmp_path / "deeper" / "inner.py").write_text("VALUE = 41\n")
    (tmp_path / "uses.py").write_text("import helper\ndef main():\n    return helper.VALUE + 1\n")
    assert alpyne("run", "uses.py")[:2] == (0, "42\n")


def test_run_keeps_output_and_errors_apart(alpyne: Alpyne) -> None:
    code, out, err = alpyne("run", "--", "sh", "-c", "echo good; echo bad >&2")
    assert (code, out, err) == (0, "good\n", "bad\n")


def test_run_shows_the_remote_traceback_when_the_program_raises(
    alpyne: Alpyne, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text("def main():\n    return 1 / 0\n")
    code, out, err = alpyne("run", "bad.py")
    assert (code, out) == (ExitCode.FAILED, "")
    assert "ZeroDivisionError" in err
    assert 'File "bad.py", line 2, in main' in err


def test_run_says_what_is_no_program(alpyne: Alpyne, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    code, _, err = alpyne("run", "empty.py")
    assert code == ExitCode.FAILED
    assert "main" in err


@pytest.mark.parametrize(
    ("option", "limit", "script", "state"),
    [("--timeout", "300ms", "sleep 9", "TIMEOUT"), ("--output-limit", "1000", "yes", "LIMIT")],
)
def test_run_names_the_limit_that_ended_a_job(
    option: str, limit: str, script: str, state: str, alpyne: Alpyne
) -> None:
    code, out, _ = alpyne("run", "--json", option, limit, "--", "sh", "-c", script)
    assert (code, json.loads(out)["state"]) == (ExitCode.FAILED, state)


def test_run_says_why_no_node_fits(alpyne: Alpyne) -> None:
    code, _, err = alpyne("run", "--require", "os=plan9", "program.py")
    assert code == ExitCode.FAILED
    assert "plan9" in err
    assert "alpyne nodes" in err


def test_run_brings_files_back_into_a_folder(alpyne: Alpyne, tmp_path: Path) -> None:
    script = "mkdir out && cp in.txt out/copy.txt && echo no > ignored"
    (tmp_path / "text").write_text("hello")
    wanted = ["--input", "in.txt=text", "--output", "out/*", "--into", "back"]
    code, _, err = alpyne("run", *wanted, "--env", "A=b", "--", "sh", "-c", script)
    assert (code, err) == (0, "written: back/out/copy.txt\n")
    assert (tmp_path / "back/out/copy.txt").read_text() == "hello"


def test_run_ends_the_job_when_interrupted(grid: LocalCluster) -> None:
    mark = f"alpyne-interrupt-{os.getpid()}"
    command = [sys.executable, "-m", "alpyne_grid", "run", "--", "sh", "-c"]
    running = subprocess.Popen(
        [*command, f"echo started; sleep 300; : {mark}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "started\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert running.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in err
    assert [
        p for p in psutil.process_iter(["cmdline"]) if mark in " ".join(p.info["cmdline"] or [])
    ] == []


def test_output_follows_a_running_job_line_by_line(alpyne: Alpyne, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo one; while [ ! -e {gate} ]; do sleep 0.05; done; echo two"
    _, job, _ = alpyne("run", "--detach", "--", "sh", "-c", script)
    following = subprocess.Popen(
        [sys.executable, "-m", "alpyne_grid", "output", "-f", job.strip()],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert following.stdout.readline() == "one\n"  # while the job runs
    gate.touch()
    assert following.communicate(timeout=20)[0] == "two\n"
    assert following.returncode == 0


def test_detached_job_waits_to_be_fetched(alpyne: Alpyne) -> None:
    _, job, _ = alpyne("run", "--detach", "--tag", "kept", "program.py", "a")
    deadline = time.monotonic() + 10
    listed = []
    while time.monotonic() < deadline and [row["state"] for row in listed] != ["DONE"]:
        listed = json.loads(alpyne("jobs", "--tag", "kept", "--json")[1])
    assert [(row["id"], row["delivered"]) for row in listed] == [(job.strip(), False)]
    assert alpyne("output", job.strip())[1] == "got a\n"
    assert alpyne("wait", job.strip())[:2] == (0, "{'words': ['a']}\n")
    assert json.loads(alpyne("jobs", "--tag", "kept", "--json")[1]) == []
    assert len(json.loads(alpyne("jobs", "--all", "--tag", "kept", "--json")[1])) == 1


def test_wait_goes_on_to_the_end_of_several_jobs_when_one_fails(alpyne: Alpyne) -> None:
    alpyne("run", "--detach", "--tag", "mixed", "--", "false")
    alpyne("run", "--detach", "--tag", "mixed", "program.py")
    code, out, err = alpyne("wait", "--tag", "mixed")
    assert (code, out) == (ExitCode.FAILED, "{'words': []}\n")
    assert "ended with status 1" in err


def test_wait_leaves_a_job_running_when_its_time_is_over(alpyne: Alpyne) -> None:
    _, job, _ = alpyne("run", "--detach", "--", "sleep", "60")
    code, _, err = alpyne("wait", job.strip(), "--timeout", "200ms")
    assert code == ExitCode.TIMEOUT
    assert "goes on" in err
    code, out, _ = alpyne("cancel", "--json", job.strip())
    [end] = json.loads(out)
    assert (code, end["state"], end["processes_left"]) == (0, "KILLED", 0)
    assert end["processes_ended"] >= 1
    assert alpyne("cancel", job.strip())[0] == 0  # once more does no harm


def test_output_without_follow_leaves_a_running_job_at_once(alpyne: Alpyne) -> None:
    _, job, _ = alpyne("run", "--detach", "--", "sh", "-c", "echo one; sleep 60")
    out = ""
    deadline = time.monotonic() + 10
    while not out and time.monotonic() < deadline:
        out = alpyne("output", job.strip())[1]
    assert out == "one\n"
    assert alpyne("cancel", job.strip())[0] == 0


def test_suspend_and_resume_say_how_each_job_stands(alpyne: Alpyne) -> None:
    for _ in range(2):
        alpyne("run", "--detach", "--tag", "paused", "--", "sleep", "60")
    code, out, _ = alpyne("suspend", "--tag", "paused", "--json")
    ends = json.loads(out)
    assert (code, [end["state"] for end in ends]) == (0, ["SUSPENDED"] * 2)
    assert {end["node"] for end in ends} == {"worker"}
    listed = json.loads(alpyne("jobs", "--state", "suspended", "--json")[1])
    assert {row["id"] for row in listed} == {end["id"] for end in ends}
    code, out, _ = alpyne("resume", ends[0]["id"])
    assert (code, out.split()) == (0, [ends[0]["id"], "running"])
    code, out, _ = alpyne("cancel", "--tag", "paused", "--json")
    assert [end["state"] for end in json.loads(out)] == ["KILLED"] * 2
    code, out, _ = alpyne("suspend", ends[0]["id"])
    assert (code, out.split()) == (0, [ends[0]["id"], "killed"])  # it stays as it is


def test_suspended_job_that_waits_is_said_to_wait(alpyne: Alpyne) -> None:
    for _ in range(2):  # as many as there are slots
        alpyne("run", "--detach", "--tag", "full", "--", "sleep", "60")
    _, job, _ = alpyne("run", "--detach", "--tag", "full", "--", "true")
    code, out, _ = alpyne("suspend", job.strip())
    assert code == 0
    assert "queued: is suspended as soon as it runs" in out
    assert alpyne("cancel", "--tag", "full")[0] == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--processes", "9"), "worker: does not enforce a limit on processes"),
        (("--disk", "1MiB"), "worker: does not enforce a limit on disk"),
        (("--network", "lan"), "worker: does not list the network 'lan' for jobs (networks: none)"),
        (("--image", "big"), "worker: does not list the image 'big' for jobs (images: none)"),
    ],
)
def test_run_says_of_each_node_why_it_does_not_fit(
    options: tuple[str, ...], why: str, alpyne: Alpyne
) -> None:
    code, _, err = alpyne("run", *options, "--", "true")
    assert code == ExitCode.FAILED
    assert why in err


def test_nodes_tell_their_level_back_end_and_limits(alpyne: Alpyne) -> None:
    compute, data = json.loads(alpyne("nodes", "--json")[1])
    assert (compute["backend"], compute["isolation"], compute["suspend"]) == (
        "process",
        0,
        "signals",
    )
    assert (compute["limits"]["memory"], compute["limits"]["disk"]) == ("sampled", "none")
    assert data["isolation"] is None


def test_usage_of_a_job_tells_disk_traffic_and_whose_peak_it_is(alpyne: Alpyne) -> None:
    end = json.loads(alpyne("run", "--json", "program.py")[1])
    assert {"disk_read_bytes", "disk_written_bytes", "peak_is_shared"} <= set(end["usage"])
    assert end["usage"]["peak_memory_bytes"] > 0


@pytest.mark.parametrize("command", ["output", "wait", "cancel", "suspend", "resume"])
@pytest.mark.parametrize("job", ["ffffffffffff", "0123456789abcdef-1"])  # journals draw their ids
def test_unknown_job_ends_in_5(command: str, job: str, alpyne: Alpyne) -> None:
    assert alpyne(command, job)[0] == ExitCode.NOT_FOUND


def test_untrusted_node_gives_plain_values_only(grid: LocalCluster, alpyne: Alpyne) -> None:
    address = grid.addresses[0]
    assert alpyne("pair", address, "--untrusted")[0] == 0
    try:
        assert alpyne("run", "program.py", "x")[1].endswith("{'words': ['x']}\n")
        Path("odd.py").write_text("def main():\n    return object()\n")
        code, _, err = alpyne("run", "odd.py")
        assert code == ExitCode.FAILED
        assert "plain" in err
    finally:
        assert alpyne("pair", address)[0] == 0


def test_put_and_get_pass_through_pipes(alpyne: Alpyne, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "data").write_bytes(data)
    shell = f"{sys.executable} -m alpyne_grid"
    piped = f"{shell} put - pipes:data < data && {shell} get pipes:data - > back"
    subprocess.run(["bash", "-c", piped], check=True, capture_output=True)
    assert (tmp_path / "back").read_bytes() == data


def test_put_refuses_to_replace_when_asked(alpyne: Alpyne) -> None:
    assert alpyne("put", "program.py", "once:a")[0] == 0
    code, _, err = alpyne("put", "--if-absent", "program.py", "once:a")
    assert code == ExitCode.CONFLICT
    assert "version 1" in err


@pytest.mark.parametrize(
    "place", ["things:../up", "things:/absolute", "things:a//b", "things:\x01"]
)
def test_put_refuses_a_path_that_is_none(place: str, alpyne: Alpyne) -> None:
    assert alpyne("put", "program.py", place)[0] == ExitCode.USAGE


def test_objects_are_listed_read_and_deleted(alpyne: Alpyne, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.py", "deep/c.txt"):
        (tmp_path / "tree" / name).write_text(name)
    assert alpyne("put", "tree", "box:")[0] == 0
    assert json.loads(alpyne("put", "tree", "box:", "--json")[1])[0]["unchanged"] == 3
    assert alpyne("ls", "box:**/*.txt")[1] == "a.txt\ndeep/c.txt\n"
    [row] = json.loads(alpyne("ls", "box:b", "--json")[1])
    assert (row["path"], row["size_bytes"], row["copies"]) == ("b.py", 4, 1)
    assert alpyne("get", "box:deep/c.txt")[0] == 0
    assert (tmp_path / "c.txt").read_text() == "deep/c.txt"
    assert alpyne("get", "box:", "all")[0] == 0
    assert (tmp_path / "all/deep/c.txt").read_text() == "deep/c.txt"
    code, _, err = alpyne("get", "box:deep")
    assert (code, "box:deep/" in err) == (ExitCode.NOT_FOUND, True)
    assert alpyne("rm", "box:deep/")[0] == ExitCode.USAGE
    assert json.loads(alpyne("rm", "-r", "box:deep/", "--json")[1]) == ["box:deep/c.txt"]
    assert alpyne("rm", "box:deep/c.txt")[0] == ExitCode.NOT_FOUND
    assert alpyne("rm", "--force", "box:deep/c.txt")[0] == 0
    assert alpyne("ls", "box:")[1] == "a.txt\nb.py\n"


@pytest.mark.parametrize("command", [["ls", "nobox:"], ["get", "nobox:a"], ["rm", "nobox:a"]])
def test_looking_into_a_container_does_not_make_it(command: list[str], alpyne: Alpyne) -> None:
    assert alpyne(*command)[0] == ExitCode.NOT_FOUND
    assert "nobox" not in alpyne("ls")[1]


def test_revoke_names_the_nodes_that_it_could_not_reach(
    grid: LocalCluster, alpyne: Alpyne, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = alpyne("invite", "disk", "--quiet")[1].strip()
    friend = tmp_path / "friend"
    monkeypatch.setenv("ALPYNE_HOME", str(friend))
    assert alpyne("pair", grid.addresses[1])[0] == ExitCode.NOT_PERMITTED
    assert alpyne("pair", grid.addresses[1], "--invitation", "abc")[0] == ExitCode.USAGE
    assert alpyne("pair", grid.addresses[1], "--invitation", code)[0] == 0
    assert alpyne("accounts", "127.0.0.1:" + grid.addresses[1].split(":")[2].split("#")[0])[0] == (
        ExitCode.NOT_PERMITTED
    )
    monkeypatch.setenv("ALPYNE_HOME", str(grid.home))
    grid.daemons[0].stop()
    try:
        code_, out, err = alpyne("revoke", str(friend / "account.pub"), "--pool")
    finally:
        grid.daemons[0].start()
    assert code_ == ExitCode.PARTLY
    assert "disk    revoked" in out
    assert "not revoked at worker" in err
    monkeypatch.setenv("ALPYNE_HOME", str(friend))
    code_, out, _ = alpyne("nodes")
    assert code_ == ExitCode.NOT_PERMITTED
    assert "revoked" in out


def test_revoked_device_is_refused_at_once(
    grid: LocalCluster, alpyne: Alpyne, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert alpyne("device", "add", "phone", "--out", str(tmp_path / "phone"))[0] == 0
    monkeypatch.setenv("ALPYNE_HOME", str(tmp_path / "phone"))
    assert alpyne("nodes")[0] == 0
    monkeypatch.setenv("ALPYNE_HOME", str(grid.home))
    assert alpyne("device", "revoke", "phone")[0] == 0
    monkeypatch.setenv("ALPYNE_HOME", str(tmp_path / "phone"))
    assert alpyne("nodes")[0] == ExitCode.NOT_PERMITTED


def test_first_node_makes_its_users_account(tmp_path: Path) -> None:
    home = tmp_path / "new-home"
    node = subprocess.Popen(
        [sys.executable, "-m", "alpyne_grid", "node", "data", "--state", str(tmp_path / "node")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "ALPYNE_HOME": str(home)},
        text=True,
    )
    assert node.stdout is not None and node.stderr is not None
    assert node.stdout.readline().startswith("alpyne data node ready alpyne://127.0.0.1:")
    assert (home / "account.pub").exists()
    loaded = Path(f"/proc/{node.pid}/maps").read_text()
    node.terminate()
    _, err = node.communicate(timeout=10)
    assert node.returncode == 0
    assert "there is no account yet" in err
    assert "cloudpickle" not in loaded
