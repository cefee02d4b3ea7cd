"""What a sandbox sees, and the command line that says so."""

import os
import sys
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute.backends import sandbox_view
from alpyne_grid.nodes.compute.backends.bubblewrap import Wiring, advice, command, find_program
from alpyne_grid.nodes.compute.backends.cells import Walls
from alpyne_grid.nodes.compute.backends.sandbox_files import Brought
from alpyne_grid.nodes.compute.backends.sandbox_view import View, make_view
from alpyne_grid.nodes.compute.backends.stage import GROUP, USERS, Stage

WIRING = Wiring(control=11, job=12, info=13, block=14, seccomp=15)
VIEW = View((("/a/python", "/a/python"),), "/a/python/bin/python3", ("/usr/state",), ("m=/alpyne",))
WALLS = Walls(disk_bytes=1 << 20)


@pytest.fixture
def root() -> None:
    """Skip what only root can do."""
    if os.geteuid() != 0:
        pytest.skip("this daemon is not root")


def words(walls: Walls = WALLS, processes: int = 0) -> list[str]:
    """The command line of a cell."""
    return command("/usr/bin/bwrap", VIEW, walls, WIRING, "/state/cells/1", processes)


def after(line: list[str], word: str) -> str:
    """The word that follows the first ``word``."""
    return line[line.index(word) + 1]


def test_command_takes_away_all_that_a_sandbox_must_not_have() -> None:
    line = words()
    for word in (
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net",
        "--die-with-parent", "--new-session", "--as-pid-1",
    ):  # fmt: skip
        assert word in line
    assert (after(line, "--uid"), after(line, "--gid")) == ("65534", "65534")
    assert (after(line, "--cap-drop"), after(line, "--seccomp")) == ("ALL", "15")
    assert line.index("--remount-ro") < line.index("--chdir")


def test_command_binds_nothing_for_writing() -> None:
    assert {"--bind", "--dev-bind", "--bind-try"}.isdisjoint(words())


def test_command_gives_the_network_only_where_the_walls_say_so() -> None:
    assert "--unshare-net" not in words(WALLS._replace(network="host"))
    assert "/etc/resolv.conf" in words(WALLS._replace(network="host"))
    assert "/etc/resolv.conf" not in words()


def test_command_limits_the_scratch_and_what_is_beside_it() -> None:
    line = words(Walls(disk_bytes=256 << 20))
    sizes = {line[at + 3]: int(line[at + 1]) for at, word in enumerate(line) if word == "--size"}
    assert sizes == {"/tmp": 256 << 20, "/dev/shm": 64 << 20}


def test_command_hides_what_lies_in_what_is_shown() -> None:
    line = words()
    at = len(line) - 1 - line[::-1].index("/usr/state")
    assert line[at - 1 : at + 1] == ["--remount-ro", "/usr/state"]


def test_worker_is_told_its_resource_limits() -> None:
    line = words(processes=5)
    at = line.index("/alpyne/worker/boot_sandbox.py")
    assert line[at + 1 : at + 6] == ["6", "4096", str((1 << 20) + 4096), "11", "12"]
    assert line[-1] == "m=/alpyne"


def test_view_has_the_interpreter_and_the_runtime(tmp_path: Path) -> None:
    view = make_view(tmp_path / "etc", tmp_path / "state")
    inside = [place for _, place in view.binds]
    assert {"/alpyne/worker", "/alpyne/alpyne_proto", "/alpyne/msgpack"} <= set(inside)
    assert not any(Path(place).is_relative_to("/tmp") for place in inside)
    assert {"/etc/passwd", "/etc/group"} <= set(inside)
    assert view.python.endswith(Path(sys.executable).name)


def test_view_refuses_an_interpreter_beside_which_the_state_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(OSError, match=r"also holds .*state.*virtual environment"):
        make_view(tmp_path / "etc", tmp_path / "state")


def test_view_refuses_an_interpreter_beside_which_the_home_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(OSError, match=r"also holds .*home"):
        make_view(tmp_path / "etc", Path("/nowhere/state"))


def test_view_hides_a_state_folder_below_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = make_view(tmp_path / "etc", Path("/usr/local/lib/alpyne-state"))
    assert "/usr/local/lib/alpyne-state" in view.hidden


def test_view_shows_a_prefix_below_scratch_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox_view._inside(Path("/tmp/venv"), 3) == "/opt/alpyne/3"
    assert sandbox_view._inside(Path("/opt/python"), 3) == "/opt/python"


@pytest.mark.parametrize(
    ("said", "advised"),
    [
        ("bwrap: No permissions to create new namespace", "max_user_namespaces"),
        ("bwrap: setting up uid map: Permission denied", "apparmor_restrict"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "--level 0"),
        ("", "ended without a word"),
    ],
)
def test_advice_fits_what_bubblewrap_said(said: str, advised: str) -> None:
    assert advised in advice(said)


def test_program_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"bwrap.*apt install bubblewrap"):
        find_program()


def test_file_is_brought_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    brought = Brought(tmp_path / "cell", None)
    file = tmp_path / "program.zip"
    file.write_text("one")
    first = brought.name(file)
    assert brought.name(file) == first
    file.unlink()
    file.write_text("another")
    second = brought.name(file)
    assert second != first
    assert (tmp_path / "cell" / second).read_text() == "another"
    assert (tmp_path / "cell" / first).read_text() == "one"


def test_file_can_be_read_by_the_group_of_another_user(tmp_path: Path, root: None) -> None:
    (tmp_path / "cell").mkdir()
    file = tmp_path / "program"
    file.write_text("text")
    file.chmod(0o600)
    name = Brought(tmp_path / "cell", GROUP).name(file)
    about = (tmp_path / "cell" / name).stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (0, GROUP, 0o440)
    assert about.st_ino == file.stat().st_ino


def test_file_that_is_gone_cannot_be_brought(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Brought(tmp_path, None).name(tmp_path / "gone")


# ---- the stage of a daemon that is root ----


def test_stage_shows_to_others_what_lies_in_roots_folders(tmp_path: Path, root: None) -> None:
    import subprocess

    closed = tmp_path / "closed"
    (closed / "shown").mkdir(parents=True)
    (closed / "shown" / "file").write_text("text")
    (closed / "hidden").write_text("secret")
    closed.chmod(0o700)
    stage = Stage([str(closed / "shown")])
    try:
        place = stage.place(str(closed / "shown" / "file"))
        line = [*stage.entering(USERS), "cat", place, str(closed / "hidden")]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        who = subprocess.run([*stage.entering(USERS), "id", "-u"], capture_output=True, check=True)
    finally:
        stage.close()
    assert done.stdout == "text"
    assert "Permission denied" in done.stderr
    assert int(who.stdout) == USERS
    assert not Path(place).exists()  # in the stage only


def test_stage_says_why_it_cannot_be_made(tmp_path: Path, root: None) -> None:
    with pytest.raises(OSError, match="run it as an ordinary user"):
        Stage([str(tmp_path / "gone" / "twice")])


def test_stage_says_which_program_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"unshare.*util-linux"):
        Stage([])
