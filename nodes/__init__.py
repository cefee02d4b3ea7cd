"""The daemons: compute nodes and data nodes."""

if __name__ != "alpyne_grid.nodes":
    raise ImportError("this folder is the package alpyne_grid.nodes: import it by that name")
