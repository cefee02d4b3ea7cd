"""The group of all commands: their order in the help, how they are loaded, how they fail."""

import importlib
import os
import sys
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import click
from alpyne_grid.tools.exit_codes import ExitCode, exit_code_of, exit_code_table
from alpyne_grid.tools.screen import clean

from alpyne_grid import __version__
from alpyne_proto.errors import AlpyneError

_PACKAGE = "alpyne_grid.tools.commands"

# Command -> module of this package that has it, in the order of the help.
SECTIONS: dict[str, dict[str, str]] = {
    "Keys and nodes": {
        "keygen": "keys",
        "device": "devices",
        "node": "daemons",
        "pair": "pairing",
        "nodes": "nodes",
    },
    "Access to a node": {"invite": "access", "accounts": "access", "revoke": "access"},
    "Jobs": {
        "run": "run",
        "jobs": "jobs",
        "output": "output",
        "wait": "waiting",
        "cancel": "waiting",
        "suspend": "pausing",
        "resume": "pausing",
    },
    "Objects": {"put": "copying", "get": "copying", "ls": "listing", "rm": "listing"},
}
COMMANDS = MappingProxyType(
    {name: where for part in SECTIONS.values() for name, where in part.items()}
)

_HELP = """\
Grid computing for a handful of unlike machines.

\b
First steps:
  alpyne keygen            make your keys
  alpyne node compute      run a node here, in the foreground
  alpyne pair ADDRESS      take it into your pool, by the address that it prints
  alpyne run FILE          run a program on the pool
"""


class AlpyneGroup(click.Group):
    """All commands, loaded one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load and return a command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{_PACKAGE}.{COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command as click does; an unknown one is answered with the nearest names."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = " or ".join(
                f"`alpyne {one}`" for one in difflib.get_close_matches(name, COMMANDS)
            )
            ctx.fail(f"no such command {name!r}" + (f"; did you mean {near}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of commands, and what the exit codes mean."""
        for title, names in SECTIONS.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                assert command is not None
                rows.append((name, command.get_short_help_str(limit=70)))
            with formatter.section(title):
                formatter.write_dl(rows)
        with formatter.section("Environment"):
            formatter.write_dl([("ALPYNE_HOME", "your keys and pool (default: ~/.config/alpyne)")])
        with formatter.section("Exit codes"):
            formatter.write(exit_code_table() + "\n")


@click.group(
    cls=AlpyneGroup,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.version_option(__version__, message="alpyne %(version)s")
def alpyne() -> None:
    """Run one of the commands."""


def execute(arguments: Sequence[str]) -> int:
    """Run `alpyne` with ``arguments``; return its exit code and leave no traceback behind."""
    try:
        result: Any = alpyne.main(list(arguments), prog_name="alpyne", standalone_mode=False)
        return int(result or 0)
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        print(f"alpyne: {error.format_message()}", file=sys.stderr)
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except AlpyneError as error:
        print(f"alpyne: {clean(str(error))}", file=sys.stderr)
        return exit_code_of(error)
    except OSError as error:
        print(f"alpyne: {_os_error_text(error)}", file=sys.stderr)
        return exit_code_of(error)


def _os_error_text(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{os.fspath(error.filename)!r}: {text}" if error.filename is not None else text
