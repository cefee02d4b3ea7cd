"""Source: a .py file as a function, for maps and reductions over files.

    for found in grid.map(Source("primes.py"), [10, 20, 30]):
        ...

What travels is the file's text and the one function here that runs it, by value: a worker lacks
this package.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
from alpyne_grid.manager.errors import ProgramError

_MAINS: dict[tuple[str, bytes], Callable[..., Any]] = {}


class Source:
    """The function ``main(...)`` of a .py file, to be given where a map or reduce takes one.

    The file is read once, here. Raises ProgramError for a file that cannot be read or is no Python.
    Its modules travel as those of a program do: from the main script's folder, or as ``modules=``
    of ``connect`` says.
    """

    def __init__(self, file: str | Path) -> None:
        path = Path(file)
        try:
            self._text = path.read_bytes()
            compile(self._text, path.name, "exec", dont_inherit=True)
        except OSError as error:
            raise ProgramError(f"{path}: cannot be read ({error.strerror})") from None
        except SyntaxError as error:
            place = f"{path}, line {error.lineno or 1}"
            raise ProgramError(f"bad program format: {place}: {error.msg}") from None
        except ValueError as error:  # NUL bytes
            raise ProgramError(f"bad program format: {path}: {error}") from None
        self.__name__ = self.__qualname__ = path.name

    def __repr__(self) -> str:
        return f"Source({self.__name__!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run ``main`` here."""
        return _run_main(self.__name__, self._text, *args, **kwargs)

    def __reduce__(self) -> Any:
        return partial, (_run_main, self.__name__, self._text)


def _run_main(name: str, text: bytes, /, *args: Any, **kwargs: Any) -> Any:
    """Call ``main`` of a program's text, which is executed once; TypeError where it has none."""
    main = _MAINS.get((name, text))
    if main is None:
        import linecache  # so that tracebacks show lines which are in no file there

        lines = text.decode("utf-8", "replace").splitlines(keepends=True)
        linecache.cache[name] = (len(text), None, lines, name)
        # Not __main__: what stands under `if __name__ == ...` must not run too.
        namespace: dict[str, Any] = {"__name__": "alpyne_program", "__file__": name}
        exec(compile(text, name, "exec", dont_inherit=True), namespace)  # noqa: S102
        found = namespace.get("main")
        if not callable(found):
            raise TypeError(
                f"bad program format: {name} has no function main; define `def main(...)`, whose "
                "return value is the item's result"
            )
        main = _MAINS[name, text] = found
    return main(*args, **kwargs)


cloudpickle.register_pickle_by_value(sys.modules[__name__])
