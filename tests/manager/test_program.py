"""Programs: the rows that a job's payload holds, and what cannot be sent."""

import pickle
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from alpyne_grid.manager import program as programs
from alpyne_grid.manager.errors import ProgramError

from alpyne_proto.codec import read_rows
from alpyne_proto.container import NameRefused
from alpyne_proto.jobobject import JobObject
from alpyne_proto.messages import program as rows
from alpyne_proto.messages.compute import JobForm
from alpyne_proto.registry import Message

ALL = tuple(
    kind.SPEC.code
    for kind in (
        rows.Function,
        rows.Arguments,
        rows.Buffer,
        rows.Items,
        rows.SourceFile,
        rows.CommandLine,
        rows.InputFile,
        rows.Value,
    )
)


def parts(program: programs.Program) -> list[tuple[Message, bytes]]:
    return read_rows(program.payload, ALL)


def item(container: bytes = b"c" * 16, path: str = "a/b", size: int = 3) -> JobObject:
    return JobObject(container, path, 1, b"w" * 16, size, b"h" * 32, (b"k" * 32,))


def add(left: int, right: int = 0) -> int:
    return left + right


def test_call_holds_the_function_and_its_arguments() -> None:
    made = programs.call(add, (1,), {"right": 2})
    (function, code), (arguments, data) = parts(made)
    assert (made.form, made.kind, made.python) == (JobForm.CALL, "add", programs.PYTHON)
    args, kwargs = pickle.loads(data)
    assert isinstance(function, rows.Function) and isinstance(arguments, rows.Arguments)
    assert pickle.loads(code)(*args, **kwargs) == 3


def test_call_sends_a_function_by_value_when_another_one_has_taken_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("json.alpyne_test_names")
    exec("def first(): return 1\ndef second(): return 2", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    first = module.first
    by_name = parts(programs.call(first, (), {}))[0][1]
    assert pickle.loads(by_name) is first
    monkeypatch.setattr(module, "first", module.second)
    by_value = parts(programs.call(first, (), {}))[0][1]
    assert pickle.loads(by_value)() == 1


def test_call_sends_a_function_by_value_when_nodes_cannot_import_its_module() -> None:
    code = parts(programs.call(add, (), {}))[0][1]
    assert __name__.encode() not in code.split(b"add")[0] or b"co_code" not in code
    assert pickle.loads(code) is not add


def test_call_sends_large_buffers_beside_the_pickle() -> None:
    large = bytearray(programs.BUFFER_MIN)
    made = programs.call(add, (pickle.PickleBuffer(large), pickle.PickleBuffer(bytearray(10))), {})
    _, (arguments, data), (buffer, raw) = parts(made)
    assert isinstance(arguments, rows.Arguments) and arguments.buffers == 1
    assert isinstance(buffer, rows.Buffer) and raw == large
    assert len(data) < programs.BUFFER_MIN


def test_call_notes_the_objects_among_its_arguments_wherever_they_stand() -> None:
    one, two = item(path="one"), item(path="two")
    made = programs.call(add, ({"deep": [one]},), {"right": (two, two)})
    assert [found.path for found in made.objects] == ["one", "two"]


def test_call_notes_the_objects_that_its_function_captured() -> None:
    captured = item(path="captured")
    made = programs.call(lambda: captured, (), {})
    assert [found.path for found in made.objects] == ["captured"]


def test_call_refuses_what_does_not_pickle_and_says_which_part() -> None:
    with pytest.raises(ProgramError, match="the arguments of add cannot be sent: TypeError"):
        programs.call(add, (threading.Lock(),), {})


def test_call_refuses_what_is_no_function() -> None:
    not_callable: Any = 3
    with pytest.raises(ProgramError, match="expected a function"):
        programs.call(not_callable, (), {})


def test_chunk_holds_its_items_and_where_their_values_go() -> None:
    function = programs.function_row(add, [])
    made = programs.chunk(
        function, [], [(1,), (2,)], name="add", first=7, into=b"c" * 16, into_prefix="p/", copies=2
    )
    row, data = parts(made)[1]
    assert row == rows.Items(7, 2, 0, b"c" * 16, "p/", False, 2)
    assert pickle.loads(data) == [(1,), (2,)]
    assert (made.first, made.items) == (7, 2)


def test_source_holds_the_text_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.py"
    file.write_text("def main(): ...")
    (row, text), _ = parts(programs.source(file, (1,)))
    assert (row, text) == (rows.SourceFile("job.py"), b"def main(): ...")


def test_source_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"gone\.py: cannot be read"):
        programs.source(tmp_path / "gone.py")


def test_command_holds_its_files_and_whether_they_can_be_run(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh")
    tool.chmod(0o755)
    made = programs.command(
        ["./tool", "x"],
        inputs={"tool": tool, "in/data": b"data"},
        outputs=["*.out"],
        environment={"A": "1"},
    )
    found = parts(made)
    assert found[0][0] == rows.CommandLine(("./tool", "x"), ("A=1",), ("*.out",))
    assert found[1:] == [
        (rows.InputFile("tool", True), b"#!/bin/sh"),
        (rows.InputFile("in/data", False), b"data"),
    ]


@pytest.mark.parametrize("name", ["../up", "/abs", "a//b", "a\x00b", "."])
def test_command_refuses_an_input_whose_name_leaves_its_folder(name: str) -> None:
    with pytest.raises(NameRefused):
        programs.command(["x"], inputs={name: b""})


def test_value_object_holds_the_rows_of_a_value() -> None:
    ((row, data),) = read_rows(programs.value_rows({"a": 1}), ALL)
    assert row == rows.Value(0) and pickle.loads(data) == {"a": 1}
