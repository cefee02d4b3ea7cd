"""The registry: each message is declared once; codec, tables, vectors, fuzzers derive from it.

A message is a frozen, slotted dataclass of ``Annotated[type, Field(key, kind, text)]``. Keys
 rise in declaration order. Even keys must be understood by the receiver; odd keys may be
skipped by one that does not know them. A field with a default is left out when it has that value.
Key 0 holds the message's code.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum, IntFlag
from typing import Any, ClassVar, TypeVar

from alpyne_proto.errors import CodecError, LocalProtocolError
from alpyne_proto.fields import PACKED_AS_THEY_ARE, Kind, Struct, refuse


class Role(IntFlag):
    """Who may send a message; a peer holds a set of roles."""

    MANAGER = 1
    NODE = 2


class State(IntEnum):
    """What a connection has established about the dialler."""

    HANDSHAKE = 0  # nothing yet: only hellos, and after them SETTINGS or CLOSE
    UNKNOWN = 1  # the key is no account's: only registration and tickets
    BEARER = 2  # a valid ticket was shown: only its verbs on its subject
    OPEN = 3  # a registered account
    WORKER = 4  # no connection: the socket pair between a compute daemon and its worker


class Shape(Enum):
    """Where a message stands."""

    __hash__ = object.__hash__  # looked up for each message; by name, as an Enum does, is slower

    HELLO = "hello"  # payload of Noise messages 2 and 3
    CONTROL = "control"  # the meta of a control frame; the frame's type names it
    REQUEST = "request"
    RESPONSE = "response"
    INTERRUPT = "interrupt"
    ROW = "row"  # an element of a row stream, with a payload of its own
    TRAILER = "trailer"  # the meta of the last DATA frame of a body
    STRUCT = "struct"  # nested in a field


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field's place on the wire: its key, its kind, and what it means with its unit."""

    key: int
    kind: Kind
    text: str


class Message:
    """Base of all messages; ``SPEC`` is filled in by the ``message`` decorator."""

    __slots__ = ()
    SPEC: ClassVar["Spec"]


