"""Glob patterns: what they match, and that no pattern takes long."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alpyne_proto.container import NameRefused
from alpyne_proto.glob import Glob

MATCHES = [
    ("a", "a"),
    ("*.txt", "x.txt"),
    ("*.txt", ".txt"),
    ("*", "anything"),
    ("data/*.bin", "data/1.bin"),
    ("**", "a/b/c"),
    ("a/**", "a/b/c"),
    ("**/x", "x"),
    ("**/x", "a/b/x"),
    ("a/**/b", "a/b"),
    ("a/**/b", "a/x/y/b"),
    ("a/**/**/b", "a/b"),
    ("a/**/*.c", "a/b.c"),
    ("a/**/*.c", "a/x/b.c"),
    ("a**b", "a/x/b"),
    ("a***b", "a/x/b"),
    ("?", "ü"),
    ("[a-c]x", "bx"),
    ("[!a-c]x", "dx"),
    ("[*]", "*"),
    ("[]]", "]"),
    ("[[]", "["),
    ("[a-]", "-"),
    ("[\\d]", "d"),
    ("[^a]", "^"),
    ("x]", "x]"),
]
DIFFERENT = [
    ("a", "ab"),
    ("*.txt", "a/x.txt"),
    ("*", "a/b"),
    ("data/*.bin", "data/1.bin/x"),
    ("**/x", "ax"),
    ("**/x", "a/bx"),
    ("a/**/b", "a/xb"),
    ("a/**/b", "ab"),
    ("a/**", "a"),
    ("?", "/"),
    ("[!a]", "/"),
    ("[ -~]", "/"),
    ("[c-a]", "b"),
    ("[!a-c]x", "bx"),
    ("A", "a"),
    ("[^a]", "b"),
    ("", "a"),
]


@pytest.mark.parametrize(("pattern", "path"), MATCHES)
def test_glob_matches(pattern: str, path: str) -> None:
    assert Glob(pattern).matches(path)


@pytest.mark.parametrize(("pattern", "path"), [pair for pair in DIFFERENT if pair[0]])
def test_glob_does_not_match(pattern: str, path: str) -> None:
    assert not Glob(pattern).matches(path)


@pytest.mark.parametrize("pattern", ["", "[", "[!", "a[b", "[]", "x\0", "x" * 1025, "\ud800"])
def test_glob_refuses_a_pattern_that_is_none(pattern: str) -> None:
    with pytest.raises(NameRefused, match="pattern"):
        Glob(pattern)


def as_regex(pattern: str) -> str:
    """Translate a pattern of letters, slashes and asterisks, plainly and slowly."""
    parts = re.split(r"((?:(?<=/)|^)\*\*+/|\*\*+|\*|\?)", pattern)
    made = {"*": "[^/]*", "?": "[^/]"}
    out = []
    for part in parts:
        if part.startswith("**"):
            out.append("(?:.*/)?" if part.endswith("/") else ".*")
        else:
            out.append(made.get(part, re.escape(part)))
    return "".join(out)


@given(st.text("ab/*?", min_size=1, max_size=8), st.text("ab/", max_size=8))
@example("**/**/a", "a")
@example("***/a", "a")
def test_glob_agrees_with_a_regular_expression(pattern: str, path: str) -> None:
    expected = re.fullmatch(as_regex(pattern), path, re.DOTALL) is not None
    assert Glob(pattern).matches(path) is expected


@given(st.text("ab/*?[]!-", min_size=1, max_size=8), st.text("ab/", min_size=1, max_size=8))
def test_glob_prefix_begins_every_match(pattern: str, path: str) -> None:
    try:
        glob = Glob(pattern)
    except NameRefused:
        return
    if glob.matches(path):
        assert path.startswith(glob.prefix)


@pytest.mark.parametrize("pattern", ["*a" * 511 + "b", "**a" * 341, "**/" * 340 + "b", "?*" * 511])
def test_glob_ends_soon_when_the_pattern_would_make_a_regular_expression_explode(
    pattern: str,
) -> None:
    glob = Glob(pattern)
    begun = time.process_time()
    glob.matches("a" * 1023 + "b")
    assert time.process_time() - begun < 1.0
