"""`alpyne run`: a program or a command on the grid."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from alpyne_grid.tools.exit_codes import ExitCode
from alpyne_grid.tools.option_types import as_json, duration, size
from alpyne_grid.tools.screen import print_json

if TYPE_CHECKING:
    from alpyne_grid.manager import AsyncJob, AsyncManager

_AFTER_DASHES = "alpyne.command"


class RunCommand(click.Command):
    """A command that knows whether its first word stood behind `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, and note whether `--` opens what follows the options."""
        given = list(args)
        found, _, _ = self.make_parser(ctx).parse_args(list(args))
        words = found.get("words")
        before = len(given) - len(words if isinstance(words, tuple) else ()) - 1
        ctx.meta[_AFTER_DASHES] = before >= 0 and given[before] == "--"
        return super().parse_args(ctx, args)


@click.command(
    cls=RunCommand,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@click.argument("words", nargs=-1, required=True, metavar="FILE [ARGS]... | -- PROGRAM [ARGS]...")
@click.option(
    "--detach", "-d", is_flag=True, help="Print the job's id, once a node has it, and go."
)
@click.option("--name", default="", help="What lists call the job (default: the file's name).")
@click.option("--tag", "tags", multiple=True, help="To find it again; may be repeated.")
@click.option("--memory", type=size, help="End it above this, as 500MiB.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="End it when it has more at once; threads count too.",
)
@click.option("--disk", type=size, help="End it when its files on the node take more than this.")
@click.option("--timeout", type=duration, help="End it when it has run so long, as 10m.")
@click.option(
    "--network",
    default="",
    metavar="NAME",
    help="Give it a network that the node lists; isolated jobs have none.",
)
@click.option(
    "--image", default="", metavar="IMAGE", help="Run it in another image that the node lists."
)
@click.option(
    "--cpus",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Slots it takes.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    help="Tries after a failure or crash.",
)
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="Run it there; repeatable.")
@click.option(
    "--require",
    "requirements",
    multiple=True,
    metavar="NAME=VALUE",
    help="Only where the node's offer has it: os=linux, slots>=4, labels~gpu; repeatable.",
)
@click.option(
    "--on-lost",
    type=click.Choice(["move", "wait"]),
    default="move",
    show_default=True,
    help="When its node is lost: run it elsewhere, or wait for that node.",
)
@click.option("--output-limit", type=size, help="End it when it has written more than this.")
@click.option(
    "--module",
    "modules",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="A module or package to send along, beside those in FILE's folder that it imports.",
)
@click.option("--literal", is_flag=True, help="Read each of ARGS as a Python literal if it is one.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]FILE",
    help="A file for PROGRAM, which runs in an empty folder; repeatable.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="PATTERN",
    help="Files of PROGRAM to bring back; repeatable.",
)
@click.option("--env", "settings", multiple=True, metavar="NAME=VALUE", help="For PROGRAM.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    metavar="FOLDER",
    help="Where files that come back go (default: here).",
)
@as_json
@click.pass_context
def run(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    detach: bool,
    modules: tuple[Path, ...],
    literal: bool,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    settings: tuple[str, ...],
    into: Path,
    as_json: bool,
    **options: Any,
) -> int:
    """Run a program on the grid.

    FILE is a .py file with a function main; ARGS go to main as text, and its value is printed. What
    stands behind -- is a program of the node's machine with its arguments. All options come before
    FILE or --.

    Output appears as the job writes it (with --json, all on standard error). Ctrl-C ends the job.
    Modules that FILE imports from its own folder travel with it.
    """
    from alpyne_grid.tools.grid import with_grid
    from alpyne_grid.tools.job_ends import EndOptions
    from alpyne_grid.tools.local_modules import modules_beside

    is_command = ctx.meta[_AFTER_DASHES]
    if not is_command:
        _check_program(words[0], inputs or outputs or settings)
        modules += tuple(modules_beside(Path(words[0])))

    def submit(grid: "AsyncManager") -> "AsyncJob":
        how = job_options(grid, options)
        if not is_command:
            return grid.run_source(words[0], *arguments(words[1:], literal=literal), **how)
        return grid.run_command(
            words,
            inputs=named(inputs, "--input", name_of_file=True),
            outputs=outputs,
            environment=named(settings, "--env"),
            **how,
        )

    ends = EndOptions(as_json, into)

    async def work(grid: "AsyncManager") -> ExitCode:
        job = submit(grid)
        return await (_detached(grid, job, as_json) if detach else _attached(job, ends))

    return with_grid(work, modules=modules)


async def _attached(job: "AsyncJob", options: Any) -> ExitCode:
    from alpyne_grid.tools.job_ends import follow

    return await follow(job, options)


async def _detached(grid: "AsyncManager", job: "AsyncJob", as_json: bool) -> ExitCode:
    from alpyne_grid.tools.job_ids import full_text

    grid.core.settles = False  # a result that is here at once is still to be fetched by `wait`
    await job.accepted()
    if as_json:
        print_json({"id": full_text(job.job_id), "node": job.node})
    else:
        click.echo(full_text(job.job_id))
    return ExitCode.OK


def _check_program(file: str, of_commands: Sequence[str]) -> None:
    if of_commands:
        raise click.UsageError("--input, --output and --env are for a program behind --")
    if not Path(file).is_file():
        raise click.UsageError(
            f"{file}: no such file; a program of the node's machine stands behind --, as in "
            f"`alpyne run -- {file}`"
        )


def job_options(grid: "AsyncManager", options: dict[str, Any]) -> dict[str, Any]:
    """Return what the manager is asked for, from the options of the command line."""
    return {
        "name": options["name"],
        "tags": options["tags"],
        "memory": options["memory"],
        "processes": options["processes"],
        "disk": options["disk"],
        "network": options["network"],
        "image": options["image"],
        "timeout": options["timeout"],
        "cpus": options["cpus"],
        "retries": options["retries"],
        "output": options["output_limit"],
        "require": options["requirements"],
        "on_lost": options["on_lost"],
        "nodes": [grid.core.node_key(node) for node in options["nodes"]],
    }


def arguments(words: Sequence[str], *, literal: bool) -> list[Any]:
    """Return the arguments for main: the words, or with ``literal`` what they stand for."""
    return [_literal(word) for word in words] if literal else list(words)


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word


def named(pairs: Sequence[str], option: str, *, name_of_file: bool = False) -> dict[str, str]:
    """Return NAME=VALUE pairs as a mapping; a file without NAME keeps its own."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name_of_file:
            name, value = Path(pair).name, pair
        elif not equals or not name:
            raise click.UsageError(f"{option}: expected NAME=VALUE, got {pair!r}")
        found[name] = value
    return found
