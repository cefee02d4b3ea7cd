"""What a job asks, against what a node offers: the rules that manager and node share."""

from typing import Any

import pytest

from alpyne_proto.messages.compute import JobForm, JobSpec
from alpyne_proto.offer import NOTHING, Asked, asked_by, unkept

OFFER = {
    "memory_bytes": "1000",
    "limit.memory": "sampled",
    "limit.processes": "kernel",
    "limit.disk": "kernel",
    "images": "plain,science:1.2",
    "networks": "",
}


def test_spec_asks_for_nothing_when_it_names_nothing() -> None:
    assert asked_by(JobSpec(b"j" * 16, 1, JobForm.CALL)) == NOTHING


def test_spec_asks_for_what_it_names() -> None:
    named: dict[str, Any] = {
        "memory_bytes": 1,
        "processes": 2,
        "disk_bytes": 3,
        "network": "n",
        "image": "i",
    }
    assert asked_by(JobSpec(b"j" * 16, 1, JobForm.CALL, **named)) == Asked(1, 2, 3, "n", "i")


@pytest.mark.parametrize(
    "asked",
    [
        NOTHING,
        Asked(memory_bytes=1000),
        Asked(processes=5),
        Asked(disk_bytes=1 << 40),
        Asked(image="plain"),
        Asked(image="science:1.2"),
    ],
)
def test_offer_keeps_what_it_enforces_and_lists(asked: Asked) -> None:
    assert unkept(OFFER, asked) == ""


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Asked(memory_bytes=1001), "has 1000 bytes of memory, asked memory=1001"),
        (Asked(image="science"), "does not list the image 'science' for jobs (images: plain, sc"),
        (Asked(network="lan"), "does not list the network 'lan' for jobs (networks: none)"),
    ],
)
def test_offer_says_what_it_lacks(asked: Asked, text: str) -> None:
    assert unkept(OFFER, asked).startswith(text)


@pytest.mark.parametrize("name", ["memory", "processes", "disk"])
@pytest.mark.parametrize("attributes", [{}, {"limit.{}": "none"}])
def test_offer_does_not_keep_a_limit_that_nobody_enforces(
    name: str, attributes: dict[str, str]
) -> None:
    field = {"memory": "memory_bytes", "disk": "disk_bytes"}.get(name, name)
    offer = {key.format(name): value for key, value in attributes.items()}
    expected = f"does not enforce a limit on {name} (limit.{name} is none)"
    asked: dict[str, Any] = {field: 1}
    assert unkept(offer, Asked(**asked)) == expected


def test_offer_that_is_no_number_bounds_no_memory() -> None:
    assert unkept({"limit.memory": "kernel", "memory_bytes": "much"}, Asked(memory_bytes=1)) == ""
