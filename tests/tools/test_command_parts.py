"""Parts of commands that need no node: what words on the command line mean."""

import asyncio
import math
from pathlib import Path

import click
import pytest
from alpyne_grid.tools import device_book
from alpyne_grid.tools.commands.access import AccountNotFound, find_account
from alpyne_grid.tools.commands.pairing import NoAddressFile, read_address
from alpyne_grid.tools.commands.run import arguments, named
from alpyne_grid.tools.job_ends import fits_json
from alpyne_grid.tools.local_modules import modules_beside
from alpyne_grid.tools.objects import side_by_side
from alpyne_grid.tools.remote_paths import RemotePath, remote_path

from alpyne_proto.errors import AddressError, KeyFileError
from alpyne_proto.messages.access import AccountRow
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.ssh_keys import account_fingerprint

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


# ---- CONTAINER:PATH ----


@pytest.mark.parametrize(
    ("text", "place", "is_folder", "is_pattern"),
    [
        ("box", RemotePath("box"), True, False),
        ("box:", RemotePath("box"), True, False),
        ("box:a/b", RemotePath("box", "a/b"), False, False),
        ("box:a/", RemotePath("box", "a/"), True, False),
        ("box:**/*.py", RemotePath("box", "**/*.py"), False, True),
        ("box:a:b", RemotePath("box", "a:b"), False, False),
    ],
)
def test_remote_path_is_read(
    text: str, place: RemotePath, is_folder: bool, is_pattern: bool
) -> None:
    found = remote_path(text)
    assert (found, found.is_folder, found.is_pattern) == (place, is_folder, is_pattern)


def test_remote_path_is_refused_when_no_container_is_named() -> None:
    with pytest.raises(click.BadParameter, match="CONTAINER"):
        remote_path(":a")


# ---- run ----


def test_arguments_are_text_unless_literals_are_asked_for() -> None:
    words = ["7", "[1, 'a']", "None", "x y", "__import__('os')"]
    assert arguments(words, literal=False) == words
    assert arguments(words, literal=True) == [7, [1, "a"], None, "x y", "__import__('os')"]


def test_named_reads_pairs_and_files() -> None:
    assert named(["A=b", "C="], "--env") == {"A": "b", "C": ""}
    assert named(["x/y.txt", "z=w"], "--input", name_of_file=True) == {"y.txt": "x/y.txt", "z": "w"}


@pytest.mark.parametrize("pair", ["NAME", "=value"])
def test_named_refuses_what_is_no_pair(pair: str) -> None:
    with pytest.raises(click.UsageError, match="--env"):
        named([pair], "--env")


def test_modules_beside_follow_imports_in_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import os, near\nfrom pack.sub import x\nimport gone\n")
    (tmp_path / "near.py").write_text("def f():\n    import far, main\n")
    (tmp_path / "far.py").write_text("import near\n")
    (tmp_path / "unused.py").write_text("")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "sub.py").write_text("import deep\nx = 1\n")
    (tmp_path / "deep.py").write_text("")
    found = {path.name for path in modules_beside(tmp_path / "main.py")}
    assert found == {"near.py", "far.py", "pack", "deep.py"}


def test_modules_beside_are_none_when_the_file_is_not_python(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import near def\n")
    assert modules_beside(tmp_path / "main.py") == []


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"a": [1, 2.5, None, True, "x"]}, True),
        ((1, 2), False),
        ({1: "a"}, False),
        (b"bytes", False),
        ([object()], False),
    ],
)
def test_only_what_json_gives_back_is_printed_as_json(value: object, fits: bool) -> None:
    assert fits_json(value) is fits


def test_a_value_without_end_is_no_json() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert not fits_json(endless)
    assert not fits_json(math.nan)


# ---- accounts, addresses, devices ----


def account(number: int, name: str) -> AccountRow:
    return AccountRow(bytes([number]) * 32, AccountRole.USER, name)


def test_find_account_takes_names_and_fingerprints() -> None:
    rows = [account(1, "ann"), account(2, "bob"), account(1, "ann")]
    assert find_account("bob", rows) == bytes([2]) * 32
    assert find_account(account_fingerprint(bytes([1]) * 32)[:20], rows) == bytes([1]) * 32


def test_find_account_asks_for_the_fingerprint_when_two_chose_one_name() -> None:
    with pytest.raises(AccountNotFound, match="2 accounts fit; give the fingerprint: SHA256:"):
        find_account("ann", [account(1, "ann"), account(2, "ann")])


@pytest.mark.parametrize("text", ["carl", "SHA256:", "SHA256:AAAAAAAAAAAA"])
def test_find_account_refuses_what_names_nobody(text: str) -> None:
    with pytest.raises(AccountNotFound, match="no such account"):
        find_account(text, [account(1, "ann")])


def test_address_file_is_read_when_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "address").write_text(f"alpyne://host:1#{KEY}\n")
    assert read_address(tmp_path / "address", 0).routes == (("host", 1),)


def test_address_file_is_waited_for_no_longer_than_allowed(tmp_path: Path) -> None:
    with pytest.raises(NoAddressFile, match="after 0 s"):
        read_address(tmp_path / "none", 0)


@pytest.mark.parametrize("content", [b"", b"something else", b"\xff\xfe"])
def test_address_file_is_named_when_it_holds_something_else(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(AddressError, match="odd"):
        read_address(tmp_path / "odd", 0)


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"name": "x"}]', "["])
def test_device_book_is_refused_when_it_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / device_book.FILE).write_text(text)
    with pytest.raises(KeyFileError, match="not a list of devices"):
        device_book.load(tmp_path)


# ---- work side by side ----


def test_side_by_side_raises_the_first_failure_and_ends_the_rest() -> None:
    done: list[int] = []

    async def one(number: int) -> None:
        if number == 3:
            raise ValueError(number)
        await asyncio.sleep(0 if number < 3 else 60)
        done.append(number)

    with pytest.raises(ValueError, match="3"):
        asyncio.run(side_by_side([lambda n=n: one(n) for n in range(6)], at_once=2))
    assert done == [0, 1, 2]
