"""The offer: what requirements are compared with."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute.attributes import (
    as_rows,
    disk_free_bytes,
    load_per_core,
    make_offer,
    memory_free_bytes,
    memory_total_bytes,
)
from alpyne_grid.nodes.compute.backends.base import LIMIT_NAMES, Enforcement
from alpyne_grid.nodes.compute.backends.find import find_backend
from alpyne_grid.nodes.errors import ConfigError

from alpyne_proto.messages.compute import Operator, Requirement
from alpyne_proto.offer import satisfies


class NoBackend:
    """As much of a back end as an offer is made of."""

    name = "none"
    level = 2
    limits: Mapping[str, Enforcement] = {"memory": "kernel"}
    pythons = ("3.11", "3.12")
    images: tuple[str, ...] = ("plain", "science")
    networks: tuple[str, ...] = ()
    suspends = "kernel"


def offer(*labels: str) -> Mapping[str, str]:
    made = make_offer(NoBackend(), slots=3, host_label="box", labels=labels)  # type: ignore[arg-type]
    return made.attributes


def test_offer_names_what_jobs_may_ask_for() -> None:
    attributes = offer("rack=7", "gpu=a100")
    needs = (
        Requirement("os", Operator.EQUAL, "linux"),
        Requirement("pythons", Operator.HAS, "3.12"),
        Requirement("slots", Operator.AT_LEAST, "3"),
        Requirement("isolation", Operator.AT_LEAST, "2"),
        Requirement("limit.memory", Operator.EQUAL, "kernel"),
        Requirement("limit.network", Operator.EQUAL, "none"),
        Requirement("limit.disk", Operator.EQUAL, "none"),
        Requirement("images", Operator.HAS, "science"),
        Requirement("networks", Operator.EQUAL, ""),
        Requirement("suspend", Operator.EQUAL, "kernel"),
        Requirement("host", Operator.EQUAL, "box"),
        Requirement("rack", Operator.EQUAL, "7"),
        Requirement("gpu", Operator.EQUAL, "a100"),
    )
    assert satisfies(attributes, needs)
    assert {f"limit.{name}" for name in LIMIT_NAMES} <= set(attributes)


@pytest.mark.parametrize(
    "labels", [("novalue",), ("=x",), ("os=windows",), ("x" * 65 + "=1",), ("x=" + "1" * 257,)]
)
def test_offer_refuses_labels_that_are_none_or_are_taken(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="labels: expected"):
        offer(*labels)


def test_offer_refuses_more_images_than_an_attribute_can_tell() -> None:
    class ManyImages(NoBackend):
        images = tuple(f"registry.example.org/image:{n}" for n in range(9))

    with pytest.raises(ConfigError, match="images: expected names of at most 256 bytes together"):
        make_offer(ManyImages(), slots=1, host_label="", labels=())  # type: ignore[arg-type]


def test_offer_refuses_more_labels_than_a_status_can_tell() -> None:
    with pytest.raises(ConfigError, match="labels: at most"):
        offer(*(f"name{n}=1" for n in range(64)))


def test_status_rows_stand_in_order_of_their_names() -> None:
    rows = as_rows(offer(), 99.96)
    assert [row.name for row in rows] == sorted(row.name for row in rows)
    assert {row.name: row.value for row in rows}["score"] == "100.0"


def test_machine_tells_memory_disk_and_load(tmp_path: Path) -> None:
    assert 0 < memory_free_bytes() <= memory_total_bytes()
    assert disk_free_bytes(tmp_path) > 0
    assert load_per_core() >= 0


def test_back_end_that_nobody_has_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"expected one of .*process.*, got 'nonsense'"):
        find_backend("nonsense")
