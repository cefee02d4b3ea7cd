"""`alpyne node` before the daemon starts: whether the user needs an account first."""

from pathlib import Path

import pytest
from alpyne_grid.tools.node import needs_account


@pytest.mark.parametrize("kind", ["compute", "data"])
def test_node_needs_an_account_when_there_is_none(kind: str, tmp_path: Path) -> None:
    assert needs_account([kind, "--port", "0"], {"ALPYNE_HOME": str(tmp_path)})


def test_node_needs_no_account_when_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "account.pub").write_text("ssh-ed25519 AAAA")
    assert not needs_account(["compute"], {"ALPYNE_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "--owner", "k.pub"],
        ["data", "--owner=k.pub"],
        ["compute", "--config", "node.toml"],
        ["compute", "--help"],
        ["data", "--check-config"],
        ["--help"],
        [],
        ["cluster"],
    ],
)
def test_node_makes_no_account_when_its_owner_is_given_or_nothing_starts(
    arguments: list[str], tmp_path: Path
) -> None:
    assert not needs_account(arguments, {"ALPYNE_HOME": str(tmp_path)})


@pytest.mark.parametrize("name", ["ALPYNE_NODE_OWNER", "ALPYNE_NODE_CONFIG"])
def test_node_makes_no_account_when_the_environment_names_an_owner(
    name: str, tmp_path: Path
) -> None:
    assert not needs_account(["compute"], {"ALPYNE_HOME": str(tmp_path), name: "x"})
