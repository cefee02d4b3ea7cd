"""`alpyne jobs`: what the nodes know of the account's jobs."""

import time
from typing import TYPE_CHECKING, Any

import click
from alpyne_grid.tools import job_ids
from alpyne_grid.tools.exit_codes import ExitCode, exit_code_of
from alpyne_grid.tools.option_types import as_json
from alpyne_grid.tools.quantities import duration_text
from alpyne_grid.tools.screen import Column, note, print_json, print_table
from alpyne_grid.tools.usage import peak_text, usage_as_dict

if TYPE_CHECKING:
    from alpyne_grid.tools.job_lists import ListedJob, Listing

_STATES = (
    "queued", "starting", "running", "suspended",
    "done", "failed", "killed", "limit", "timeout", "lost",
)  # fmt: skip


@click.command()
@click.option("--all", "-a", "show_all", is_flag=True, help="Also those whose result was fetched.")
@click.option("--tag", default="", metavar="TAG", help="Only jobs with this tag.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES, case_sensitive=False),
    help="Only jobs in this state; may be repeated.",
)
@click.option("--node", "node_names", multiple=True, metavar="NODE", help="Only at this node.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    default=100,
    show_default=True,
    help="Most rows.",
)
@as_json
def jobs(
    show_all: bool,
    tag: str,
    states: tuple[str, ...],
    node_names: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> int:
    """List your jobs at the nodes of the pool.

    The newest stand last. Shown are jobs that are not over, and those whose result nobody has
    fetched yet. IDs may be shortened wherever one is asked for.
    """
    from alpyne_grid.tools import home
    from alpyne_grid.tools.job_lists import list_jobs

    from alpyne_proto.messages.compute import JobState, ListJobs

    bits = sum(1 << JobState[state.upper()] for state in set(states))
    nodes = [home.find_node(name) for name in node_names] or home.pool_nodes()
    listing = list_jobs(home.who(), nodes, ListJobs(tag=tag, states=bits))
    chosen = [job for job in listing.jobs if show_all or states or not job.is_over]
    shown = chosen[-limit:]
    shorts = job_ids.short_texts(job.row.job_id for job in listing.jobs)
    if as_json:
        print_json([_as_dict(job) for job in shown])
    else:
        now_ms = time.time() * 1000
        print_table(_COLUMNS, [_row(job, shorts, now_ms) for job in shown])
        _say_hidden(len(listing.jobs) - len(chosen), len(chosen) - len(shown))
    return say_failures(listing)


def say_failures(listing: "Listing") -> ExitCode:
    """Name the nodes that could not be asked; return the exit code that it means."""
    for outcome in listing.failed:
        note(f"{outcome.node.shown}: {outcome.error}")
    error = listing.first_error()
    return exit_code_of(error) if error is not None else ExitCode.OK


_COLUMNS = [
    Column("ID"),
    Column("STATE"),
    Column("NODE"),
    Column("NAME", wraps=True),
    Column("TAGS", wraps=True),
    Column("AGE", right=True),
    Column("RAN", right=True),
    Column("CPU", right=True),
    Column("MEMORY", right=True),
]


def _row(job: "ListedJob", shorts: dict[bytes, str], now_ms: float) -> list[str]:
    row = job.row
    used = row.usage
    return [
        shorts[row.job_id],
        state_text(job),
        job.node.shown,
        row.name,
        ", ".join(row.tags),
        duration_text((now_ms - row.submitted_at_ms) / 1000),
        duration_text(used.wall_ms / 1000) if used.wall_ms else "",
        duration_text(used.cpu_ms / 1000) if used.cpu_ms else "",
        peak_text(used),
    ]


def state_text(job: "ListedJob") -> str:
    """Return a job's state in a word, with its cause where it did not end well."""
    word = job.row.state.name.lower()
    cause = job.row.cause.name.lower().replace("_", " ")
    return word if cause == "none" else f"{word} ({cause})"


def _say_hidden(delivered: int, over_limit: int) -> None:
    if over_limit:
        note(f"{over_limit} older ones are not shown; --limit shows more.")
    if delivered:
        note(f"{delivered} more are over and their results fetched; --all lists them too.")


def _as_dict(job: "ListedJob") -> dict[str, Any]:
    row = job.row
    return {
        "id": job_ids.full_text(row.job_id),
        "state": row.state.name,
        "cause": row.cause.name,
        "text": row.text,
        "node": job.node.shown,
        "name": row.name,
        "form": row.form.name,
        "tags": list(row.tags),
        "group": row.group.hex() or None,
        "index": row.index,
        "allocation": row.allocation,
        "attempt": row.attempt,
        "submitted_at_ms": row.submitted_at_ms,
        "delivered": row.settled,
        "result_bytes": row.result_bytes,
        "usage": usage_as_dict(row.usage),
    }
