"""The main job: `./dev run [FOLDER]`, the whole way of Alpyne on real input.

Two compute nodes and three data nodes run as daemons on loopback. The Python files of FOLDER (by
default the standard library's) are pushed with two copies, filtered, analysed and reduced to one
report on the compute nodes, which read them from the data nodes by tickets. While that goes on, one
compute node is killed in the middle of a job and one data node in the middle of a read. The report
is then compared with that of a serial run which knows nothing of Alpyne.

With --docker-host and --image the compute nodes run jobs in containers of that engine. With
--uri-file the data nodes keep everything in MongoDB, each in a database of its own that is dropped
at the end. `./dev run --docker --mongodb` gives these for parts that it starts.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from corpus import find_corpus
from places import Places
from run import run

from alpyne_proto.errors import AlpyneError


def main() -> int:
    """Run it; return 0 only where everything was verified."""
    parser = argparse.ArgumentParser(prog="./dev run", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="folder with Python files")
    parser.add_argument("--docker-host", metavar="URL", help="an engine, as unix:///...")
    parser.add_argument("--image", help="an image of it with this version of Python")
    parser.add_argument("--uri-file", type=Path, help="file with the URI of a MongoDB replica set")
    options = parser.parse_args()
    if bool(options.docker_host) != bool(options.image):
        parser.error("--docker-host and --image belong together")
    try:
        corpus = find_corpus(options.folder)
        with (
            tempfile.TemporaryDirectory(prefix="alpyne-run-") as folder,
            Places(options.docker_host or "", options.image or "", options.uri_file) as places,
        ):
            return run(corpus, Path(folder), places)
    except AlpyneError as error:
        print(f"./dev run: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
