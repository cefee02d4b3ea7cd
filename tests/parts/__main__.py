"""`./dev parts`: install and start what is missing, say what there is; `--stop` ends it again."""

import argparse
import json
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a folder: its own name is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from parts import places
from parts.inventory import PARTS, Line, stop

_EPILOG = """\
Parts are installed by apt-get where you are root on Debian or Ubuntu; elsewhere it is said what to
type. What is started goes on until `./dev parts --stop`. All of it lies in the folder .parts.
"""


def main() -> int:
    """Do what the command line says; 0 only where every part that was asked for is there."""
    options = _parser().parse_args()
    with places.one_at_a_time(places.PARTS):
        if options.stop:
            lines = stop(options.parts or list(PARTS))
        else:
            lines, known = [], places.found()
            for name in options.parts or PARTS:
                print(f"parts: {name} ...", file=sys.stderr, flush=True)
                more, known[name] = PARTS[name]()
                lines += more
                if not known[name]:
                    del known[name]
            places.remember(known)
        _show(lines, as_json=options.json)
    return 0 if all(line.works for line in lines) else 1


def _show(lines: list[Line], *, as_json: bool) -> None:
    if as_json:
        parts = [line._asdict() for line in lines]
        print(json.dumps({"parts": parts, "found": places.found()}, indent=1))
        return
    widths = [max(map(len, column)) for column in zip(*(line[:2] for line in lines), strict=True)]
    for line in lines:
        print(f"{line.part:{widths[0]}}  {line.state:{widths[1]}}  {line.where}".rstrip())
        if line.todo:
            print("".join(f"    {part}\n" for part in line.todo.splitlines()), end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev parts",
        description="Install and start the parts that tests need beyond Python.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts",
        nargs="*",
        type=_part,
        metavar="PART",
        help=f"{', '.join(PARTS)} (default: all)",
    )
    parser.add_argument("--stop", action="store_true", help="end what was started")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"no part {text!r}; parts are {', '.join(PARTS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
