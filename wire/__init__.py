"""The protocol over asyncio stream servers: connections, servers, dialling, calls."""

if __name__ != "alpyne_grid.wire":
    raise ImportError("this folder is the package alpyne_grid.wire: import it by that name")
