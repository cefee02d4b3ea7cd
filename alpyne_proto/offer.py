"""A node's offer against what a job asks: the functions that manager and node both call.

Source: spec/PROTOCOL.md, "Submission".
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from alpyne_proto.messages.compute import JobSpec, Operator, Requirement


class Asked(NamedTuple):
    """What a job asks that not every node can keep; 0 and "" ask for nothing.

    ``memory_bytes``, ``processes``, ``disk_bytes``: limits that its node must enforce. ``network``,
    ``image``: names that its node must list.
    """

    memory_bytes: int = 0
    processes: int = 0
    disk_bytes: int = 0
    network: str = ""
    image: str = ""


NOTHING = Asked()


def asked_by(spec: JobSpec) -> Asked:
    """Return what ``spec`` asks."""
    return Asked(spec.memory_bytes, spec.processes, spec.disk_bytes, spec.network, spec.image)


def unkept(attributes: Mapping[str, str], asked: Asked) -> str:
    """Return what a node with ``attributes`` lacks to keep what is ``asked``, or "".

    The text says it of the node: "does not enforce a limit on disk (limit.disk is none)".
    """
    if asked == NOTHING:
        return ""
    limits = (
        ("memory", asked.memory_bytes),
        ("processes", asked.processes),
        ("disk", asked.disk_bytes),
    )
    for name, most in limits:
        kept = attributes.get(f"limit.{name}", "none")
        if most and kept == "none":
            return f"does not enforce a limit on {name} (limit.{name} is none)"
    has = _number(attributes.get("memory_bytes", "")) or 0
    if 0 < has < asked.memory_bytes:
        return f"has {has:.0f} bytes of memory, asked memory={asked.memory_bytes}"
    for name, wanted in (("network", asked.network), ("image", asked.image)):
        listed = attributes.get(f"{name}s", "")
        if wanted and wanted not in listed.split(","):
            have = listed.replace(",", ", ") or "none"
            return f"does not list the {name} {wanted!r} for jobs ({name}s: {have})"
    return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _holds(have: str, operator: Operator, want: str) -> bool:
    if operator is Operator.EQUAL:
        return have == want
    if operator is Operator.NOT_EQUAL:
        return have != want
    if operator is Operator.HAS:
        return want in (part.strip() for part in have.split(","))
    left, right = _number(have), _number(want)
    if left is None or right is None:
        return False
    return left >= right if operator is Operator.AT_LEAST else left <= right


def unmet(attributes: Mapping[str, str], requirements: Iterable[Requirement]) -> str:
    """Return why ``attributes`` do not satisfy ``requirements``, or "" where they do.

    A missing attribute satisfies only NOT_EQUAL. AT_LEAST and AT_MOST compare as numbers, and a
    side that is no number does not satisfy them.
    """
    for need in requirements:
        have = attributes.get(need.name)
        if have is None:
            if need.operator is not Operator.NOT_EQUAL:
                return f"the node has no attribute {need.name!r}"
        elif not _holds(have, need.operator, need.value):
            return f"{need.name} is {have!r}, asked {need.operator.name} {need.value!r}"
    return ""


def satisfies(attributes: Mapping[str, str], requirements: Iterable[Requirement]) -> bool:
    """Return whether a node with ``attributes`` may run a job with ``requirements``."""
    return not unmet(attributes, requirements)
