"""`python -m alpyne_grid` is the command `alpyne`."""

import sys

from alpyne_grid.tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
