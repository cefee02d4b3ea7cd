"""Every command that prints has --json."""

from collections.abc import Iterator

import click
import pytest
from alpyne_grid.tools.commands.root import COMMANDS, AlpyneGroup

# A node prints one line, its address, in a form that is documented for programs.
WITHOUT = {"node"}


def leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for part in command.list_commands(context):
        inner = command.get_command(context, part)
        assert inner is not None
        yield from leaves(inner, f"{name} {part}".strip())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT))
def test_command_takes_json_when_it_prints(name: str) -> None:
    group = AlpyneGroup()
    command = group.get_command(click.Context(group), name)
    assert command is not None
    for path, leaf in leaves(command, name):
        options = {option for param in leaf.params for option in param.opts}
        assert "--json" in options, path