@dataclasses.dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field as the codec uses it."""

    key: int
    name: str
    kind: Kind
    required: bool
    default: Any
    text: str
    where: str  # Message.field, for errors; made once, because making it costs more than checking


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """What the registry knows of one message."""

    code: int
    shape: Shape
    cls: type[Message]
    senders: Role
    states: frozenset[State]
    answers: tuple[int, ...]  # codes of the responses that answer it; Error is always legal
    rows: tuple[int, ...]  # codes of the rows that its body may hold; empty: no rows
    answer_rows: tuple[int, ...]  # codes of the rows that the body of its answer may hold
    body: bool  # whether raw bytes may follow as the body
    payload_max: int  # most bytes of a row's own payload
    fields: tuple[FieldSpec, ...]
    name: str = dataclasses.field(init=False)
    # The fields once more, as the loops of the codec need them: these are the hottest of all.
    writers: tuple[tuple[Any, ...], ...] = dataclasses.field(init=False, repr=False)
    readers: dict[int, tuple[Any, ...]] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        fill = functools.partial(object.__setattr__, self)
        fill("name", self.cls.__name__)
        fill("writers", tuple(map(_writer, self.fields)))
        fill("readers", {f.key: (f.name, f.kind.check, f.where) for f in self.fields})


def _writer(field: FieldSpec) -> tuple[Any, ...]:
    """Return what ``to_map`` needs of a field; no function for what is packed as it is."""
    kind = field.kind
    plain = None if isinstance(kind, PACKED_AS_THEY_ARE) else kind.plain
    return field.key, field.name, field.required, field.default, kind.check, plain, field.where


MESSAGES: dict[int, Spec] = {}
STRUCTS: dict[str, Spec] = {}
_M = TypeVar("_M", bound=type)
_MISSING = dataclasses.MISSING
ANY_ROLE = Role.MANAGER | Role.NODE


def message(
    code: int,
    *,
    shape: Shape,
    sender: Role = ANY_ROLE,
    states: Iterable[State] = (State.OPEN,),
    answers: Iterable[int] = (),
    rows: Iterable[int] = (),
    answer_rows: Iterable[int] = (),
    body: bool = False,
    payload_max: int = 0,
) -> Callable[[_M], _M]:
    """Declare a message under ``code``; a code that is taken raises LocalProtocolError."""

    def declare(cls: _M) -> _M:
        if code in MESSAGES:
            raise LocalProtocolError(f"code {code:#x} is taken by {MESSAGES[code].name}")
        fields = _field_specs(cls)
        spec = Spec(
            code,
            shape,
            cls,
            sender,
            frozenset(states),
            tuple(answers),
            tuple(rows),
            tuple(answer_rows),
            body,
            payload_max,
            fields,
        )
        cls.SPEC = spec  # type: ignore[attr-defined]
        MESSAGES[code] = spec
        return cls

    return declare


def struct(cls: _M) -> _M:
    """Declare a nested map; use ``nested(cls)`` as the kind of the field that holds it."""
    fields = _field_specs(cls)
    spec = Spec(
        0,
        Shape.STRUCT,
        cls,
        ANY_ROLE,
        frozenset(),
        (),
        (),
        (),
        False,
        0,
        fields,
    )
    cls.SPEC = spec  # type: ignore[attr-defined]
    STRUCTS[cls.__name__] = spec
    return cls


def nested(cls: type[Any]) -> Struct:
    """Return the kind of a field that holds a value of the declared struct ``cls``."""
    spec: Spec = cls.SPEC

    def read(value: Any, where: str) -> Any:
        # On the way out the value is the struct itself; writing it checks its fields.
        if type(value) is cls:
            return value
        # Structs stand in messages of state OPEN only, where odd keys may be skipped.
        try:
            return build(spec, value, lenient=True)
        except CodecError:  # once more, to name the place: making its name each time costs more
            return build(spec, value, f"{where}.{spec.name}", lenient=True)

    return Struct(spec.name, read, lambda value: to_map(spec, value))


def _field_specs(cls: type) -> tuple[FieldSpec, ...]:
    specs = []
    last = 0
    for item in dataclasses.fields(cls):
        field = item.type.__metadata__[0]  # type: ignore[union-attr]
        if field.key <= last:
            raise LocalProtocolError(f"{cls.__name__}.{item.name}: key {field.key} does not rise")
        last = field.key
        required = item.default is _MISSING
        where = f"{cls.__name__}.{item.name}"
        specs.append(
            FieldSpec(field.key, item.name, field.kind, required, item.default, field.text, where)
        )
    return tuple(specs)


def to_map(spec: Spec, value: Any) -> dict[int, Any]:
    """Return keys and plain values of ``value``; CodecError for a value out of bounds."""
    plain: dict[int, Any] = {}
    for key, name, required, default, check, pack, where in spec.writers:
        held = getattr(value, name)
        if not required and (held is default or held == default):
            continue
        held = check(held, where)
        plain[key] = held if pack is None else pack(held)
    return plain


def build(spec: Spec, plain: Any, where: str = "", *, lenient: bool) -> Any:
    """Return the message that ``plain`` (a decoded map without key 0) stands for.

    ``where``: names a nested map in errors. ``lenient`` skips unknown odd keys, as is legal in
    state OPEN; otherwise any unknown key raises. Raises CodecError naming the message and field.
    """
    if type(plain) is not dict:
        refuse(where or spec.name, "a map", plain)
    readers = spec.readers
    values: dict[str, Any] = {}
    for key, value in plain.items():
        reader = readers.get(key)
        if reader is not None:
            name, check, place = reader
            values[name] = check(value, f"{where}.{name}" if where else place)
        elif not (lenient and type(key) is int and key & 1):
            raise CodecError(f"{where or spec.name}: key {key!r} is unknown and must be understood")
    try:
        return spec.cls(**values)
    except TypeError:
        missing = [f.name for f in spec.fields if f.required and f.name not in values]
        raise CodecError(f"{where or spec.name}: missing {', '.join(missing)}") from None
