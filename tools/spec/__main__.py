"""Write or check the generated parts of the documents: `./dev spec`, `./dev check`.

They are the tables of spec/PROTOCOL.md, made from the message registry, and those of docs/cli.md,
made from the commands. A part stands between two markers; what lies between them is replaced:

    <!-- generated: frame types -->
    ...
    <!-- end -->
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from alpyne_grid.tools.spec import command_line
from alpyne_grid.tools.spec import tables as protocol

import alpyne_proto
from alpyne_proto.errors import AlpyneError

ROOT = Path(alpyne_proto.__file__).resolve().parents[1]
Makers = Mapping[str, Callable[[], str]]

# Each document in the checkout, and what makes its parts.
DOCUMENTS: dict[str, Callable[[], Makers]] = {
    "spec/PROTOCOL.md": protocol.tables,
    "docs/cli.md": command_line.tables,
}

_BLOCK = re.compile(r"<!-- generated: (?P<name>[^>]*?) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)


class SpecError(AlpyneError):
    """A document's markers do not fit the parts that are made for it."""


def render(text: str, makers: Makers, where: str) -> str:
    """Return ``text`` with every generated part made anew; ``where`` names it in errors.

    Raises SpecError for a marker without a maker, and a maker whose marker is missing or repeated.
    """
    seen: list[str] = []

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in makers:
            raise SpecError(
                f"{where}: nothing is made for the marker {name!r}; "
                f"expected one of {', '.join(makers)}"
            )
        seen.append(name)
        return f"<!-- generated: {name} -->\n{makers[name]()}\n<!-- end -->"

    rendered = _BLOCK.sub(part, text)
    wrong = [name for name in makers if seen.count(name) != 1]
    if wrong:
        raise SpecError(
            f"{where}: expected `<!-- generated: NAME -->` and `<!-- end -->` once for each part; "
            f"not so for {', '.join(wrong)}"
        )
    return rendered


def difference(text: str, rendered: str) -> str:
    """Return what making the parts anew would change, as a unified diff; "" where nothing."""
    lines = difflib.unified_diff(
        text.splitlines(), rendered.splitlines(), "as written", "as generated", lineterm="", n=1
    )
    return "\n".join(lines)


def bring_up_to_date(path: Path, makers: Makers, *, check: bool) -> bool:
    """Write the parts of one document, or with ``check`` only compare; return whether all is well.

    Raises SpecError, and OSError for a file that cannot be read or written.
    """
    text = path.read_text(encoding="utf-8")
    rendered = render(text, makers, path.name)
    if rendered == text:
        return True
    if check:
        print(difference(text, rendered), file=sys.stderr)
        print(f"{path.name} is out of date: run `./dev spec` and commit it", file=sys.stderr)
        return False
    path.write_text(rendered, encoding="utf-8")
    return True


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the documents of the checkout ``root``, or compare them with ``--check``.

    Returns 0, or 1 where one differs or cannot be made.
    """
    parser = argparse.ArgumentParser(
        prog="python -m alpyne_grid.tools.spec",
        description=f"Write the generated parts of {' and '.join(DOCUMENTS)}.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail if they differ")
    check = parser.parse_args(argv).check
    all_well = True
    for name, makers in DOCUMENTS.items():
        try:
            all_well &= bring_up_to_date(root / name, makers(), check=check)
        except SpecError as error:
            print(error, file=sys.stderr)
            all_well = False
        except OSError as error:
            print(f"{name}: {error.strerror}; run this in a checkout", file=sys.stderr)
            all_well = False
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
