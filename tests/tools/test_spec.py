"""The generated parts of the documents: made from registry and commands, checked against files."""

from pathlib import Path

import pytest
from alpyne_grid.tools.spec import __main__ as spec
from alpyne_grid.tools.spec.source import named_values
from alpyne_grid.tools.spec.tables import tables

from alpyne_proto import errors, limits
from alpyne_proto.registry import MESSAGES, Shape, State
from alpyne_proto.table import MOVES, Side, legal_frames

MAKERS = {"one": lambda: "1", "two": lambda: "2"}
EMPTY = "".join(f"<!-- generated: {name} -->\n<!-- end -->\n" for name in MAKERS)


@pytest.mark.parametrize("name", spec.DOCUMENTS)
def test_document_agrees_with_its_sources(name: str) -> None:
    written = (spec.ROOT / name).read_text(encoding="utf-8")
    assert spec.difference(written, spec.render(written, spec.DOCUMENTS[name](), name)) == ""


def test_render_keeps_prose_and_is_stable() -> None:
    once = spec.render(f"# Title\n\n{EMPTY}end\n", MAKERS, "page")
    assert once == (
        "# Title\n\n<!-- generated: one -->\n1\n<!-- end -->\n"
        "<!-- generated: two -->\n2\n<!-- end -->\nend\n"
    )
    assert spec.render(once, MAKERS, "page") == once


def test_tables_name_every_message_field_and_limit() -> None:
    text = "\n".join(make() for make in tables().values())
    for message in MESSAGES.values():
        heading = message.name if message.shape is Shape.CONTROL else f"0x{message.code:02X} "
        assert f"#### {heading}" in text
        for field in message.fields:
            assert f"| {field.key} | `{field.name}` | " in text
    for item in named_values(limits):
        assert f"| {item.name} | " in text


def test_tables_name_every_legal_frame_and_move() -> None:
    text = tables()["legal"]() + tables()["moves"]()
    for state in State:
        for side in Side:
            for kind in legal_frames(state, side):
                assert f"| {kind.name} | " in text
    for before, step in MOVES:
        assert f"| {before.name} | {step.value} | " in text


def test_every_error_code_has_a_meaning() -> None:
    comments = {item.name: item.comment for item in named_values(errors)}
    assert [code.name for code in errors.ErrorCode if not comments.get(code.name)] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (EMPTY.replace("generated: two", "generated: twin"), "twin"),
        (EMPTY.replace("<!-- generated: two -->\n<!-- end -->\n", ""), "two"),
        (EMPTY + "<!-- generated: two -->\n<!-- end -->\n", "two"),
    ],
    ids=["unknown", "missing", "twice"],
)
def test_render_refuses_markers_when_they_do_not_fit(text: str, named: str) -> None:
    with pytest.raises(spec.SpecError, match=f"page: .*{named}"):
        spec.render(text, MAKERS, "page")


def test_check_fails_and_changes_nothing_when_a_part_is_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(EMPTY)
    assert not spec.bring_up_to_date(page, MAKERS, check=True)
    assert page.read_text() == EMPTY
    assert "./dev spec" in capsys.readouterr().err


def test_write_makes_check_pass(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(EMPTY)
    assert spec.bring_up_to_date(page, MAKERS, check=False)
    assert spec.bring_up_to_date(page, MAKERS, check=True)


def test_main_fails_when_a_document_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spec.main(["--check"], tmp_path) == 1
    assert "spec/PROTOCOL.md: No such file" in capsys.readouterr().err
