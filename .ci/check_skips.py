"""Fail on a skipped test that is not listed: `check_skips.py junit.xml skips`."""

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree


class Listed(NamedTuple):
    """One line of the list: which skip CI accepts, and why."""

    test: str
    reason: str
    why: str


class Skip(NamedTuple):
    """One skip of a test run."""

    test: str
    reason: str


def read_list(path: Path) -> list[Listed]:
    """Read the accepted skips; SystemExit for a line that has not its three columns."""
    listed = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = [column.strip() for column in line.split(" | ")]
        if len(columns) != 3 or not all(columns):
            sys.exit(f"{path}:{number}: expected `test | reason | why`, got {line!r}")
        listed.append(Listed(*columns))
    return listed


def read_skips(path: Path) -> tuple[int, list[Skip]]:
    """Give the number of all tests in a JUnit report, and those that were skipped."""
    cases = list(ElementTree.parse(path).iter("testcase"))
    skips = []
    for case in cases:
        test = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        skips += [Skip(test, skip.get("message") or "") for skip in case.iter("skipped")]
    return len(cases), skips


def main(report: Path, skip_list: Path) -> int:
    listed = read_list(skip_list)
    count, skips = read_skips(report)
    unlisted = 0
    for skip in skips:
        match = next(
            (
                entry
                for entry in listed
                if fnmatchcase(skip.test, entry.test) and fnmatchcase(skip.reason, entry.reason)
            ),
            None,
        )
        unlisted += match is None
        why = f"listed: {match.why}" if match else f"NOT LISTED in {skip_list}"
        print(f"skipped {skip.test}\n    reason: {skip.reason}\n    {why}")
    print(f"{len(skips)} of {count} tests skipped, {unlisted} of them not listed in {skip_list}")
    return 1 if unlisted or not count else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
