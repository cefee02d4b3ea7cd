"""Folders: what leaves them is refused, links are never followed, files appear whole or not."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager import trees
from alpyne_grid.manager.errors import UnsafePath
from alpyne_grid.manager.safe_files import Place
from alpyne_grid.manager.trees import pull_tree, push_tree

from alpyne_proto.jobobject import JobObject


class FakeContainer:
    """Objects in memory, with as much of a container as folders need."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = dict(objects)
        self.puts: list[str] = []
        self.fails = False

    def item(self, path: str) -> JobObject:
        data = self.objects[path]
        return JobObject(b"c" * 16, path, 1, b"w" * 16, len(data), hashlib.sha256(data).digest())

    async def ls(self, prefix: str = "") -> AsyncIterator[JobObject]:
        for path in sorted(self.objects):
            if path.startswith(prefix):
                yield self.item(path)

    glob = ls

    async def put(self, path: str, file: Path) -> JobObject:
        self.puts.append(path)
        self.objects[path] = file.read_bytes()
        return self.item(path)

    async def pull_to(self, item: JobObject, place: Place) -> None:
        temporary = place.temporary()
        try:
            with open(temporary.open_empty(), "wb") as file:
                file.write(self.objects[item.path])
                if self.fails:
                    raise OSError("the network is gone")
            temporary.publish()
        finally:
            temporary.discard()


def pull(container: Any, folder: Path, **how: Any) -> trees.Transfer:
    return asyncio.run(pull_tree(container, folder, **how))


def push(container: Any, folder: Path, **how: Any) -> trees.Transfer:
    return asyncio.run(push_tree(container, folder, **how))


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_pull_tree_writes_every_object_below_its_folder(tmp_path: Path) -> None:
    objects = {"a": b"1", "d/b": b"2", "d/e/c": b""}
    done = pull(FakeContainer(objects), tmp_path / "new")
    assert files_below(tmp_path / "new") == objects
    assert (done.files, done.size_bytes, done.total) == (3, 2, 3)


def test_pull_tree_takes_the_prefix_off(tmp_path: Path) -> None:
    pull(FakeContainer({"in/a": b"1", "out/b": b"2"}), tmp_path, prefix="in/")
    assert files_below(tmp_path) == {"a": b"1"}


def test_pull_tree_leaves_files_that_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    before = (tmp_path / "a").stat().st_ino
    done = pull(FakeContainer({"a": b"1"}), tmp_path)
    assert (done.files, done.unchanged) == (0, 1)
    assert (tmp_path / "a").stat().st_ino == before


@pytest.mark.parametrize(
    "path", ["../out", "a/../../out", "/etc/out", "a//b", "./a", "..", "a\x00b", "x" * 5000]
)
def test_pull_tree_refuses_a_path_that_is_none(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "in" / "folder"
    with pytest.raises(UnsafePath):
        pull(FakeContainer({path: b"x"}), folder)
    assert files_below(tmp_path) == {}


def test_pull_tree_follows_no_link_to_a_folder(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    with pytest.raises(UnsafePath, match="link"):
        pull(FakeContainer({"link/file": b"x"}), folder)
    assert list(outside.iterdir()) == []


def test_pull_tree_replaces_a_link_to_a_file_and_not_what_it_points_to(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.write_bytes(b"precious")
    folder.mkdir()
    (folder / "file").symlink_to(outside)
    pull(FakeContainer({"file": b"x"}), folder)
    assert outside.read_bytes() == b"precious"
    assert not (folder / "file").is_symlink() and (folder / "file").read_bytes() == b"x"


def test_pull_tree_refuses_a_folder_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(UnsafePath):
        pull(FakeContainer({"a/b": b"x"}), tmp_path)


def test_pull_tree_stays_inside_when_a_folder_becomes_a_link_meanwhile(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    temporary = Place.below(folder, "d/file").temporary()
    (folder / "d").rename(folder / "moved")
    (folder / "d").symlink_to(outside)
    os.close(temporary.open_empty())
    temporary.publish()
    temporary.discard()
    assert list(outside.iterdir()) == []
    assert (folder / "moved" / "file").exists()


def test_file_is_left_as_it_was_when_its_transfer_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    container = FakeContainer({"a": b"new"})
    container.fails = True
    with pytest.raises(OSError, match="network"):
        pull(container, tmp_path)
    assert files_below(tmp_path) == {"a": b"old"}  # and no temporary file


def test_push_tree_writes_files_under_their_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    container = FakeContainer({})
    done = push(container, tmp_path, prefix="p/")
    assert container.objects == {"p/a": b"1", "p/d/b": b"2"}
    assert (done.files, done.size_bytes, done.total) == (2, 2, 2)


def test_push_tree_sends_only_what_has_changed(tmp_path: Path) -> None:
    for name in ("same", "longer", "other"):
        (tmp_path / name).write_bytes(b"new")
    container = FakeContainer({"same": b"new", "longer": b"longer", "other": b"old"})
    done = push(container, tmp_path)
    assert sorted(container.puts) == ["longer", "other"] and done.unchanged == 1


def test_push_tree_takes_only_what_matches(tmp_path: Path) -> None:
    for name in ("a.py", "b.txt"):
        (tmp_path / name).write_bytes(b"")
    container = FakeContainer({})
    push(container, tmp_path, pattern="*.py")
    assert container.puts == ["a.py"]


def test_push_tree_follows_no_links_and_names_what_it_left(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    folder.mkdir()
    (folder / "file").symlink_to(outside / "secret")
    (folder / "dir").symlink_to(outside)
    (folder / "bad\x01name").write_bytes(b"")
    os.mkfifo(folder / "pipe")
    container = FakeContainer({})
    done = push(container, folder)
    assert container.objects == {}
    assert done.skipped["file"] == done.skipped["dir"] == "a link"
    assert done.skipped["pipe"] == "no regular file"
    assert "control character" in done.skipped["bad\x01name"]


def test_push_tree_refuses_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UnsafePath, match="no folder"):
        push(FakeContainer({}), tmp_path / "missing")
