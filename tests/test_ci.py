"""What CI accepts: no skip that the list does not name, no part that is missing."""

import shutil
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


FAKE = """\
import os, sys
with open("calls", "a") as calls:
    print(*sys.argv[1:3], os.environ.get("ALPYNE_REQUIRE_PARTS", ""), file=calls)
sys.exit(sys.argv[1:3] == {fails})
"""


@pytest.mark.parametrize(
    ("fails", "calls"),
    [
        (["parts"], ["check", "parts", "parts --stop"]),
        (["test", "-q"], ["check", "parts", "test -q 1", "parts --stop"]),
        (["check"], ["check"]),
    ],
)
def test_ci_ends_the_parts_and_fails_when_a_step_fails(
    tmp_path: Path, fails: list[str], calls: list[str]
) -> None:
    shutil.copytree(SCRIPT.parent, tmp_path / ".ci")
    script = (tmp_path / ".ci" / "run").read_text()
    # The arguments of CI come behind the report's, which are not of interest here.
    (tmp_path / ".ci" / "run").write_text(script.replace("--junitxml=.reports/junit.xml ", ""))
    (tmp_path / "dev").write_text(FAKE.format(fails=fails))
    done = subprocess.run(
        ["bash", tmp_path / ".ci" / "run", "-q"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    lines = (tmp_path / "calls").read_text().splitlines()
    assert [line.strip() for line in lines] == calls
