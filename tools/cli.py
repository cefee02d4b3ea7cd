"""The command `alpyne`."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `alpyne` with ``arguments`` (default: the process's own); return the exit code.

    `alpyne node` goes to the daemon before anything else is imported, so that it stays small.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["node"]:
        from alpyne_grid.tools import node

        return node.run(given[1:])
    from alpyne_grid.tools.commands.root import execute

    return execute(given)


if __name__ == "__main__":
    sys.exit(main())
