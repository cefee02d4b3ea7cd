"""`alpyne node`, as the help shows it; the command line hands it on before this is loaded."""

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="compute|data [OPTIONS]")
def node(arguments: tuple[str, ...]) -> int:
    """Run a compute node or a data node.

    `alpyne node compute --help` and `alpyne node data --help` list the options. The first line on
    standard output says that the node serves, and its address.
    """
    from alpyne_grid.tools import node as starter

    return starter.run(list(arguments))
