"""The main job on its default input: the standard library of the running Python."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "code_report" / "code_report.py"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.timeout(240)
def test_main_job_survives_its_faults_and_agrees_with_a_serial_run() -> None:
    done = run()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"^verified in", done.stdout, flags=re.M)
    moved = re.search(r"jobs moved to another compute node +(\d+)", done.stdout)
    assert moved is not None
    assert int(moved[1]) >= 1
    failed_over = re.findall(r"reads failed over, of \S+(?: \S+)* +(\d+)", done.stdout)
    assert sum(map(int, failed_over)) >= 1
    share = re.search(r"as a part of the input +([\d.]+)%", done.stdout)
    assert share is not None
    assert float(share[1]) < 5
    assert len(re.findall(r"^(?:compute|data)-\d +killed", done.stdout, flags=re.M)) == 2


def test_main_job_says_what_is_wrong_with_a_folder_without_programs(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert done.returncode == 1
    assert "expected at least 8 Python files (*.py), found 0; name another folder" in done.stderr
    assert "Traceback" not in done.stderr
