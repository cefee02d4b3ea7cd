"""The form SOURCE: a .py file with ``main(...)``."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from alpyne_proto.messages.job_terms import Cause
from alpyne_proto.messages.program import Arguments, SourceFile
from alpyne_proto.registry import Message

from .calls import add_value
from .failures import ProgramFailed
from .program import arguments, expect, missing_module
from .values import Body, Encoder, cloud_pickle

MODULE = "alpyne_program"  # not __main__: what stands under `if __name__ == ...` must not run too


def run_source(source: Iterator[tuple[Message, memoryview]], encoder: Encoder) -> Body:
    """Run a source file, then its ``main`` with the arguments; return the value's rows.

    Raises ProgramFailed: BAD_PROGRAM for text that is no program or has no main, MISSING_FILE for
    a module that it imports and that is not here. Raises what the program raises.
    """
    row, text = expect(source, SourceFile)
    args_row, payload = expect(source, Arguments)
    module = ModuleType(MODULE)
    module.__file__ = row.name
    sys.modules[MODULE] = module
    pickles = cloud_pickle()
    pickles.register_pickle_by_value(module)  # the manager cannot import it
    try:
        main = _main_of(module, row.name, bytes(text))
        args, kwargs = arguments(args_row, payload, source)
        body = Body()
        add_value(body, encoder, main(*args, **kwargs))
        return body
    finally:
        pickles.unregister_pickle_by_value(module)
        sys.modules.pop(MODULE, None)


def _main_of(module: ModuleType, name: str, text: bytes) -> Callable[..., Any]:
    try:
        code = compile(text, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ProgramFailed(
            Cause.BAD_PROGRAM,
            f"bad program format: {name}, line {error.lineno or 1}: {error.msg}",
            error,
        ) from None
    except ValueError as error:  # NUL bytes
        raise ProgramFailed(Cause.BAD_PROGRAM, f"bad program format: {name}: {error}") from None
    _remember_lines(name, text)
    try:
        exec(code, module.__dict__)
    except ImportError as error:
        raise missing_module(error) from None
    main = module.__dict__.get("main")
    if not callable(main):
        raise ProgramFailed(
            Cause.BAD_PROGRAM,
            f"bad program format: {name} has no function main; define `def main(...)`, whose "
            "return value is the job's result",
        )
    found: Callable[..., Any] = main
    return found


def _remember_lines(name: str, text: bytes) -> None:
    """Let tracebacks show the program's lines, which are in no file here."""
    import linecache  # a call needs none of it

    decoded = text.decode("utf-8", "replace")
    linecache.cache[name] = (len(text), None, decoded.splitlines(keepends=True), name)
