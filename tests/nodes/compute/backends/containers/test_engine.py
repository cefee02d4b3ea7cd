"""What is said where the engine cannot be used; no engine is needed for that."""

import errno
import getpass
import grp
import os
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute.backends.containers import engine, link
from alpyne_grid.nodes.compute.backends.containers.link import LauncherLink


def refused(path: Path, number: int) -> str:
    return engine.remedy(path, OSError(number, os.strerror(number)))


def test_user_is_told_the_group_of_the_socket_when_permission_is_denied(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    path.touch()
    group = grp.getgrgid(path.stat().st_gid).gr_name
    said = refused(path, errno.EACCES)
    assert f"it belongs to the group {group}" in said
    assert f"usermod -aG {group} {getpass.getuser()}" in said
    assert "new session" in said


def test_user_is_told_that_permission_is_denied_when_the_socket_cannot_be_seen(
    tmp_path: Path,
) -> None:
    said = refused(tmp_path / "hidden" / "docker.sock", errno.EACCES)
    assert said == f"permission denied; let user {getpass.getuser()} write to it"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOENT, "install Docker Engine and start it"),
        (errno.ECONNREFUSED, "systemctl start docker"),
        (errno.EPROTOTYPE, "expected the unix socket of a Docker Engine"),
    ],
)
def test_user_is_told_what_to_do(tmp_path: Path, number: int, text: str) -> None:
    assert text in refused(tmp_path, number)


async def test_user_is_told_to_install_the_package_when_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "find_spec", lambda name: None)
    started = LauncherLink(lambda name: None, lambda: None)
    with pytest.raises(OSError, match=r"pip install 'alpyne-grid\[docker\]'"):
        await started.start()
    assert started.pid == 0
