"""`./dev bench [ROW...]`: measure the figures and say which of them reach what they should."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from alpyne_grid.tools.bench import (
    backends,
    calls,
    cold,
    gridfs,
    idle,
    interrupts,
    objects,
    report,
)
from alpyne_grid.tools.bench.disk import NoRealDisk, file_system_of, real_folder
from alpyne_grid.tools.bench.figures import Figure
from alpyne_grid.tools.bench.parts import PartMissing, Parts
from alpyne_grid.tools.bench.setting import Amounts, Setting, tell

from alpyne_proto.errors import AlpyneError

ROWS: dict[str, Callable[[Setting], list[Figure]]] = {
    "cold": cold.measure,
    "call": calls.measure_sequential,
    "burst": calls.measure_burst,
    "map": calls.measure_map,
    "object": objects.measure,
    "interrupt": interrupts.measure,
    "idle": idle.measure,
    "backend": backends.measure_warm,
    "first": backends.measure_first,
    "gridfs": gridfs.measure,
}
EXIT_FAILED, EXIT_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None, amounts: Amounts | None = None) -> int:
    """Measure the rows that ``arguments`` name, all by default; return the exit code."""
    options = _parser().parse_args(arguments)
    begun = time.monotonic()
    try:
        base = real_folder(options.folder)
        folder = Path(tempfile.mkdtemp(prefix="alpyne-bench-", dir=base)).resolve()
    except (NoRealDisk, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_USAGE
    figures: list[Figure] = []
    about = report.machine(file_system_of(folder))
    report.print_head(about)
    parts = Parts.read(options.parts) if options.parts else Parts()
    setting = Setting(folder, options.runs, amounts or Amounts(), parts)
    skipped: list[str] = []
    try:
        for row in options.rows or ROWS:
            try:
                figures += ROWS[row](setting)
            except PartMissing as missing:
                tell("")
                skipped.append(f"row {row} is skipped: {missing}")
    except AlpyneError as error:
        print(f"bench: {row}: {error}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.print_table(figures, options.runs)
    print("".join(f"{line}\n" for line in skipped), end="")
    if options.json is not None:
        options.json.write_text(report.as_json(about, figures, options.runs) + "\n")
    print(f"{time.monotonic() - begun:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description="Measure the figures with real daemons on loopback. docs/figures.md says how.",
        epilog=f"rows: {', '.join(ROWS)} (default: all, which takes less than 10 minutes)",
    )
    parser.add_argument("rows", nargs="*", type=_row, metavar="ROW", help="what to measure")
    parser.add_argument("--runs", type=_runs, default=5, metavar="N", help="default: 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw values there")
    parser.add_argument(
        "--parts", type=Path, metavar="FILE", help="what `./dev parts` found: .parts/parts.json"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="an existing folder on a real disk; default: the one for temporary files",
    )
    return parser


def _row(text: str) -> str:
    if text not in ROWS:
        raise argparse.ArgumentTypeError(f"no row {text!r}; rows are {', '.join(ROWS)}")
    return text


def _runs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"expected 1 to 1000, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
