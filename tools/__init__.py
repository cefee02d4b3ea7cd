"""The command line and the project's own commands."""

if __name__ != "alpyne_grid.tools":
    raise ImportError("this folder is the package alpyne_grid.tools: import it by that name")
