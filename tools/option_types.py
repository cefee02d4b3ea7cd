"""Kinds of option values: sizes, durations."""

from typing import Any

import click
from alpyne_grid.tools.quantities import parse_duration, parse_size


class SizeType(click.ParamType):
    """Bytes, as 512MiB or 10GiB; an int in Python."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes, or fail with click's usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class DurationType(click.ParamType):
    """Seconds, as 30s, 10m or 7d; a float in Python."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds, or fail with click's usage error."""
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = SizeType()
DURATION = DurationType()
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
