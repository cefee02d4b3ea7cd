"""Folders that jobs leave are removed, however they are made."""

import os
from pathlib import Path

from alpyne_grid.nodes.compute.worker.removal import remove_tree


def test_removal_takes_folders_deeper_than_any_path(tmp_path: Path) -> None:
    top, here = tmp_path / "top", os.getcwd()
    top.mkdir()
    os.chdir(top)
    try:
        for _ in range(1500):
            os.mkdir("deep-folder")
            os.chdir("deep-folder")
        Path("file").write_text("left")
    finally:
        os.chdir(here)
    remove_tree(str(top))
    assert list(tmp_path.iterdir()) == []


def test_removal_opens_closed_folders(tmp_path: Path) -> None:
    inner = tmp_path / "top" / "closed"
    inner.mkdir(parents=True)
    (inner / "file").write_text("left")
    inner.chmod(0)
    inner.parent.chmod(0)
    remove_tree(str(inner.parent))
    assert list(tmp_path.iterdir()) == []


def test_removal_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "top" / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "top" / "fifo")
    remove_tree(str(tmp_path / "top"))
    assert (tmp_path / "kept" / "file").read_text() == "kept"
    assert not (tmp_path / "top").exists()


def test_removal_of_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "nothing"))
