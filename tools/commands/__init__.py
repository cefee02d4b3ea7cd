"""The commands of `alpyne`, each loaded when it is used."""

from alpyne_grid.tools.commands.group import COMMANDS, group, run

__all__ = ["COMMANDS", "group", "run"]
