"""The closed verbs: what packets may say, and that nothing else gets through."""

import json
from typing import Any

import pytest
from alpyne_grid.nodes.compute.backends.containers import verbs
from alpyne_grid.nodes.compute.backends.containers.verbs import (
    PACKET_MAX,
    VERBS,
    Answer,
    Event,
    Order,
    VerbError,
    parse_order,
    parse_report,
)
from hypothesis import given
from hypothesis import strategies as st

OPEN = {
    "host": "unix:///var/run/docker.sock",
    "tag": "0123456789abcdef",
    "runtime": "/state/runtime",
    "cells": "/state/cells",
    "images": ["python:3.12-slim", "registry.example:5000/a/b@sha256:00ff"],
    "networks": ["bridge"],
    "cells_most": 40,
    "memory_most": 1 << 34,
    "cpus_most": 8,
    "processes_most": 32_768,
}
MAKE = {
    "cell": 3,
    "mark": "0123456789abcdef.00ff.3.",
    "image": "python:3.12-slim",
    "network": "",
    "memory": 1 << 28,
    "cpus": 2,
    "processes": 256,
    "disk": 1 << 28,
}
FIELDS: dict[str, dict[str, Any]] = {
    "open": OPEN,
    "look": {},
    "reap": {},
    "make": MAKE,
    "freeze": {"cell": 3},
    "thaw": {"cell": 3},
    "end": {"cell": 3},
}


def packed(**content: Any) -> bytes:
    return json.dumps(content).encode()


def test_verbs_are_the_ones_that_are_known() -> None:
    assert set(VERBS) == set(FIELDS)


@pytest.mark.parametrize("verb", VERBS)
def test_order_comes_back_as_it_was_sent(verb: str) -> None:
    order = Order(7, verb, FIELDS[verb])
    assert parse_order(verbs.order_packet(order)) == order


@pytest.mark.parametrize("verb", VERBS)
def test_order_is_refused_when_a_field_is_missing_or_too_much(verb: str) -> None:
    with pytest.raises(VerbError, match=f"{verb}: expected the fields"):
        parse_order(packed(id=1, verb=verb, **FIELDS[verb], more=1))
    for name in FIELDS[verb]:
        fields = {key: value for key, value in FIELDS[verb].items() if key != name}
        with pytest.raises(VerbError, match=f"{verb}: expected the fields"):
            parse_order(packed(id=1, verb=verb, **fields))


@pytest.mark.parametrize(
    ("verb", "name", "value"),
    [
        ("make", "cell", 0),
        ("make", "cell", True),
        ("make", "cell", "3"),
        ("make", "cell", 1.0),
        ("make", "cell", 1 << 60),
        ("make", "mark", "../../etc"),
        ("make", "mark", ""),
        ("make", "image", ""),
        ("make", "image", "-v/:/host"),
        ("make", "image", "a b"),
        ("make", "image", "a" * 300),
        ("make", "image", ["python"]),
        ("make", "network", "container:0123"),
        ("make", "network", "bridge "),
        ("make", "memory", -1),
        ("make", "memory", 1 << 60),
        ("make", "cpus", -1),
        ("make", "processes", 0),
        ("make", "disk", 0),
        ("freeze", "cell", None),
        ("open", "host", "tcp://127.0.0.1:2375"),
        ("open", "host", "unix:///a\0b"),
        ("open", "tag", "*"),
        ("open", "runtime", "relative"),
        ("open", "images", ["a"] * 65),
        ("open", "images", "python"),
        ("open", "networks", [""]),
        ("open", "cells_most", 0),
    ],
)
def test_order_is_refused_when_a_field_is_out_of_bounds(verb: str, name: str, value: Any) -> None:
    fields = {**FIELDS[verb], name: value}
    with pytest.raises(VerbError, match=f"{verb}: {name} is out of its bounds"):
        parse_order(packed(id=1, verb=verb, **fields))
    with pytest.raises(VerbError):
        verbs.order_packet(Order(1, verb, fields))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 10_000,
        packed(verb="look"),
        packed(id=1),
        packed(id=0, verb="look"),
        packed(id=True, verb="look"),
        packed(id="1", verb="look"),
        packed(id=1, verb="run"),
        packed(id=1, verb="exec", cell=3),
        packed(id=1, verb=["look"]),
        packed(id=1, verb="look") + b" " * PACKET_MAX,
    ],
)
def test_packet_is_refused_when_it_is_no_order(packet: bytes) -> None:
    with pytest.raises(VerbError):
        parse_order(packet)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_order_or_refused(packet: bytes) -> None:
    try:
        order = parse_order(packet)
    except VerbError:
        return
    assert order.verb in VERBS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(st.sampled_from(sorted(VERBS)), st.data())
def test_any_fields_are_within_bounds_or_refused(verb: str, data: st.DataObject) -> None:
    fields = dict(FIELDS[verb])
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)) if fields else ():
        fields[name] = data.draw(JSON)
    try:
        order = parse_order(packed(id=1, verb=verb, **fields))
    except VerbError:
        return
    for name, field in VERBS[verb].items():
        assert field.check(order.fields[name])


@pytest.mark.parametrize(
    "answer", [Answer(3, {}), Answer(3, {"pid": 7}), Answer(3, {}, "engine", "it is away")]
)
def test_answer_comes_back_as_it_was_sent(answer: Answer) -> None:
    assert parse_report(verbs.answer_packet(answer)) == answer


@pytest.mark.parametrize("name", verbs.EVENTS)
def test_event_comes_back_as_it_was_sent(name: str) -> None:
    assert parse_report(verbs.event_packet(Event(name))) == Event(name)


@pytest.mark.parametrize(
    "packet",
    [
        packed(event="hello"),
        packed(id=1),
        packed(id=1, value=[]),
        packed(id=1, kind="odd", error="x"),
        packed(id=1, kind="engine"),
        b"7",
    ],
)
def test_packet_is_refused_when_it_is_no_report(packet: bytes) -> None:
    with pytest.raises(VerbError):
        parse_report(packet)
