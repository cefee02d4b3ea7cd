"""`alpyne node compute|data`: the daemon, and an account for a user who has none yet.

The daemon shall be small, so nothing but its own modules is loaded into its process.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

_NAMES_OWNERS = ("--owner", "--config")
_ASKS_ONLY = ("-h", "--help", "--check-config")


def run(arguments: Sequence[str]) -> int:
    """Run the daemon that ``arguments`` (what follows `alpyne node`) describe; return exit code."""
    if needs_account(arguments, os.environ):
        failed = make_account()
        if failed and needs_account(arguments, os.environ):  # else another node was faster
            return failed
    from alpyne_grid.nodes.daemon import main

    return main(arguments)


def needs_account(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Say whether the node's owner would be the user's own account, and there is none."""
    if not {"compute", "data"} & set(arguments) or set(_ASKS_ONLY) & set(arguments):
        return False
    if any(word.split("=")[0] in _NAMES_OWNERS for word in arguments):
        return False
    if environment.get("ALPYNE_NODE_OWNER") or environment.get("ALPYNE_NODE_CONFIG"):
        return False
    from alpyne_grid.nodes.config import home_folder

    return not (home_folder(environment) / "account.pub").exists()


def make_account() -> int:
    """Make the user's account and device as `alpyne keygen` does; return its exit code.

    In a process of its own: keys and pool files are the manager's business, and its modules would
    stay in the daemon's memory.
    """
    # With -P the current folder stays off the path, unless it is what holds this program.
    isolated = [] if os.getcwd() in sys.path or "" in sys.path else ["-P"]
    command = [sys.executable, *isolated, "-m", "alpyne_grid", "keygen"]
    print("alpyne node: there is no account yet, making yours:", file=sys.stderr, flush=True)
    return subprocess.call(command, stdout=sys.stderr)
