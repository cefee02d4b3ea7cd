"""The tables of spec/PROTOCOL.md, each made from the registry, the limits or the frame types."""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, IntEnum
from types import ModuleType
from typing import Any

from alpyne_grid.tools.spec.source import named_values

from alpyne_proto import errors, frame, limits, registry, table
from alpyne_proto.fields import Choice, Kind, ListOf
from alpyne_proto.messages import (
    access,
    compute,
    control,
    data,
    hello,
    job_terms,
    program,
    worker,
)
from alpyne_proto.registry import MESSAGES, STRUCTS, FieldSpec, Role, Shape, Spec, State

AREAS: dict[str, ModuleType] = {
    "hello": hello,
    "control": control,
    "access": access,
    "compute": compute,
    "data": data,
    "program": program,
    "worker": worker,
}
_LEGAL_STATES = (State.HANDSHAKE, State.UNKNOWN, State.BEARER, State.OPEN, State.WORKER)
_POWERS = {(1 << bits) - 1: f"2^{bits}-1" for bits in (32, 48, 64)}
_POWERS |= {1 << bits: f"2^{bits}" for bits in (32, 48, 64)}


def tables() -> dict[str, Callable[[], str]]:
    """Return the maker of each generated block by its name in the marker."""
    return {
        "frame types": frame_types,
        "frame flags": frame_flags,
        **{f"{area} messages": _of_area(area) for area in AREAS},
        "structs": structs,
        "enums": enums,
        "error codes": error_codes,
        "moves": moves,
        "legal": legal,
        "limits": limit_values,
    }


# ---- messages ----


def _of_area(area: str) -> Callable[[], str]:
    return lambda: "\n\n".join(_message(spec) for spec in _specs(AREAS[area]))


def _specs(module: ModuleType) -> list[Spec]:
    return [spec for _, spec in sorted(MESSAGES.items()) if spec.cls.__module__ == module.__name__]


def _message(spec: Spec) -> str:
    parts = [f"#### {title(spec)}", _prose(spec.cls), "\n".join(_facts(spec))]
    if spec.fields:
        parts.append(_fields(spec.fields))
    return "\n\n".join(parts)


def title(spec: Spec) -> str:
    """Return how headings name a message; a control message has its frame's name, not a code."""
    if spec.shape is Shape.CONTROL:
        return f"{spec.name} (frame {_frame_of(spec)})"
    return f"0x{spec.code:02X} {spec.name}"


def _frame_of(spec: Spec) -> str:
    wanted = spec.name.upper()
    return next(kind.name for kind in frame.FrameType if kind.name.replace("_", "") == wanted)


def _facts(spec: Spec) -> list[str]:
    facts = [
        f"- {spec.shape.value}, from {senders(spec)}, in {_join(s.name for s in _states(spec))}"
    ]
    if spec.shape is Shape.REQUEST:
        facts.append(f"- answered by {_names(spec.answers) or 'nothing'}")
    if spec.rows:
        facts.append(f"- body: rows {_names(spec.rows)}")
    elif spec.body:
        facts.append("- body: bytes")
    if spec.answer_rows:
        facts.append(f"- the answer's body: rows {_names(spec.answer_rows)}")
    if spec.payload_max:
        facts.append(f"- payload: at most {_number(spec.payload_max)} bytes")
    return facts


def _states(spec: Spec) -> list[State]:
    return [state for state in _LEGAL_STATES if state in spec.states]


def senders(spec: Spec, state: State | None = None) -> str:
    """Return who may send a message in ``state``, or in general.

    The two ends of a worker's socket pair have names of their own.
    """
    if state is State.WORKER or spec.states == {State.WORKER}:
        names = {Role.MANAGER: "daemon", Role.NODE: "worker"}
    else:
        names = {Role.MANAGER: "MANAGER", Role.NODE: "NODE"}
    return _join(text for role, text in names.items() if role in spec.senders)


def _names(codes: Iterable[int]) -> str:
    return _join(MESSAGES[code].name for code in codes)


def _fields(fields: Sequence[FieldSpec]) -> str:
    return _table(
        ("key", "name", "kind", "default", "meaning"),
        [
            (str(item.key), f"`{item.name}`", _label(item.kind), _default(item), item.text)
            for item in fields
        ],
    )


def _label(kind: Kind) -> str:
    return kind.label.replace("|", "\\|")


def _default(item: FieldSpec) -> str:
    if item.required:
        return "required"
    value = item.default
    if isinstance(value, Enum):
        return value.name
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, int):
        return _number(value)
    if isinstance(value, float):
        return f"{value:g}"
    return "empty" if value in (b"", "", ()) else "all defaults"


# ---- structs, enums, codes ----


def structs() -> str:
    """Return the nested maps, in the order of their names."""
    parts = []
    for name, spec in sorted(STRUCTS.items()):
        parts += [f"#### {name}", _prose(spec.cls), _fields(spec.fields)]
    return "\n\n".join(parts)


