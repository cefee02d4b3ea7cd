"""The vectors that are made from the code are those that it makes now."""

from pathlib import Path

import pytest
from alpyne_grid.tools.vectors import __main__ as vectors


def test_vectors_agree_with_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert vectors.main(["--check"]) == 0, capsys.readouterr().err


def test_check_fails_and_changes_nothing_when_a_file_is_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors.main([], tmp_path)
    old = tmp_path / "records.json"
    old.write_text("{}")
    assert vectors.main(["--check"], tmp_path) == 1
    assert old.read_text() == "{}"
    assert "records.json" in capsys.readouterr().err
