"""The generated tables of spec/PROTOCOL.md: made from the registry, checked against the file."""

from pathlib import Path

import pytest
from alpyne_grid.tools import spec
from alpyne_grid.tools.spec_source import named_values
from alpyne_grid.tools.spec_tables import tables

from alpyne_proto import errors, limits
from alpyne_proto.registry import MESSAGES, Shape

EMPTY = "".join(f"<!-- generated: {name} -->\n<!-- end -->\n" for name in tables())


def test_specification_agrees_with_the_registry() -> None:
    written = spec.SPEC_FILE.read_text(encoding="utf-8")
    assert spec.difference(written, spec.render(written)) == ""


def test_render_keeps_prose_and_is_stable() -> None:
    once = spec.render(f"# Title\n\nprose\n\n{EMPTY}end\n")
    assert once.startswith("# Title\n\nprose\n\n<!-- generated: frame types -->\n| type")
    assert once.endswith("<!-- end -->\nend\n")
    assert spec.render(once) == once


def test_render_names_every_message_field_and_limit() -> None:
    text = spec.render(EMPTY)
    for message in MESSAGES.values():
        heading = message.name if message.shape is Shape.CONTROL else f"0x{message.code:02X} "
        assert f"#### {heading}" in text
        for field in message.fields:
            assert f"| {field.key} | `{field.name}` | " in text
    for item in named_values(limits):
        assert f"| {item.name} | " in text


def test_every_error_code_has_a_meaning() -> None:
    comments = {item.name: item.comment for item in named_values(errors)}
    assert [code.name for code in errors.ErrorCode if not comments.get(code.name)] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (EMPTY.replace("generated: limits", "generated: limitz"), "limitz"),
        (EMPTY.replace("<!-- generated: limits -->\n<!-- end -->\n", ""), "limits"),
        (EMPTY + "<!-- generated: limits -->\n<!-- end -->\n", "limits"),
    ],
    ids=["unknown", "missing", "twice"],
)
def test_render_refuses_markers_when_they_do_not_fit(text: str, named: str) -> None:
    with pytest.raises(spec.SpecError, match=named):
        spec.render(text)


def test_check_fails_and_changes_nothing_when_a_table_is_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "PROTOCOL.md"
    page.write_text(EMPTY)
    assert spec.main(["--check"], page) == 1
    assert page.read_text() == EMPTY
    assert "./dev spec" in capsys.readouterr().err


def test_write_makes_check_pass(tmp_path: Path) -> None:
    page = tmp_path / "PROTOCOL.md"
    page.write_text(EMPTY)
    assert spec.main([], page) == 0
    assert spec.main(["--check"], page) == 0
