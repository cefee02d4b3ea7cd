"""The generated parts of docs/cli.md, made from the commands themselves and the exit codes."""

import argparse
from collections.abc import Callable, Iterator, Sequence

import click
from alpyne_grid.tools.commands.root import COMMANDS, alpyne
from alpyne_grid.tools.exit_codes import ExitCode


def tables() -> dict[str, Callable[[], str]]:
    """Return the maker of each generated block by its name in the marker."""
    blocks: dict[str, Callable[[], str]] = {"exit codes": exit_codes}
    for name in COMMANDS:
        blocks[f"alpyne {name}"] = node_options if name == "node" else _of_command(name)
    return blocks


def exit_codes() -> str:
    """Return the table of exit codes."""
    rows = [(str(code.value), code.name, code.meaning) for code in ExitCode]
    return _table(("code", "name", "meaning"), rows)


def _of_command(name: str) -> Callable[[], str]:
    def make() -> str:
        command = alpyne.get_command(click.Context(alpyne), name)
        assert command is not None
        return "\n\n".join(_described(command, f"alpyne {name}"))

    return make


def _described(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    yield f"    {name} {' '.join(command.collect_usage_pieces(context))}"
    yield _paragraphs(command.help or "")
    rows = [
        (f"`{_option_text(option, context)}`", f"{option.help or ''}{_default_text(option)}")
        for option in command.params
        if isinstance(option, click.Option)
    ]
    if rows:
        yield _table(("option", "meaning"), rows)
    if isinstance(command, click.Group):
        for sub_name in command.list_commands(context):
            sub_command = command.get_command(context, sub_name)
            assert sub_command is not None
            yield from _described(sub_command, f"{name} {sub_name}")


def _option_text(option: click.Option, context: click.Context) -> str:
    names = ", ".join((*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {option.make_metavar(context)}"


def _default_text(option: click.Option) -> str:
    return f" Default: {option.default}." if option.show_default else ""


def _paragraphs(text: str) -> str:
    parts = text.replace("\b\n", "").strip().split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in parts)


def node_options() -> str:
    """Return the options of the daemons, which have a parser of their own."""
    from alpyne_grid.nodes.daemon import command_parser

    parts = []
    [kinds] = [
        action
        for action in command_parser()._actions  # argparse has no public way to the subparsers
        if isinstance(action, argparse._SubParsersAction)
    ]
    for kind, parser in kinds.choices.items():
        rows = [
            (f"`{', '.join(o.option_strings)}{f' {o.metavar}' if o.metavar else ''}`", o.help or "")
            for o in parser._actions
            if o.option_strings and "--help" not in o.option_strings
        ]
        parts += [f"    alpyne node {kind} [OPTIONS]", _table(("option", "meaning"), rows)]
    return "\n\n".join(parts)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(c.replace("|", "\\|") for c in r) for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
