"""Names of containers and objects."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.container import (
    NameRefused,
    check_container_name,
    check_path,
    check_pattern,
    check_prefix,
    container_id,
)
from alpyne_proto.errors import ErrorCode

ACCOUNT = bytes(range(32))

LEGAL = [
    "a",
    "a/b",
    "a b/ü.txt",
    "...",
    "..a",
    "a..",
    ".hidden",
    "x" * 1024,
    "%2e%2e/x",
    "a\\..\\b",
]
REFUSED = {
    "": "got none",
    "/": "begins with a slash",
    "/etc/passwd": "begins with a slash",
    "a/": "empty segment",
    "a//b": "empty segment",
    ".": "segment '.'",
    "..": "segment '..'",
    "a/./b": "segment '.'",
    "../../etc/passwd": "segment '..'",
    "a/..": "segment '..'",
    "a\0b": "U\\+0000 at character 1",
    "a\nb": "U\\+000A",
    "\x1b[31mred": "U\\+001B",
    "a\x7f": "U\\+007F",
    "a\x9bb": "U\\+009B",
    "a\ud800": "lone surrogate at character 1",
    "x" * 1025: "1025 characters",
    "x" * 5000: "5000 characters",
    "ü" * 600: "1200 bytes",
}


@pytest.mark.parametrize("path", LEGAL)
def test_path_is_taken_when_legal(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize("path", REFUSED)
def test_path_is_refused_with_its_reason_when_illegal(path: str) -> None:
    with pytest.raises(NameRefused, match=REFUSED[path]) as caught:
        check_path(path)
    assert caught.value.code is ErrorCode.BAD_REQUEST
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@given(st.text())
def test_path_that_is_taken_has_only_whole_segments(path: str) -> None:
    try:
        check_path(path)
    except NameRefused:
        return
    assert 1 <= len(path.encode()) <= 1024
    assert not {"", ".", ".."} & set(path.split("/"))
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in path)


@given(st.lists(st.text("abcü .", min_size=1, max_size=9), min_size=1, max_size=9))
def test_path_is_taken_when_its_segments_are_plain(segments: list[str]) -> None:
    path = "/".join(segment for segment in segments if segment not in (".", "..")) or "a"
    assert check_path(path) == path


@pytest.mark.parametrize("name", ["", "a\0", "x" * 256, "\udfff"])
def test_container_name_is_refused_when_illegal(name: str) -> None:
    with pytest.raises(NameRefused, match="container name"):
        check_container_name(name)


@pytest.mark.parametrize("check", [check_prefix, check_pattern])
def test_prefix_and_pattern_are_taken_when_empty_and_refused_with_control_characters(
    check: Callable[[str], str],
) -> None:
    assert check("") == ""
    assert check("a/") == "a/"
    with pytest.raises(NameRefused, match="control character"):
        check("a\r")


def test_container_id_is_the_hash_of_context_account_and_name() -> None:
    expected = hashlib.sha256(b"alpyne container v1\0" + ACCOUNT + "tëxts".encode()).digest()[:16]
    assert container_id(ACCOUNT, "tëxts") == expected


def test_container_id_differs_when_the_account_differs() -> None:
    assert container_id(ACCOUNT, "a") != container_id(bytes(32), "a")


@pytest.mark.parametrize("account", [b"", bytes(31), bytes(33)])
def test_container_id_is_refused_when_the_account_is_no_key(account: bytes) -> None:
    with pytest.raises(NameRefused, match="32 bytes"):
        container_id(account, "a")
