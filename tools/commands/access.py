"""`alpyne invite`, `accounts`, `revoke`: who may use a node."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from alpyne_grid.tools.exit_codes import ExitCode, exit_code_of
from alpyne_grid.tools.option_types import as_json, duration, size
from alpyne_grid.tools.quantities import duration_text, size_text
from alpyne_grid.tools.screen import Column, note, print_facts, print_json, print_table

from alpyne_proto.errors import AlpyneError, ErrorCode

if TYPE_CHECKING:
    from alpyne_grid.manager.pool import PoolNode
    from alpyne_grid.tools.pool_requests import Outcome

    from alpyne_proto.messages.access import AccountRow

_LIFE_MAX_S = 2**32 - 1


class AccountNotFound(AlpyneError):
    """No account, or more than one, fits what was typed."""

    code = ErrorCode.NOT_FOUND


@click.command()
@click.argument("node")
@click.option("--admin", is_flag=True, help="The invited may administer the node.")
@click.option("--quota", type=size, help="Bytes they may keep there (default: the node's own).")
@click.option(
    "--life", type=duration, default="7d", show_default=True, help="When the code expires."
)
@click.option("--note", "remark", default="", metavar="TEXT", help="Who it is for.")
@click.option("--quiet", "-q", is_flag=True, help="Print the code alone.")
@as_json
def invite(
    node: str, admin: bool, quota: int | None, life: float, remark: str, quiet: bool, as_json: bool
) -> None:
    """Make a code that admits one more account to NODE.

    The code works once and at this node only. For administrators of the node.
    """
    from alpyne_grid.manager import admin as requests
    from alpyne_grid.tools import home
    from alpyne_grid.tools.pool_requests import at_node

    from alpyne_proto.messages.control import AccountRole

    if not 1 <= life <= _LIFE_MAX_S:
        raise click.UsageError("--life: expected 1s to 136 years")
    target = home.find_node(node)
    made = at_node(
        home.who(),
        target,
        lambda link: requests.invite(
            link,
            life_s=int(life),
            role=AccountRole.ADMIN if admin else AccountRole.USER,
            quota_bytes=quota or 0,
            note=remark,
        ),
    )
    command = f"alpyne pair {shlex.quote(str(target.address))} --invitation {made.code}"
    if as_json:
        print_json(
            {
                "code": made.code,
                "not_after": made.not_after,
                "address": str(target.address),
                "role": "admin" if admin else "user",
                "command": command,
            }
        )
    elif quiet:
        click.echo(made.code)
    else:
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(made.not_after))
        print_facts([("invitation", made.code), ("works once, until", until)])
        note("Hand this over, by a way that nobody listens to:")
        click.echo(f"    {command}")


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@as_json
def accounts(nodes: tuple[str, ...], as_json: bool) -> int:
    """List the accounts that nodes know.

    Without NODE: of every node of the pool that you administer.
    """
    from alpyne_grid.manager import admin
    from alpyne_grid.tools import home
    from alpyne_grid.tools.pool_requests import at_each_node

    targets = [home.find_node(text) for text in nodes] or home.pool_nodes()
    outcomes = at_each_node(home.who(), targets, admin.accounts)
    if not nodes:  # of the whole pool, only what one may see
        outcomes = [o for o in outcomes if not _is_refused(o)]
    rows = [(o.node, row) for o in outcomes for row in o.value or ()]
    if as_json:
        print_json([_as_dict(node, row) for node, row in rows])
    else:
        _print_accounts(rows)
    return _say_failures(outcomes)


@click.command()
@click.argument("account")
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="At this node; repeatable.")
@click.option("--pool", "whole_pool", is_flag=True, help="At every node of your pool.")
@as_json
def revoke(account: str, nodes: tuple[str, ...], whole_pool: bool, as_json: bool) -> int:
    """Stop serving an account at nodes.

    Its connections, jobs and tickets end, its objects stay. ACCOUNT is its .pub file, its
    fingerprint (SHA256:...), or its name in `alpyne accounts`. For administrators. Nodes that
    cannot be reached are named; run the command again when they are.
    """
    from alpyne_grid.manager import admin
    from alpyne_grid.tools import home
    from alpyne_grid.tools.pool_requests import at_each_node, print_outcomes

    if whole_pool == bool(nodes):
        raise click.UsageError("say where: --node NODE, or --pool for every node of your pool")
    targets = [home.find_node(text) for text in nodes] if nodes else home.pool_nodes()
    me = home.who()
    key = _key_in_file(account)
    if key is None:
        listed = at_each_node(me, targets, admin.accounts)
        if all(outcome.error is not None for outcome in listed):
            return print_outcomes(f"account {account}", "revoked", listed, as_json)
        key = find_account(account, [row for o in listed for row in o.value or ()])
    wanted = key
    outcomes = at_each_node(me, targets, lambda link: admin.revoke_account(link, wanted))
    if outcomes and all(outcome.is_unknown for outcome in outcomes):
        raise AccountNotFound(f"account {account}: no node asked knows it")
    return print_outcomes(f"account {account}", "revoked", outcomes, as_json)


def find_account(text: str, rows: "list[AccountRow]") -> bytes:
    """Return the key of the one account among ``rows`` that ``text`` names.

    ``text``: a fingerprint or the start of one (SHA256:...), or a registered name, which a stranger
    may have chosen, so that it must fit one account alone. Raises AccountNotFound.
    """
    from alpyne_proto.ssh_keys import account_fingerprint

    by_print = text.startswith("SHA256:") and len(text) >= 12
    fitting = {
        row.account: row
        for row in rows
        if (by_print and account_fingerprint(row.account).startswith(text)) or row.name == text
    }
    if len(fitting) == 1:
        return next(iter(fitting))
    if not fitting:
        raise AccountNotFound(
            f"account {text!r}: no such account; `alpyne accounts` lists names and fingerprints"
        )
    prints = ", ".join(account_fingerprint(key) for key in sorted(fitting))
    raise AccountNotFound(
        f"account {text!r}: {len(fitting)} accounts fit; give the fingerprint: {prints}"
    )


def _key_in_file(text: str) -> bytes | None:
    from alpyne_proto.ssh_keys import read_public_line

    path = Path(text).expanduser()
    if path.suffix != ".pub" and not path.is_file():
        return None
    return read_public_line(path.read_text(errors="replace"), str(path))[0]


def _is_refused(outcome: "Outcome[list[AccountRow]]") -> bool:
    return outcome.error is not None and outcome.error.code is ErrorCode.NOT_PERMITTED


def _say_failures(outcomes: "list[Outcome[list[AccountRow]]]") -> ExitCode:
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    for outcome in outcomes:
        if outcome.error is not None:
            note(f"{outcome.node.shown}: {outcome.error}")
    if not outcomes:
        note("You administer no node of the pool; `alpyne accounts NODE` asks one of them.")
        return ExitCode.NOT_PERMITTED
    if not failed:
        return ExitCode.OK
    return ExitCode.PARTLY if len(failed) < len(outcomes) else exit_code_of(failed[0])


def _print_accounts(rows: "list[tuple[PoolNode, AccountRow]]") -> None:
    from alpyne_proto.ssh_keys import account_fingerprint

    columns = [
        Column("NODE"),
        Column("NAME", wraps=True),
        Column("ACCOUNT", wraps=True),
        Column("ROLE"),
        Column("USED", right=True),
        Column("QUOTA", right=True),
        Column("CONNECTED", right=True),
        Column("SINCE", right=True),
        Column("STATE"),
    ]
    now = time.time()
    print_table(
        columns,
        [
            [
                node.shown,
                row.name,
                account_fingerprint(row.account),
                row.role.name.lower(),
                size_text(row.used_bytes),
                size_text(row.quota_bytes) if row.quota_bytes else "no limit",
                str(row.connections),
                duration_text(max(0.0, now - row.registered_at)),
                "revoked" if row.revoked else "served",
            ]
            for node, row in rows
        ],
    )


def _as_dict(node: "PoolNode", row: "AccountRow") -> dict[str, object]:
    from alpyne_proto.ssh_keys import account_fingerprint

    return {
        "node": node.shown,
        "name": row.name,
        "account": account_fingerprint(row.account),
        "role": row.role.name.lower(),
        "used_bytes": row.used_bytes,
        "quota_bytes": row.quota_bytes,
        "connections": row.connections,
        "registered_at": row.registered_at,
        "revoked": row.revoked,
    }
