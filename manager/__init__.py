"""The manager library: what a program embeds to use the grid."""

if __name__ != "alpyne_grid.manager":
    raise ImportError("this folder is the package alpyne_grid.manager: import it by that name")
