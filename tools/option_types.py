"""Kinds of option values: sizes, durations; and the option --json.

Sizes and durations are read by the manager's own functions, so that they mean the same in a program
and on the command line. They are loaded when a value is there to be read, not for the help.
"""

from typing import Any

import click

from alpyne_proto.errors import AlpyneError


class SizeType(click.ParamType):
    """Bytes, as 512MiB or 10GiB; an int in Python."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes, or fail with click's usage error."""
        from alpyne_grid.manager.options import parse_size

        try:
            return parse_size(_number_or_text(value))
        except AlpyneError as error:
            self.fail(str(error), param, ctx)


class DurationType(click.ParamType):
    """Seconds, as 30s, 10m or 7d; a float in Python."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds, or fail with click's usage error."""
        from alpyne_grid.manager.options import parse_duration

        try:
            return parse_duration(value)
        except AlpyneError as error:
            self.fail(str(error), param, ctx)


def _number_or_text(value: Any) -> int | str:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


SIZE = SizeType()
DURATION = DurationType()
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
