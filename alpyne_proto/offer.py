"""A node's offer against a job's requirements: one function that manager and node both call."""

from collections.abc import Iterable, Mapping

from alpyne_proto.messages.compute import Operator, Requirement


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
