"""What commands print where there is no terminal, and what they keep from a terminal."""

import json

import pytest
from alpyne_grid.tools.screen import Column, clean, print_facts, print_json, print_table

Captured = pytest.CaptureFixture[str]


def test_clean_shows_control_and_direction_characters_as_question_marks() -> None:
    assert clean("a\x1b[31mred\x07\x9b\u202eb\r") == "a?[31mred???b?"
    assert clean("größe\n\tok") == "größe\n\tok"


def test_table_is_plain_columns_when_there_is_no_terminal(capsys: Captured) -> None:
    print_table([Column("name"), Column("slots", right=True)], [["worker", "2"], ["", "16\n"]])
    assert capsys.readouterr().out == "name    slots\nworker      2\n-         16\n"


def test_table_has_its_titles_when_it_is_empty(capsys: Captured) -> None:
    print_table([Column("name"), Column("state")], [])
    assert capsys.readouterr().out == "name  state\n"


def test_facts_stand_in_two_columns(capsys: Captured) -> None:
    print_facts([("id", "1\x1b"), ("state", "DONE")])
    assert capsys.readouterr().out == "id     1?\nstate  DONE\n"


def test_json_is_one_line_when_there_is_no_terminal(capsys: Captured) -> None:
    value = {"name": "Zoë", "sizes": [1, 2]}
    print_json(value)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == value
