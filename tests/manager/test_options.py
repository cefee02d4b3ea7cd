"""Job options in words."""

from typing import Any

import pytest
from alpyne_grid.manager.errors import ProgramError
from alpyne_grid.manager.options import (
    JobOptions,
    more_options,
    parse_duration,
    parse_requirements,
    parse_size,
    split_options,
)

from alpyne_proto.messages.compute import Operator, Requirement
from alpyne_proto.offer import NOTHING, Asked


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, 0), (7, 7), ("7", 7), ("1KiB", 1024), ("1kB", 1000), ("1.5GiB", 3 << 29),
        ("500 MB", 500_000_000), ("64k", 64_000), ("2TiB", 2 << 40),
    ],
)  # fmt: skip
def test_size_is_read(text: Any, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", -1, "1 XB", 1.5, True, "1e3"])
def test_size_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ProgramError, match="1GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        (1.5, 1.5),
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86_400),
        ("250ms", 0.25),
    ],
)
def test_duration_is_read(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1s", -1, "1y", True, float("inf"), float("nan")])
def test_duration_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ProgramError, match="10m"):
        parse_duration(text)


def test_requirements_are_read() -> None:
    assert parse_requirements(["os=linux", "cores >= 4", "a!=b", "n<=3", "labels~gpu"]) == (
        Requirement("os", Operator.EQUAL, "linux"),
        Requirement("cores", Operator.AT_LEAST, "4"),
        Requirement("a", Operator.NOT_EQUAL, "b"),
        Requirement("n", Operator.AT_MOST, "3"),
        Requirement("labels", Operator.HAS, "gpu"),
    )
    assert parse_requirements({"os": "linux"}) == (Requirement("os", Operator.EQUAL, "linux"),)
    assert parse_requirements("os=linux") == parse_requirements(["os=linux"])


def test_requirement_is_refused_with_its_form() -> None:
    with pytest.raises(ProgramError, match="NAME=VALUE"):
        parse_requirements(["linux"])


@pytest.mark.parametrize(
    "options",
    [
        {"cpus": 0}, {"retries": -1}, {"tags": ["x" * 65]}, {"tags": [""]},
        {"tags": [str(n) for n in range(17)]}, {"on_lost": "panic"}, {"memory": "much"},
        {"processes": -1}, {"processes": 1 << 32}, {"processes": 1.5}, {"processes": True},
        {"disk": "full"}, {"network": "x" * 65}, {"image": "x" * 257}, {"image": "a,b"},
        {"network": 7},
    ],
)  # fmt: skip
def test_options_are_refused_when_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ProgramError):
        JobOptions(**options).checked()


def test_limits_and_names_are_what_nodes_are_asked_for() -> None:
    options = JobOptions(memory="1KiB", processes=9, disk="2kB", network="lan", image="science")
    assert options.checked().asked == Asked(1024, 9, 2000, "lan", "science")
    assert JobOptions(cpus=2).checked().asked == NOTHING


def test_keywords_are_the_functions_own_when_it_names_them() -> None:
    def function(name: str, **more: Any) -> None: ...

    options, rest = split_options({"name": "x", "memory": "1GiB", "seed": 7}, function)
    assert rest == {"name": "x", "seed": 7}
    assert options == JobOptions(memory="1GiB")


def test_options_object_gives_what_names_would_hide() -> None:
    def function(name: str) -> None: ...

    options, rest = split_options({"name": "x", "options": JobOptions(name="job")}, function)
    assert (options.name, rest) == ("job", {"name": "x"})


def test_unknown_option_is_named() -> None:
    with pytest.raises(ProgramError, match="unknown option memry; known are memory"):
        more_options({"memry": 1})
