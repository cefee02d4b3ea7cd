"""The main job: `./dev run [FOLDER]`, the whole way of Alpyne on real input.

Two compute nodes and three data nodes run as daemons on loopback. The Python files of FOLDER (by
default the standard library's) are pushed with two copies, filtered, analysed and reduced to one
report on the compute nodes, which read them from the data nodes by tickets. While that goes on, one
compute node is killed in the middle of a job and one data node in the middle of a read. The report
is then compared with that of a serial run which knows nothing of Alpyne.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from corpus import find_corpus
from run import run

from alpyne_proto.errors import AlpyneError


def main() -> int:
    """Run it; return 0 only where everything was verified."""
    parser = argparse.ArgumentParser(prog="./dev run", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="folder with Python files")
    options = parser.parse_args()
    try:
        corpus = find_corpus(options.folder)
        with tempfile.TemporaryDirectory(prefix="alpyne-run-") as folder:
            return run(corpus, Path(folder))
    except AlpyneError as error:
        print(f"./dev run: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
