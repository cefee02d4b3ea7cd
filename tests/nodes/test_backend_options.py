"""What a back end is told: sources, their order, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.config import NodeConfig, read_config
from alpyne_grid.nodes.errors import ConfigError

from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.ssh_keys import write_public_line

COMPUTE, DATA = NodeKind.COMPUTE, NodeKind.DATA


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    path = tmp_path / "account.pub"
    path.write_text(write_public_line(bytes(range(32)), "me@here") + "\n")
    return path


def read(
    owner: Path, kind: NodeKind, env: dict[str, str] | None = None, **options: Any
) -> NodeConfig:
    return read_config(kind, {"owner": [str(owner)], **options}, env or {})


def test_command_line_wins_over_environment_over_file(owner: Path, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('backend = "docker"\nimage = ["a", "b"]\nnetwork = "lan"\n[option]\nx = 3\n')
    env = {"ALPYNE_NODE_IMAGE": "c,d", "ALPYNE_NODE_NETWORK": "wan"}
    config = read(owner, COMPUTE, env, config=file, network=["dmz"], option=["x=4", "y=1", "y=2"])
    assert config.options == {
        "image": ("c", "d"),
        "network": ("dmz",),
        "x": ("4",),
        "y": ("1", "2"),
    }


def test_uri_keeps_its_commas(owner: Path) -> None:
    uri = "mongodb://a:1,b:2,c:3/?replicaSet=rs0"
    assert read(owner, DATA, {"ALPYNE_NODE_URI": uri}).options == {"uri": (uri,)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("option = 3\n", "expected a table"),
        ("image = {a = 1}\n", "image: expected a text or a list"),
        ("[option]\nx = [[1]]\n", "x: expected a text or a list"),
        (f"image = {['x'] * 65}\n", "image: at most 64 values, got 65"),
        ('uri = "mongodb://h"\n', "unknown entries uri"),  # of a data node
    ],
)
def test_file_with_senseless_options_is_refused(
    owner: Path, tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read(owner, COMPUTE, config=file)


def test_option_without_a_value_is_refused(owner: Path) -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE, got 'image'"):
        read(owner, COMPUTE, option=["image"])
