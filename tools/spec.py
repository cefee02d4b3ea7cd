"""Write or check the generated tables of spec/PROTOCOL.md: `./dev spec`, `./dev check`.

A table stands between two markers, and everything between them is replaced:

    <!-- generated: frame types -->
    ...
    <!-- end -->
"""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from alpyne_grid.tools.spec_tables import tables

import alpyne_proto
from alpyne_proto.errors import AlpyneError

SPEC_FILE = Path(alpyne_proto.__file__).resolve().parents[1] / "spec" / "PROTOCOL.md"

_BLOCK = re.compile(r"<!-- generated: (?P<name>[^>]*?) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)


class SpecError(AlpyneError):
    """The specification's markers do not fit the tables that are made for them."""


def render(text: str) -> str:
    """Return ``text`` with every generated block made anew.

    Raises SpecError for a block without a table, a table without a block, or one that stands twice.
    """
    makers = tables()
    seen: list[str] = []

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in makers:
            raise SpecError(
                f"{SPEC_FILE.name}: no table is made for the marker {name!r}; "
                f"expected one of {', '.join(makers)}"
            )
        seen.append(name)
        return f"<!-- generated: {name} -->\n{makers[name]()}\n<!-- end -->"

    rendered = _BLOCK.sub(block, text)
    wrong = [name for name in makers if seen.count(name) != 1]
    if wrong:
        raise SpecError(
            f"{SPEC_FILE.name}: expected one pair of markers `<!-- generated: NAME -->` and "
            f"`<!-- end -->` for each table; none or several for {', '.join(wrong)}"
        )
    return rendered


def difference(text: str, rendered: str) -> str:
    """Return what a regeneration would change, as a unified diff; "" where nothing."""
    lines = difflib.unified_diff(
        text.splitlines(), rendered.splitlines(), "as written", "as generated", lineterm="", n=1
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None, path: Path = SPEC_FILE) -> int:
    """Write the tables, or with ``--check`` compare them; return 0, or 1 where they differ."""
    parser = argparse.ArgumentParser(
        prog="python -m alpyne_grid.tools.spec",
        description="Write the generated tables of spec/PROTOCOL.md from the message registry.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail if they differ")
    arguments = parser.parse_args(argv)
    try:
        text = path.read_text(encoding="utf-8")
        rendered = render(text)
    except OSError as error:
        print(f"{path}: {error.strerror}; run this in a checkout", file=sys.stderr)
        return 1
    except SpecError as error:
        print(error, file=sys.stderr)
        return 1
    if rendered == text:
        return 0
    if arguments.check:
        print(difference(text, rendered), file=sys.stderr)
        print(f"{path.name} is out of date: run `./dev spec` and commit it", file=sys.stderr)
        return 1
    path.write_text(rendered, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
