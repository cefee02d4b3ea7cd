"""Write or check the files of spec/vectors/ that are made from the code.

    python -m alpyne_grid.tools.vectors            write them
    python -m alpyne_grid.tools.vectors --check    change nothing; fail if they differ

Everything is derived from fixed bytes, so that two runs give the same files. A file that changes
means that the protocol has changed: old peers no longer understand new ones.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alpyne_grid.tools.vectors.frames import frame_vectors
from alpyne_grid.tools.vectors.invalid import invalid_vectors
from alpyne_grid.tools.vectors.records import record_vectors
from alpyne_grid.tools.vectors.session import session_vectors

import alpyne_proto

FOLDER = Path(alpyne_proto.__file__).resolve().parents[1] / "spec" / "vectors"

MAKERS: dict[str, Callable[[], Any]] = {
    "frames.json": frame_vectors,
    "records.json": record_vectors,
    "invalid.json": invalid_vectors,
    "session.json": session_vectors,
}


def render(content: Any) -> str:
    """Return the text of a vector file."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main(argv: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Write the files, or with ``--check`` compare them; return 0, or 1 where they differ."""
    parser = argparse.ArgumentParser(
        prog="python -m alpyne_grid.tools.vectors",
        description="Write the vectors of spec/vectors/ that are made from the code.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail if they differ")
    check: bool = parser.parse_args(argv).check
    changed = []
    for name, make in MAKERS.items():
        path = folder / name
        text = render(make())
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        changed.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and changed:
        print(
            f"{folder}: {', '.join(changed)} out of date: the bytes on the wire have changed. If "
            "that is meant, run `python -m alpyne_grid.tools.vectors` and commit the files",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
