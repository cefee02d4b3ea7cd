"""The state folder: one daemon, one identity, a rising generation."""

import os
import stat
from pathlib import Path

import pytest
from alpyne_grid.nodes.errors import StateError
from alpyne_grid.nodes.state import StateFolder

from alpyne_grid.durable import write_durably
from alpyne_proto.errors import KeyFileError


def test_folder_keeps_identity_and_store_id_and_counts_starts(tmp_path: Path) -> None:
    first = StateFolder(tmp_path / "node")
    first.close()
    second = StateFolder(tmp_path / "node")
    second.close()
    assert second.identity.noise_public == first.identity.noise_public
    assert second.store_id == first.store_id
    assert (first.generation, second.generation) == (1, 2)


def test_folder_and_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "node", mode=0o755)
    StateFolder(tmp_path / "node").close()
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "node" / "identity").stat().st_mode) == 0o600


def test_folder_refuses_a_second_daemon_until_the_first_has_closed(tmp_path: Path) -> None:
    first = StateFolder(tmp_path)
    with pytest.raises(StateError, match="another daemon runs on it"):
        StateFolder(tmp_path)
    with pytest.raises(StateError, match="another daemon runs on it"):
        StateFolder.check(tmp_path)
    first.close()
    StateFolder(tmp_path).close()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("store-id", "zz", StateError),
        ("generation", "-1", StateError),
        ("generation", "9" * 30, StateError),
        ("identity", "damaged", KeyFileError),
    ],
)
def test_folder_names_the_damaged_file(
    tmp_path: Path, name: str, content: str, error: type[Exception]
) -> None:
    StateFolder(tmp_path).close()
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=name):
        StateFolder(tmp_path)
    with pytest.raises(error):  # and the failed try holds no lock
        StateFolder(tmp_path)


@pytest.mark.parametrize("content", ["", "x", "-1", "65536", "123456", "9" * 5000])
def test_folder_forgets_a_port_that_cannot_be_one(tmp_path: Path, content: str) -> None:
    with_port = StateFolder(tmp_path)
    with_port.last_port = 7301
    assert with_port.last_port == 7301
    (tmp_path / "port").write_text(content)
    assert with_port.last_port == 0
    with_port.close()


def test_folder_is_refused_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be made"):
        StateFolder(tmp_path / "file")


def test_write_leaves_the_old_content_and_no_scraps_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_durably(tmp_path / "x", b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_durably(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]
