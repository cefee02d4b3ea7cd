"""`alpyne nodes`: the pool at a glance."""

from typing import TYPE_CHECKING, Any

import click
from alpyne_grid.tools.exit_codes import ExitCode, exit_code_of
from alpyne_grid.tools.option_types import as_json
from alpyne_grid.tools.quantities import duration_text, size_text
from alpyne_grid.tools.screen import Column, note, print_facts, print_json, print_table

from alpyne_proto.errors import ErrorCode

if TYPE_CHECKING:
    from alpyne_grid.tools.pool_requests import Outcome

    from alpyne_proto.messages.access import NodeStatus

    Asked = Outcome[NodeStatus]


@click.command()
@click.argument("names", nargs=-1, metavar="[NODE]...")
@click.option("--long", "-l", "is_long", is_flag=True, help="Also addresses and what they offer.")
@click.option("--forget", is_flag=True, help="Take the nodes that are named out of the pool.")
@as_json
def nodes(names: tuple[str, ...], is_long: bool, forget: bool, as_json: bool) -> int:
    """Show the pool: health, score, load, slots.

    The score is the node's benchmark on one core; ~ marks an estimate that is not yet measured.
    FREE is memory of a compute node, disk of a data node. USED is what you keep there. LEVEL is how
    jobs are isolated: 0 not at all, 1 in namespaces, 2 in containers.
    """
    from alpyne_grid.manager import admin, pool
    from alpyne_grid.tools import home
    from alpyne_grid.tools.pool_requests import at_each_node

    targets = [home.find_node(name) for name in names] or home.pool_nodes()
    if forget:
        if not names:
            raise click.UsageError("--forget: name the nodes")
        for node in targets:
            pool.remove_node(home.home(), node.key)
            note(f"{node.shown} is no longer in the pool; your account stays known to it")
        return ExitCode.OK
    outcomes = at_each_node(home.who(), targets, admin.status) if targets else []
    if as_json:
        print_json([_as_dict(outcome) for outcome in outcomes])
    elif outcomes:
        print_table(_COLUMNS, [_row(outcome) for outcome in outcomes])
        if is_long:
            for outcome in outcomes:
                _print_long(outcome)
    if not outcomes:
        note("The pool has no nodes; `alpyne pair ADDRESS` adds one.")
        return ExitCode.OK
    for outcome in outcomes:
        if outcome.error is not None:
            note(f"{outcome.node.shown}: {outcome.error}")
    if any(outcome.error is None for outcome in outcomes):
        return ExitCode.OK
    assert outcomes[0].error is not None
    return exit_code_of(outcomes[0].error)


_COLUMNS = [
    Column("NODE"),
    Column("KIND"),
    Column("HEALTH", wraps=True),
    Column("SCORE", right=True),
    Column("SLOTS", right=True),
    Column("QUEUED", right=True),
    Column("LOAD", right=True),
    Column("FREE", right=True),
    Column("USED", right=True),
    Column("LEVEL", right=True),
    Column("HOST", wraps=True),
    Column("TRUSTED"),
]


def _row(outcome: "Asked") -> list[str]:
    node, status = outcome.node, outcome.value
    kind = node.kind.name.lower() if node.kind is not None else ""
    host, trusted = node.label, "yes" if node.trusted else "no"
    if status is None:
        return [node.shown, kind, _health(outcome), "", "", "", "", "", "", "", host, trusted]
    is_compute = kind == "compute"
    score = f"{'~' if status.score_estimated else ''}{status.score:.0f}"
    return [
        node.shown,
        kind,
        _health(outcome),
        score if is_compute else "",
        f"{status.busy_slots}/{status.slots}" if is_compute else "",
        str(status.queued) if is_compute else "",
        f"{status.load:.2f}",
        size_text(status.memory_free if is_compute else status.disk_free),
        size_text(status.used_bytes),
        attribute(status, "isolation"),
        host,
        trusted if is_compute else "",
    ]


def attribute(status: "NodeStatus", name: str) -> str:
    """Return an attribute of a node's offer, "" where it has none of that name."""
    return next((one.value for one in status.attributes if one.name == name), "")


def _health(outcome: "Asked") -> str:
    if outcome.value is not None:
        return outcome.value.health or "well"
    from alpyne_grid.manager.errors import NotRegistered

    if isinstance(outcome.error, NotRegistered):
        return "not registered"
    code = outcome.error.code if outcome.error is not None else None
    return "revoked" if code is ErrorCode.REVOKED else "unreachable"


def _print_long(outcome: "Asked") -> None:
    node, status = outcome.node, outcome.value
    click.echo()
    print_facts([(node.shown, str(node.address))])
    if status is None:
        return
    print_facts(
        [
            ("  up", duration_text(status.uptime_s)),
            *_of_compute(status),
            ("  disk free", size_text(status.disk_free)),
            ("  quota", size_text(status.quota_bytes) if status.quota_bytes else "no limit"),
            *((f"  {one.name}", one.value) for one in status.attributes),
        ]
    )


def _of_compute(status: "NodeStatus") -> list[tuple[str, str]]:
    from alpyne_proto.messages.hello import NodeKind

    if status.kind is not NodeKind.COMPUTE:
        return []
    return [("  score, all cores", f"{status.score_all:.0f}")]


def _as_dict(outcome: "Asked") -> dict[str, Any]:
    node, status = outcome.node, outcome.value
    known: dict[str, Any] = {
        "node": node.shown,
        "address": str(node.address),
        "kind": node.kind.name.lower() if node.kind is not None else None,
        "host": node.label,
        "trusted": node.trusted,
        "reachable": status is not None,
        "health": _health(outcome),
        "error": str(outcome.error) if outcome.error is not None else None,
    }
    if status is None:
        return known
    is_compute, level = known["kind"] == "compute", attribute(status, "isolation")
    return known | {
        "score": status.score,
        "score_all": status.score_all,
        "score_estimated": status.score_estimated,
        "slots": status.slots,
        "busy_slots": status.busy_slots,
        "queued": status.queued,
        "load": status.load,
        "memory_free": status.memory_free,
        "disk_free": status.disk_free,
        "used_bytes": status.used_bytes,
        "quota_bytes": status.quota_bytes,
        "uptime_s": status.uptime_s,
        "backend": attribute(status, "backend") or None,
        "isolation": int(level) if is_compute and level.isdecimal() else None,
        "suspend": attribute(status, "suspend") or None,
        "limits": {
            one.name.removeprefix("limit."): one.value
            for one in status.attributes
            if one.name.startswith("limit.")
        },
        "attributes": {one.name: one.value for one in status.attributes},
    }
