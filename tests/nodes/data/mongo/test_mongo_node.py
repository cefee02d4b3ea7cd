"""A whole data node on MongoDB, through the manager library."""

from collections.abc import Callable
from typing import Any

import pytest
from alpyne_grid.manager import ObjectNotFound, VersionConflict
from mongo_bench import MIB
from mongo_site import Site
from parts.mongo_set import MongoSet

OpenSite = Callable[..., Site]


def test_manager_puts_gets_lists_and_deletes_on_a_replica_set(
    mongo_set: MongoSet, open_site: OpenSite
) -> None:
    site = open_site(mongo_set.uri)
    large = bytes(range(256)) * (12 * MIB // 256)
    box = site.box
    for path, data in (("a/small", b"x"), ("a/large", large), ("b", b""), ("a/small", b"newer")):
        box.put(path, data)
    assert box.get("a/small") == b"newer"
    assert box.get("a/large") == large
    assert box.get("a/large", 5 * MIB - 10, 20) == large[5 * MIB - 10 : 5 * MIB + 10]
    assert box.get("b") == b""
    assert [item.path for item in box.glob("a/*")] == ["a/large", "a/small"]
    box.delete("a/large")
    assert [item.path for item in box.ls()] == ["a/small", "b"]
    with pytest.raises(ObjectNotFound):
        box.get("a/large")
    with pytest.raises(VersionConflict):
        box.put("b", b"x", if_absent=True)


def test_node_has_its_accounts_objects_and_usage_after_a_restart(
    mongo_single: MongoSet, open_site: OpenSite
) -> None:
    site = open_site(mongo_single.uri)
    site.box.put("a", bytes(MIB))
    assert site.daemon.stop() == 0
    site.daemon.start()
    assert site.box.get("a") == bytes(MIB)
    site.box.put("b", b"x")
    (node,) = site.grid.nodes()
    status: Any = node.status
    assert status.used_bytes == MIB + 1
    assert [a.value for a in status.attributes if a.name == "backend"] == ["mongodb"]
