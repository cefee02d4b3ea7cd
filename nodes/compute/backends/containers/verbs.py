"""The closed verbs between daemon and launcher: what may be said, in which bounds.

Each packet of their SOCK_SEQPACKET pair is one JSON object.

    daemon to launcher    {"id": 7, "verb": "freeze", "cell": 3}
    launcher to daemon    {"id": 7, "value": {...}}    or    {"id": 7, "kind": ..., "error": TEXT}
                          {"event": "engine-lost" | "engine-back"}    at any time

The answer to ``make`` carries the daemon's descriptors (SCM_RIGHTS). Everything a packet says is
checked against ``VERBS`` before anything is done; images, networks and amounts are checked again
against what ``open``, the first and only one of its kind, has allowed.
"""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from alpyne_grid.nodes.compute.backends.containers.settings import (
    HOST_MAX,
    IMAGE_MAX,
    IMAGE_PATTERN,
    NETWORK_MAX,
    NETWORK_PATTERN,
)

PACKET_MAX = 48 * 1024  # bytes; ``open`` with 64 images is the longest
IDS_MAX = 1 << 53
AMOUNT_MAX = 1 << 50
LIST_MAX = 64
HANDED = ("control", "job", "stdout", "stderr", "scratch", "shared_memory")  # by ``make``


class VerbError(Exception):
    """A packet says what no verb allows."""


class Number(NamedTuple):
    """A field that is an integer."""

    least: int
    most: int

    def check(self, value: Any) -> bool:
        """Say whether ``value`` is one of these; True and False are no numbers."""
        return type(value) is int and self.least <= value <= self.most


class Text(NamedTuple):
    """A field that is a text."""

    most: int  # bytes of UTF-8
    pattern: re.Pattern[str]

    def check(self, value: Any) -> bool:
        """Say whether ``value`` is one of these."""
        return (
            isinstance(value, str)
            and len(value) <= self.most
            and self.pattern.fullmatch(value) is not None
        )


class Texts(NamedTuple):
    """A field that is a list of texts."""

    each: Text

    def check(self, value: Any) -> bool:
        """Say whether ``value`` is one of these."""
        return (
            isinstance(value, list) and len(value) <= LIST_MAX and all(map(self.each.check, value))
        )


Field = Number | Text | Texts
_CELL = Number(1, IDS_MAX)
_AMOUNT = Number(0, AMOUNT_MAX)
_IMAGE, _NETWORK = Text(IMAGE_MAX, IMAGE_PATTERN), Text(NETWORK_MAX, NETWORK_PATTERN)
_NO_NETWORK = Text(NETWORK_MAX, re.compile(f"({NETWORK_PATTERN.pattern})?"))
_ABSOLUTE = re.compile(r"/[^\0]*")

VERBS: Mapping[str, Mapping[str, Field]] = MappingProxyType(
    {
        "open": {  # once, first: what all later verbs are held against
            "host": Text(HOST_MAX, re.compile(r"unix:///[^\0]*")),
            "tag": Text(32, re.compile(r"[0-9a-f]{16,32}")),
            "runtime": Text(4096, _ABSOLUTE),  # folder, mounted read-only
            "cells": Text(4096, _ABSOLUTE),  # folder; each cell gets one below it
            "images": Texts(_IMAGE),
            "networks": Texts(_NETWORK),
            "cells_most": Number(1, 1 << 16),
            "memory_most": _AMOUNT,  # bytes, of one container
            "cpus_most": Number(1, 1 << 16),
            "processes_most": Number(1, 1 << 22),
        },
        "look": {},  # at the engine, the images and the networks
        "reap": {},  # all containers of this tag
        "make": {
            "cell": _CELL,
            "mark": Text(128, re.compile(r"[0-9A-Za-z.]{1,128}")),
            "image": _IMAGE,
            "network": _NO_NETWORK,
            "memory": _AMOUNT,
            "cpus": Number(0, 1 << 16),
            "processes": Number(1, 1 << 22),
            "disk": Number(1 << 16, AMOUNT_MAX),
        },
        "freeze": {"cell": _CELL},
        "thaw": {"cell": _CELL},
        "end": {"cell": _CELL},  # by force, and remove what is left of it
    }
)


class Order(NamedTuple):
    """What the daemon asks for."""

    id: int
    verb: str
    fields: Mapping[str, Any]


class Answer(NamedTuple):
    """What the launcher says to an order; ``kind`` is empty where it was done."""

    id: int
    value: Mapping[str, Any]
    kind: str = ""  # "engine": it cannot be reached; "refused": not allowed; "failed"
    error: str = ""


class Event(NamedTuple):
    """What the launcher says unasked."""

    name: str  # one of EVENTS


ENGINE_LOST, ENGINE_BACK = EVENTS = ("engine-lost", "engine-back")
KINDS = ("engine", "refused", "failed")


def order_packet(order: Order) -> bytes:
    """Return the packet of an order; VerbError where its fields are out of bounds."""
    _check(order.verb, order.fields)
    return _packed({"id": order.id, "verb": order.verb, **order.fields})


def parse_order(packet: bytes) -> Order:
    """Return the order in ``packet``; VerbError for anything else, whatever its bytes are."""
    content = _object(packet)
    number, verb = content.pop("id", None), content.pop("verb", None)
    if not Number(1, IDS_MAX).check(number) or not isinstance(verb, str):
        raise VerbError("expected an object with id and verb")
    _check(verb, content)
    return Order(number, verb, MappingProxyType(content))


def answer_packet(answer: Answer) -> bytes:
    """Return the packet of an answer."""
    if answer.kind:
        return _packed({"id": answer.id, "kind": answer.kind, "error": answer.error[:1000]})
    return _packed({"id": answer.id, "value": dict(answer.value)})


def event_packet(event: Event) -> bytes:
    """Return the packet of an event."""
    return _packed({"event": event.name})


def parse_report(packet: bytes) -> Answer | Event:
    """Return what the launcher says; VerbError for anything else."""
    content = _object(packet)
    match content:
        case {"event": str(name)} if name in EVENTS:
            return Event(name)
        case {"id": int(number), "value": dict(value)}:
            return Answer(number, value)
        case {"id": int(number), "kind": str(kind), "error": str(error)} if kind in KINDS:
            return Answer(number, {}, kind, error)
    raise VerbError(f"expected an answer or an event, got {sorted(map(str, content))[:8]}")


def _check(verb: str, fields: Mapping[str, Any]) -> None:
    expected = VERBS.get(verb)
    if expected is None:
        raise VerbError(f"expected one of {', '.join(VERBS)}, got {verb!r:.40}")
    if set(fields) != set(expected):
        raise VerbError(f"{verb}: expected the fields {', '.join(expected) or '(none)'}")
    for name, field in expected.items():
        if not field.check(fields[name]):
            raise VerbError(f"{verb}: {name} is out of its bounds: {fields[name]!r:.80}")


def _object(packet: bytes) -> dict[str, Any]:
    if len(packet) > PACKET_MAX:
        raise VerbError(f"a packet has at most {PACKET_MAX} bytes")
    try:
        content = json.loads(packet)
    except (ValueError, RecursionError):
        raise VerbError("a packet is one JSON object") from None
    if not isinstance(content, dict):
        raise VerbError("a packet is one JSON object")
    return content


def _packed(content: Mapping[str, Any]) -> bytes:
    packet = json.dumps(content, separators=(",", ":")).encode()
    if len(packet) > PACKET_MAX:
        raise VerbError(f"a packet has at most {PACKET_MAX} bytes, got {len(packet)}")
    return packet
