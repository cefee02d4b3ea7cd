"""What CI accepts: a skipped test that the list does not name fails it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "check_skips.py"
LIST = "# comment\ntests.a::test_x* | no Docker* | runs on the other machine\n"


def report(*cases: str) -> str:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


def case(name: str, skipped: str = "") -> str:
    inner = f'<skipped message="{skipped}"/>' if skipped else ""
    return f'<testcase classname="tests.a" name="{name}">{inner}</testcase>'


@pytest.mark.parametrize(
    ("cases", "listed", "code", "said"),
    [
        ([case("test_x"), case("test_y")], LIST, 0, "0 of 2 tests skipped"),
        ([case("test_x1", "no Docker here")], LIST, 0, "listed: runs on the other machine"),
        ([case("test_x1", "no MongoDB")], LIST, 1, "NOT LISTED"),
        ([case("test_y", "no Docker here")], LIST, 1, "NOT LISTED"),
        ([], LIST, 1, "0 of 0 tests"),
        (
            [case("test_x")],
            "tests.a::test_x | no reason why\n",
            1,
            "expected `test | reason | why`",
        ),
    ],
)
def test_ci_fails_on_a_skip_that_is_not_listed(
    tmp_path: Path, cases: list[str], listed: str, code: int, said: str
) -> None:
    (tmp_path / "junit.xml").write_text(report(*cases))
    (tmp_path / "skips").write_text(listed)
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "junit.xml", tmp_path / "skips"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr
