"""What a manager grants the nodes of its pool."""

from pathlib import Path

import pytest
from alpyne_grid.manager.identity import load_identity
from alpyne_grid.manager.links import LinkSettings

from alpyne_proto import limits
from alpyne_proto.messages.hello import NodeKind


@pytest.mark.parametrize(
    ("kind", "wide"), [(NodeKind.COMPUTE, False), (NodeKind.DATA, True), (None, True)]
)
def test_manager_grants_wide_windows_where_objects_come_from(
    tmp_path: Path, kind: NodeKind | None, wide: bool
) -> None:
    hello = LinkSettings(load_identity(tmp_path), bytes(16)).hello(kind)
    assert (hello.max_stream_data > limits.STREAM_WINDOW) is wide
    # As many streams may stand still as with the protocol's own windows.
    stalled = hello.max_data // hello.max_stream_data
    assert stalled == limits.CONNECTION_WINDOW // limits.STREAM_WINDOW
