"""A node's configuration: its sources, their order, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.config import NodeConfig, Registration, read_config
from alpyne_grid.nodes.errors import ConfigError

from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.ssh_keys import write_public_line

KEY = bytes(range(32))


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    path = tmp_path / "account.pub"
    path.write_text(write_public_line(KEY, "me@here") + "\n")
    return path


def read(
    owner: Path, kind: NodeKind = NodeKind.DATA, env: dict[str, str] | None = None, **options: Any
) -> NodeConfig:
    return read_config(kind, {"owner": [str(owner)], **options}, env or {})


def test_command_line_wins_over_environment_over_file_over_default(
    owner: Path, tmp_path: Path
) -> None:
    file = tmp_path / "node.toml"
    file.write_text('host = "10.0.0.1"\nport = 7\nslots = 3\n')
    env = {"ALPYNE_NODE_PORT": "8", "ALPYNE_NODE_SLOTS": "4"}
    config = read(owner, env=env, config=file, slots="5")
    assert (config.host, config.port, config.slots) == ("10.0.0.1", 8, 5)
    assert config.log_level == "info"


def test_owner_defaults_to_the_users_own_account(owner: Path) -> None:
    config = read_config(NodeKind.DATA, {}, {"ALPYNE_HOME": str(owner.parent)})
    assert config.owners == (KEY,)


def test_compute_node_serves_only_owners_by_default(owner: Path) -> None:
    assert read(owner, NodeKind.COMPUTE).registration is Registration.OWNERS
    assert read(owner, NodeKind.DATA).registration is Registration.ADMINISTERED


@pytest.mark.parametrize("how", ["open", "administered"])
def test_compute_node_without_isolation_refuses_other_registration(owner: Path, how: str) -> None:
    with pytest.raises(ConfigError, match="level 0"):
        read(owner, NodeKind.COMPUTE, registration=how)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"port": "x"}, "port: expected a whole number, got 'x'"),
        ({"port": "65536"}, "port: expected 0 to 65535"),
        ({"slots": "-1"}, "slots: expected 0 or more"),
        ({"registration": "closed"}, "registration: expected open or administered"),
        ({"compression": "gzip"}, "compression: expected auto, on or off"),
        ({"log_level": "loud"}, "log-level: expected"),
        ({"host_label": "x" * 65}, "host-label"),
        ({"config": "/nowhere/node.toml"}, "cannot be read"),
    ],
)
def test_configuration_names_what_is_wrong(owner: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        read(owner, **options)


def test_configuration_refuses_a_file_with_unknown_entries(owner: Path, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("prot = 7\n")
    with pytest.raises(ConfigError, match="prot"):
        read(owner, config=file)


def test_configuration_refuses_a_file_that_is_no_toml(owner: Path, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("port: 7")
    with pytest.raises(ConfigError, match="not TOML"):
        read(owner, config=file)


def test_configuration_says_what_to_do_without_an_owner(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="alpyne keygen"):
        read_config(NodeKind.DATA, {}, {"ALPYNE_HOME": str(tmp_path)})


def test_configuration_refuses_a_private_key_as_owner(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(ConfigError, match="ssh-ed25519"):
        read(path)
