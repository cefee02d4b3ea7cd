"""`python -m alpyne_grid` is the command `alpyne`."""

from alpyne_grid.tools.cli import main

if __name__ == "__main__":
    main()
