"""The local back end's own promises: files, damage, what a killed daemon leaves."""

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.data.backends import local
from alpyne_grid.nodes.data.backends.base import BackendSetup
from alpyne_grid.nodes.data.backends.local import INLINE_MAX, LocalBackend
from alpyne_grid.nodes.data.backends.local_files import (
    BLOCK,
    BlockChecks,
    BlockVerifier,
    checks_of,
)
from alpyne_grid.nodes.data.backends.local_schema import SCHEMA
from alpyne_grid.nodes.data.records import (
    KeepContainer,
    ObjectCorrupt,
    ObjectKey,
    ObjectRecord,
    ObjectSpan,
    Refresh,
)
from alpyne_grid.nodes.store import CommitStore, StoreFailed
from alpyne_grid.tools.contracts.data import (
    ALWAYS,
    ANN,
    BOX,
    LARGE,
    descriptor,
    key,
    publish,
    read,
    stage,
)
from hypothesis import given
from hypothesis import strategies as st

SMALL = b"small" * 100


class Disk:
    """A folder on which back ends are opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = folder / "objects"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[LocalBackend]:
        store = CommitStore.open(self.folder / "node.db", (SCHEMA,))
        backend = LocalBackend(BackendSetup(self.objects, store))
        await backend.start()
        try:
            if await backend.container(ANN, BOX) is None:
                await backend.commit([KeepContainer(ANN, descriptor(), True)])
            yield backend
        finally:
            await backend.close()
            await store.close()

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.objects / "blobs").rglob("*") if path.is_file()]

    def only_file(self) -> Path:
        (file,) = self.files
        return file


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


# ---- where contents stand ----


async def test_local_keeps_small_contents_in_rows_and_larger_ones_in_files(disk: Disk) -> None:
    async with disk.opened() as backend:
        await publish(backend, "small", 1, b"x" * INLINE_MAX)
        assert disk.files == []
        await publish(backend, "large", 1, b"x" * (INLINE_MAX + 1))
        file = disk.only_file()
        assert file.parent.parent.name == ANN.hex()
        assert file.name.startswith(file.parent.name)
        assert list((disk.objects / "incoming").iterdir()) == []


async def test_local_stores_the_same_content_once_per_account(disk: Disk) -> None:
    async with disk.opened() as backend:
        for path in "abc":
            await publish(backend, path, 1, LARGE)
            await publish(backend, path + "s", 1, SMALL)
        await backend.empty_trash()
        assert len(disk.files) == 1
        assert backend._store.read("SELECT count(*), sum(refs) FROM data_blobs") == [(2, 6)]


async def test_local_removes_a_file_when_the_last_version_that_names_it_is_swept(
    disk: Disk,
) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, LARGE)
        await publish(backend, "b", 1, LARGE)
        await publish(backend, "a", 2, None)
        await backend.sweep(ALWAYS, 10)
        assert len(disk.files) == 1
        await publish(backend, "b", 2, SMALL)
        assert len(disk.files) == 1
        await backend.sweep(ALWAYS, 10)
        assert disk.files == []
        assert backend._store.read("SELECT count(*) FROM data_blobs") == [(1,)]
        assert backend._store.read("SELECT count(*) FROM data_trash") == [(0,)]


async def test_local_never_uses_a_path_as_a_file_name(disk: Disk, tmp_path: Path) -> None:
    async with disk.opened() as backend:
        await publish(backend, "../../escaped", 1, LARGE)
        await publish(backend, "/etc/passwd", 1, LARGE[1:])
    names = {path.name for path in tmp_path.rglob("*")}
    assert not {"escaped", "passwd", "etc"} & names
    assert not (tmp_path.parent / "escaped").exists()


async def test_local_reads_on_when_the_file_is_removed_under_the_reader(disk: Disk) -> None:
    async with disk.opened() as backend:
        data = os.urandom(8 << 20)
        await publish(backend, "a", 1, data)
        content = await backend.open(key("a"), None)
        assert not isinstance(content, ObjectRecord | None)
        chunks = content.chunks(0, len(data))
        got = [bytes(await anext(chunks))]
        await publish(backend, "a", 2, None)
        await backend.sweep(ALWAYS, 10)
        assert disk.files == []
        got += [bytes(chunk) async for chunk in chunks]
        assert b"".join(got) == data


async def test_local_opens_the_new_file_when_the_same_bytes_were_put_again_meanwhile(
    disk: Disk,
) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, LARGE)
        content = await backend.open(key("a"), None)
        assert not isinstance(content, ObjectRecord | None)
        await backend.commit([Refresh(key("a"), await stage(backend, LARGE))])
        await backend.empty_trash()
        assert b"".join([bytes(c) async for c in content.chunks(0, len(LARGE))]) == LARGE


# ---- damage ----


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


Damage = Callable[[Path], None]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: flip(file, 0),
        lambda file: flip(file, len(LARGE) - 1),
        lambda file: os.truncate(file, len(LARGE) - 1),
        lambda file: os.truncate(file, 0),
        lambda file: file.write_bytes(LARGE + b"x"),
        Path.unlink,
    ],
    ids=["first", "last", "short", "empty", "long", "missing"],
)
async def test_local_never_returns_damaged_bytes_and_reports_the_object(
    disk: Disk, damage: Damage
) -> None:
    async with disk.opened() as backend:
        record = await publish(backend, "a", 1, LARGE)
        damage(disk.only_file())
        with pytest.raises(ObjectCorrupt, match="damaged on this node"):
            await read(backend, "a")
        while not (found := await backend.corrupt(ANN, 9)):
            await asyncio.sleep(0)
        assert found == [ObjectKey(ANN, BOX, "a")]
        assert (await backend.look_up(key("a"), b"")).current == record
    async with disk.opened() as backend:
        assert await backend.corrupt(ANN, 9) == [ObjectKey(ANN, BOX, "a")]


async def test_local_returns_the_pieces_before_the_damage_and_no_byte_of_it(disk: Disk) -> None:
    async with disk.opened() as backend:
        data = os.urandom(4 << 20)
        await publish(backend, "a", 1, data)
        flip(disk.only_file(), 3 << 20)
        content = await backend.open(key("a"), None)
        assert not isinstance(content, ObjectRecord | None)
        got = bytearray()
        with pytest.raises(ObjectCorrupt):
            async for chunk in content.chunks(0, len(data)):
                got += chunk
        assert len(got) <= 3 << 20
        assert data.startswith(bytes(got))


async def test_local_reads_a_range_beside_the_damage(disk: Disk) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, LARGE)
        flip(disk.only_file(), BLOCK + 5)
        assert await read(backend, "a", None, 0, BLOCK) == LARGE[:BLOCK]
        assert await read(backend, "a", None, 2 * BLOCK, 9) == LARGE[2 * BLOCK : 2 * BLOCK + 9]
        with pytest.raises(ObjectCorrupt):
            await read(backend, "a", None, 2 * BLOCK - 1, 2)


async def test_local_never_returns_a_damaged_row(disk: Disk) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, SMALL)
        await backend._store.commit([("UPDATE data_blobs SET data = ?", (SMALL[:-1] + b"?",))])
        with pytest.raises(ObjectCorrupt):
            await read(backend, "a")


async def test_local_says_damaged_when_the_row_of_the_content_is_lost(disk: Disk) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, SMALL)
        await publish(backend, "b", 1, LARGE)
        await backend._store.commit([("DELETE FROM data_blobs", ())])
        for path in "ab":
            with pytest.raises(ObjectCorrupt):
                await read(backend, path)


async def test_local_serves_again_when_the_same_bytes_are_put_again(disk: Disk) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, LARGE)
        flip(disk.only_file(), 7)
        with pytest.raises(ObjectCorrupt):
            await read(backend, "a")
        await publish(backend, "copy", 1, LARGE)
        assert await read(backend, "a") == LARGE
        assert await backend.corrupt(ANN, 9) == []


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)), st.integers(1, 60))
def test_checks_are_the_same_however_the_bytes_are_cut(
    data: bytes, cuts: list[int], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alpyne_grid.nodes.data.backends.local_files.BLOCK", block)
        whole = checks_of(data)
        pieces = BlockChecks()
        places = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
        for begin, end in itertools.pairwise(places):
            pieces.feed(data[begin:end])
        assert pieces.finish() == whole
        assert len(whole) == 4 * -(-len(data) // block)
        BlockVerifier(whole, 0).feed(data)
        if data:
            for at in {0, len(data) // 2, len(data) - 1}:
                wrong = bytearray(data)
                wrong[at] ^= 0x80
                with pytest.raises(ObjectCorrupt):
                    BlockVerifier(whole, 0).feed(wrong)


# ---- durability ----


async def test_local_flushes_file_and_folder_before_the_commit_that_names_them(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, LARGE)
        done: list[str] = []
        fsync, replace, commit = os.fsync, os.replace, backend._store.commit

        def noting_fsync(descriptor: int) -> None:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            done.append(f"flush {Path(name).parent.name}")
            fsync(descriptor)

        def noting_replace(source: str, target: str) -> None:
            done.append("rename")
            replace(source, target)

        async def noting_commit(batch: Any) -> None:
            done.append("commit")
            await commit(batch)

        monkeypatch.setattr(os, "fsync", noting_fsync)
        monkeypatch.setattr(os, "replace", noting_replace)
        monkeypatch.setattr(backend._store, "commit", noting_commit)
        await publish(backend, "b", 1, LARGE)
        own = ANN.hex()
        assert done == ["flush incoming", "rename", f"flush {own}", "commit"]
        done.clear()
        await publish(backend, "c", 1, LARGE[::-1])  # into a folder that is new
        assert done[:2] == ["flush incoming", "flush objects"]
        assert done[2:] == ["flush blobs", "rename", f"flush {own}", "commit"]


# ---- what goes wrong while writing ----


async def test_local_leaves_nothing_behind_when_the_file_cannot_be_put_in_place(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with disk.opened() as backend:

        def full(source: object, target: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(StoreFailed, match="No space left"):
            await stage(backend, LARGE)
        assert disk.files == []
        assert list((disk.objects / "incoming").iterdir()) == []
        assert backend._files.unnamed == set()


async def test_local_refuses_a_body_when_the_disk_has_no_room_for_it(disk: Disk) -> None:
    async with disk.opened() as backend:
        free = shutil.disk_usage(disk.folder).free
        with pytest.raises(StoreFailed, match="do not fit"):
            backend.stage(ANN, free)


async def test_local_removes_what_a_killed_daemon_left(disk: Disk) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, LARGE)
        await stage(backend, LARGE[1:])  # in place, never named
        backend.stage(ANN, len(LARGE)).feed(LARGE)
        kept = [file for file in disk.files if len(LARGE) == file.stat().st_size]
        stray = disk.files[0].with_name("00.stray")
        stray.write_bytes(b"?")
        assert len(disk.files) == 3
    (disk.objects / "incoming" / "left").write_bytes(b"?")
    async with disk.opened() as backend:
        assert backend._orphans is not None
        await backend._orphans
        assert disk.files == kept
        assert list((disk.objects / "incoming").iterdir()) == []
        assert await read(backend, "a") == LARGE


async def test_local_spares_files_that_are_about_to_be_named_when_it_removes_orphans(
    disk: Disk,
) -> None:
    async with disk.opened() as backend:
        await stage(backend, LARGE)
        await backend.remove_orphans()
        assert len(disk.files) == 1


async def test_local_empties_the_trash_of_a_killed_daemon(disk: Disk) -> None:
    async with disk.opened() as backend:
        await publish(backend, "a", 1, LARGE)
        await publish(backend, "b", 1, LARGE)  # replaces the file of the same content
        assert len(disk.files) == 2
    async with disk.opened() as backend:
        assert len(disk.files) == 1
        assert await read(backend, "a") == LARGE


async def test_local_looks_at_a_bounded_number_of_rows_for_one_page(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SCAN", 3)
    async with disk.opened() as backend:
        for n in range(8):
            await publish(backend, str(n), 1, b"x")
        looked: list[str] = []

        def accepts(path: str) -> bool:
            looked.append(path)
            return path == "7"

        page = await backend.objects(ANN, BOX, ObjectSpan(), accepts, 5)
        assert page is not None
        assert (page.rows, page.after, looked) == ((), "2", ["0", "1", "2"])
