"""Values of options: sizes, durations; and the option --json.

Each is a function that click calls with the text, and whose name is shown in the help. Sizes and
durations are read by the manager's own functions, so that they mean the same in a program and on
the command line. Those are loaded when there is a value to read, not for the help.
"""

import click

from alpyne_proto.errors import AlpyneError


def size(text: str) -> int:
    """Return bytes for 512MiB or 10GiB; click.BadParameter for anything else."""
    from alpyne_grid.manager.options import parse_size

    try:
        return parse_size(text)
    except AlpyneError as error:
        raise click.BadParameter(str(error)) from None


def duration(text: str) -> float:
    """Return seconds for 30s, 10m or 7d; click.BadParameter for anything else."""
    from alpyne_grid.manager.options import parse_duration

    try:
        return parse_duration(text)
    except AlpyneError as error:
        raise click.BadParameter(str(error)) from None


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
