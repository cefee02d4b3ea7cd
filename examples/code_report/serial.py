"""The main job without a grid: read the folder, analyse file by file, print the report as JSON.

Run as a script in its own process, ``python serial.py FOLDER``; it imports nothing of Alpyne. The
list of files, relative to FOLDER, comes on standard input, one in a line.
"""

import json
import sys
from pathlib import Path

import analysis


def main() -> int:
    """Print the canonical report of the files of the folder that is named in the arguments."""
    folder = Path(sys.argv[1])
    report = analysis.empty()
    for line in sys.stdin:
        path = line.rstrip("\n")
        source = (folder / path).read_bytes()
        if analysis.has_definitions(source):
            report = analysis.merge(report, analysis.analyse(path, source))
    json.dump(analysis.canonical(report), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