def enums() -> str:
    """Return every enumeration that a field uses, except the error codes."""
    used: dict[str, type[IntEnum]] = {}
    for spec in (*MESSAGES.values(), *STRUCTS.values()):
        for item in spec.fields:
            kind = item.kind.item if isinstance(item.kind, ListOf) else item.kind
            if isinstance(kind, Choice) and kind.enum is not errors.ErrorCode:
                used[kind.enum.__name__] = kind.enum
    return "\n\n".join(_enum(used[name]) for name in sorted(used))


def _enum(enum: type[IntEnum]) -> str:
    comments = _comments_of(enum)
    rows = [(str(member.value), member.name, comments.get(member.name, "")) for member in enum]
    return f"#### {enum.__name__}\n\n{_prose(enum)}\n\n{_table(('value', 'name', 'meaning'), rows)}"


def _comments_of(enum: type[Enum]) -> dict[str, str]:
    module = next(m for m in _MODULES if m.__name__ == enum.__module__)
    return {item.name: item.comment for item in named_values(module) if item.owner == enum.__name__}


_MODULES = (errors, frame, registry, job_terms, *AREAS.values())


def error_codes() -> str:
    """Return all error codes with their scope: below 32 they end a connection."""
    comments = _comments_of(errors.ErrorCode)
    return _table(
        ("code", "name", "scope", "meaning"),
        [
            (str(c.value), c.name, "connection" if c < 32 else "request", comments.get(c.name, ""))
            for c in errors.ErrorCode
        ],
    )


# ---- frames, legality, limits ----


def frame_types() -> str:
    """Return the frame types with what each may carry."""
    comments = _comments_of(frame.FrameType)
    rows = []
    for kind in frame.FrameType:
        rule = table.RULES.get(kind)
        carried = ("-",) * 4 if rule is None else _carried(kind, rule)
        rows.append((f"0x{kind.value:02X}", kind.name, *carried, comments.get(kind.name, "")))
    return _table(("type", "name", "id", "flags", "meta", "payload", "remark"), rows)


def _carried(kind: frame.FrameType, rule: table.Rule) -> tuple[str, str, str, str]:
    flags = _join(str(flag.name) for flag in frame.Flags if flag in rule.flags)
    meta = rule.meta
    if isinstance(meta, Shape):
        name = f"{meta.value}, with END" if meta is Shape.TRAILER else meta.value
    else:
        name = meta.SPEC.name if meta is not None else "none"
    return rule.scope.value, flags or "none", name, _payload(kind, rule)


def _payload(kind: frame.FrameType, rule: table.Rule) -> str:
    if not rule.has_payload:
        return "none"
    special = {
        frame.FrameType.PAD: "any bytes, ignored",
        frame.FrameType.DATA: "offset, body bytes",
    }
    return special.get(kind, "the body's first bytes")


def frame_flags() -> str:
    """Return the frame flags."""
    comments = _comments_of(frame.Flags)
    rows = [(f"0x{f.value:02X}", str(f.name), comments.get(str(f.name), "")) for f in frame.Flags]
    return _table(("bit", "name", "meaning"), rows)


def moves() -> str:
    """Return how a connection goes from one phase to another."""
    rows = [(before.name, step.value, after.name) for (before, step), after in table.MOVES.items()]
    return _table(("phase", "step", "next phase"), rows)


def legal() -> str:
    """Return who may send which frame and which message in which state."""
    return f"{_legal_frames()}\n\n{_legal_messages()}"


def _legal_frames() -> str:
    states = [state for state in _LEGAL_STATES if state is not State.WORKER]
    rows = []
    for kind in table.RULES:
        by_state = []
        for state in states:
            sides = [side for side in table.Side if kind in table.legal_frames(state, side)]
            by_state.append(_join(side.name.lower() for side in sides) or "-")
        rows.append((kind.name, *by_state))
    return _table(("frame", *(state.name for state in states)), rows)


def _legal_messages() -> str:
    rows = []
    for _, spec in sorted(MESSAGES.items()):
        if spec.shape is Shape.CONTROL:
            continue  # legal where its frame is
        by_state = [
            senders(spec, state) if state in spec.states else "-" for state in _LEGAL_STATES
        ]
        rows.append((f"0x{spec.code:02X}", spec.name, spec.shape.value, *by_state))
    return _table(("code", "message", "shape", *(s.name for s in _LEGAL_STATES)), rows)


def limit_values() -> str:
    """Return every limit with its number and its reason, by section."""
    parts: list[str] = []
    sections: dict[str, list[tuple[str, ...]]] = {}
    for item in named_values(limits):
        value = _number(getattr(limits, item.name))
        sections.setdefault(item.heading, []).append((item.name, value, item.comment))
    for heading, rows in sections.items():
        parts += [f"#### {heading.capitalize()}", _table(("name", "value", "reason"), rows)]
    return "\n\n".join(parts)


# ---- text ----


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _prose(cls: type[Any]) -> str:
    """Return a class's docstring with each paragraph on one line."""
    text = " ".join((cls.__doc__ or "").split("\n\n"))
    return " ".join(text.split()).replace("``", "`")


def _number(value: float) -> str:
    if isinstance(value, int) and value in _POWERS:
        return _POWERS[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
