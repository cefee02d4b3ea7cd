"""Kinds of message fields: what a value may be, and how it is checked on the way in and out.

A kind is a small immutable object with ``check(value, where)``, which returns the value as it is
used in Python or raises CodecError, and ``plain(value)``, which returns what msgpack packs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn, Protocol, cast

from alpyne_proto.errors import CodecError

_SHOWN_MAX = 60


class Kind(Protocol):
    """What a field holds."""

    @property
    def label(self) -> str:
        """The kind's name in the tables of PROTOCOL.md."""
        ...

    def check(self, value: Any, where: str) -> Any:
        """Return ``value`` as Python uses it, or raise CodecError naming ``where``."""
        ...

    def plain(self, value: Any) -> Any:
        """Return what is packed for ``value``."""
        ...


def refuse(where: str, expected: str, value: object) -> NoReturn:
    """Raise CodecError: what was expected at ``where``, and what came."""
    got = f"{type(value).__name__} {value!r}"
    if len(got) > _SHOWN_MAX:
        got = got[:_SHOWN_MAX] + "..."
    raise CodecError(f"{where}: expected {expected}, got {got}")


@dataclass(frozen=True, slots=True)
class Uint:
    """An unsigned integer of at most ``bits`` bits."""

    bits: int

    @property
    def label(self) -> str:
        return f"u{self.bits}"

    def check(self, value: Any, where: str) -> int:
        if type(value) is not int or value < 0 or value >> self.bits:
            refuse(where, f"an integer of 0 to 2^{self.bits}-1", value)
        return value

    def plain(self, value: int) -> int:
        return value


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    label: str = "bool"

    def check(self, value: Any, where: str) -> bool:
        if type(value) is not bool:
            refuse(where, "true or false", value)
        return value

    def plain(self, value: bool) -> bool:
        return value


@dataclass(frozen=True, slots=True)
class Real:
    """A finite 64-bit float; integers are taken as floats."""

    label: str = "f64"

    def check(self, value: Any, where: str) -> float:
        if type(value) not in (float, int) or not -1.7e308 < value < 1.7e308:
            refuse(where, "a finite number", value)
        return float(value)

    def plain(self, value: float) -> float:
        return float(value)


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 text of at most ``most`` encoded bytes."""

    most: int

    @property
    def label(self) -> str:
        return f"text<={self.most}"

    def check(self, value: Any, where: str) -> str:
        # len() of a str is a lower bound of its encoded length, so the cheap test comes first.
        if type(value) is not str or len(value) > self.most:
            refuse(where, f"text of at most {self.most} bytes", value)
        if len(value) * 4 > self.most and len(value.encode(errors="surrogatepass")) > self.most:
            refuse(where, f"text of at most {self.most} bytes", value)
        return value

    def plain(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, ``least`` to ``most`` of them; with ``or_empty`` also none."""

    least: int
    most: int
    or_empty: bool = False

    @property
    def label(self) -> str:
        size = str(self.most) if self.least == self.most else f"{self.least}..{self.most}"
        return f"bytes[{'0|' if self.or_empty else ''}{size}]"

    def check(self, value: Any, where: str) -> bytes:
        if type(value) is not bytes or not (
            self.least <= len(value) <= self.most or (self.or_empty and not value)
        ):
            refuse(where, self.label, value)
        return value

    def plain(self, value: bytes) -> bytes:
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """A member of an IntEnum, travelling as its number."""

    enum: type[IntEnum]

    @property
    def label(self) -> str:
        return self.enum.__name__

    def check(self, value: Any, where: str) -> IntEnum:
        if type(value) is self.enum:
            return value
        if type(value) is not int and not isinstance(value, self.enum):
            refuse(where, f"a {self.enum.__name__} number", value)
        member = self.enum._value2member_map_.get(value)  # calling the class is five times slower
        if member is None:
            refuse(where, f"one of {self.enum.__name__}", value)
        return cast(IntEnum, member)

    def plain(self, value: IntEnum) -> int:
        return int(value)


@dataclass(frozen=True, slots=True)
class Bits:
    """A set of flag bits within ``mask``; unknown bits are refused."""

    mask: int

    @property
    def label(self) -> str:
        return f"bits 0x{self.mask:x}"

    def check(self, value: Any, where: str) -> int:
        if type(value) is bool or not isinstance(value, int) or value < 0 or value & ~self.mask:
            refuse(where, f"bits within 0x{self.mask:x}", value)
        return int(value)

    def plain(self, value: int) -> int:
        return int(value)


@dataclass(frozen=True, slots=True)
class ListOf:
    """At most ``most`` values of one kind; a tuple in Python, an array on the wire."""

    item: Kind
    most: int

    @property
    def label(self) -> str:
        return f"[{self.item.label}]<={self.most}"

    def check(self, value: Any, where: str) -> tuple[Any, ...]:
        if type(value) not in (list, tuple) or len(value) > self.most:
            refuse(where, f"an array of at most {self.most}", value)
        return tuple(self.item.check(item, where) for item in value)

    def plain(self, value: tuple[Any, ...]) -> list[Any]:
        return [self.item.plain(item) for item in value]


@dataclass(frozen=True, slots=True)
class Struct:
    """A nested map with its own numbered fields, a frozen dataclass in Python.

    ``read`` and ``write`` are the registry's map decoder and encoder for the class; they are given
    by the registry, so that this module need not know it.
    """

    name: str
    read: Callable[[Any, str], Any]
    write: Callable[[Any], dict[int, Any]]

    @property
    def label(self) -> str:
        return f"{{{self.name}}}"

    def check(self, value: Any, where: str) -> Any:
        return self.read(value, where)

    def plain(self, value: Any) -> dict[int, Any]:
        return self.write(value)


PACKED_AS_THEY_ARE = (Uint, Flag, Text, Blob)  # kinds whose ``plain`` changes nothing

U8, U16, U32, U64 = Uint(8), Uint(16), Uint(32), Uint(64)
FLAG, REAL = Flag(), Real()
ID8, ID16, KEY32, HASH32, SIGNATURE64 = (
    Blob(8, 8),
    Blob(16, 16),
    Blob(32, 32),
    Blob(32, 32),
    Blob(64, 64),
)
