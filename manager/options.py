"""What a program may ask for a job, in words: sizes, durations, requirements."""

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from alpyne_grid.manager.errors import ProgramError
from alpyne_grid.manager.grid_events import OnLost

from alpyne_proto import limits
from alpyne_proto.messages.compute import Operator, Requirement
from alpyne_proto.offer import NOTHING, Asked

RETRIES_MAX = 1_000
NETWORK_MAX, IMAGE_MAX = 64, 256  # bytes, as in JobSpec

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([kKMGT]?)(i?)B?")
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*(!=|>=|<=|=|~)\s*(.+?)\s*")
_OPERATORS = {
    "=": Operator.EQUAL,
    "!=": Operator.NOT_EQUAL,
    ">=": Operator.AT_LEAST,
    "<=": Operator.AT_MOST,
    "~": Operator.HAS,
}

Size = int | str
Duration = float | str
Requires = Iterable[str | Requirement] | Mapping[str, object]


def parse_size(value: Size | None) -> int:
    """Return bytes for a number or a text as "1GiB", "500 MB", "64k"; None is 0, no limit."""
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ProgramError(f"size: expected bytes or a text as '1GiB' or '500MB', got {value!r}")
    number, prefix, binary = match.groups()
    base = 1024 if binary or prefix == "" else 1000
    return int(float(number) * base ** _POWERS[prefix])


def parse_duration(value: Duration | None) -> float:
    """Return seconds for a number or a text as "90s", "10m", "2h"; None is 0, no limit."""
    if value is None:
        return 0.0
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ProgramError(f"time: expected seconds or a text as '90s' or '10m', got {value!r}")
    return float(match[1]) * _SECONDS[match[2]]


def parse_requirements(given: Requires) -> tuple[Requirement, ...]:
    """Return requirements for texts as "os=linux", "memory>=8000000000", "labels~gpu".

    ``~``: the attribute is a list that has the value. A mapping means equality.
    """
    if isinstance(given, Mapping):
        return tuple(Requirement(name, Operator.EQUAL, str(v)) for name, v in given.items())
    if isinstance(given, str):
        given = (given,)
    return tuple(_requirement(one) for one in given)


def _requirement(given: str | Requirement) -> Requirement:
    if isinstance(given, Requirement):
        return given
    match = _REQUIREMENT.fullmatch(given)
    if match is None:
        raise ProgramError(
            f"requirement: expected NAME=VALUE with =, !=, >=, <= or ~ (has), got {given!r}"
        )
    return Requirement(match[1], _OPERATORS[match[2]], match[3])


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a program asks for its jobs.

    ``memory``, ``output``, ``result``: limits in bytes or as "1GiB". ``timeout``: of the running
    program, seconds or as "10m"; of a map, for each chunk. ``retries``: how often an exception or
    crash is tried anew. ``cpus``: slots that it takes. ``tags``: to find it again. ``name``: for
    lists. ``require``: conditions on the node's offer. ``nodes``: keys of the nodes that may run
    it. ``on_lost``: "move" a job whose node is lost, or "wait" for that node. ``python``: version
    that it needs, if not the one that it is sent from. ``processes``: most at once, threads
    included. ``disk``: what its files may take on the node, as ``memory``. ``network``, ``image``:
    names that the node's administrator lists; without them it gets none, and the node's own.
    """

    memory: Size | None = None
    timeout: Duration | None = None
    retries: int = 0
    cpus: int = 1
    output: Size | None = None
    result: Size | None = None
    tags: Collection[str] = ()
    name: str = ""
    require: Requires = ()
    nodes: Collection[bytes] = ()
    on_lost: Literal["move", "wait"] = "move"
    python: str = ""
    processes: int | None = None
    disk: Size | None = None
    network: str = ""
    image: str = ""

    def checked(self) -> "CheckedOptions":
        """Return the options as numbers; ProgramError for one that cannot be."""
        return _DEFAULT_CHECKED if self is DEFAULT else self._checked()

    def _checked(self) -> "CheckedOptions":
        if not 1 <= self.cpus <= 4_096:
            raise ProgramError(f"cpus: expected 1 to 4096, got {self.cpus!r}")
        if not 0 <= self.retries <= RETRIES_MAX:
            raise ProgramError(f"retries: expected 0 to {RETRIES_MAX}, got {self.retries!r}")
        tags = (self.tags,) if isinstance(self.tags, str) else tuple(self.tags)
        if len(tags) > limits.TAGS_MAX or any(
            not 0 < len(str(tag).encode()) <= limits.TAG_MAX for tag in tags
        ):
            raise ProgramError(
                f"tags: expected at most {limits.TAGS_MAX} texts of 1 to {limits.TAG_MAX} bytes, "
                f"got {tags!r:.100}"
            )
        try:
            on_lost = OnLost(self.on_lost)
        except ValueError:
            raise ProgramError(
                f"on_lost: expected 'move' or 'wait', got {self.on_lost!r}"
            ) from None
        return CheckedOptions(
            asked=self._asked(),
            timeout_ms=round(parse_duration(self.timeout) * 1000),
            retries=self.retries,
            cpus=self.cpus,
            output_bytes=parse_size(self.output),
            result_bytes=parse_size(self.result),
            tags=tags,
            name=self.name[:100],
            requirements=parse_requirements(self.require),
            nodes=frozenset(self.nodes),
            on_lost=on_lost,
            python=self.python,
        )

    def _asked(self) -> Asked:
        processes = 0 if self.processes is None else self.processes
        if type(processes) is not int or not 0 <= processes < 1 << 32:
            raise ProgramError(f"processes: expected 1 to 4294967295, got {processes!r}")
        for name, most in (("network", NETWORK_MAX), ("image", IMAGE_MAX)):
            named = getattr(self, name)
            if not isinstance(named, str) or len(named.encode()) > most or "," in named:
                raise ProgramError(
                    f"{name}: expected a name that a node lists (`alpyne nodes --long`), at most "
                    f"{most} bytes without a comma, got {named!r:.100}"
                )
        memory, disk = parse_size(self.memory), parse_size(self.disk)
        return Asked(memory, processes, disk, self.network, self.image)


@dataclass(frozen=True, slots=True)
class CheckedOptions:
    """JobOptions as numbers."""

    asked: Asked = NOTHING
    timeout_ms: int = 0
    retries: int = 0
    cpus: int = 1
    output_bytes: int = 0
    result_bytes: int = 0
    tags: tuple[str, ...] = ()
    name: str = ""
    requirements: tuple[Requirement, ...] = ()
    nodes: frozenset[bytes] = frozenset()
    on_lost: OnLost = OnLost.MOVE
    python: str = ""


DEFAULT = JobOptions()
_DEFAULT_CHECKED = CheckedOptions()  # most jobs have no options: looking at them costs as much


def split_options(
    given: Mapping[str, Any], function: Callable[..., Any] | None = None
) -> tuple[JobOptions, dict[str, Any]]:
    """Divide keywords into a job's options and those of ``function`` itself.

    A keyword that the function names among its parameters is the function's; ``options`` holds
    JobOptions to begin with.
    """
    rest = dict(given)
    base = rest.pop("options", None)
    if base is not None and not isinstance(base, JobOptions):
        raise ProgramError(f"options: expected JobOptions, got {type(base).__name__}")
    named = [name for name in rest if name in JobOptions.__slots__]
    if named and function is not None:
        own = _parameters(function)
        named = [name for name in named if name not in own]
    if not named:
        return base or DEFAULT, rest
    chosen = {name: rest.pop(name) for name in named}
    return replace(base or DEFAULT, **chosen), rest


def more_options(given: Mapping[str, Any]) -> CheckedOptions:
    """Return options where nothing else may be given; ProgramError names what is unknown."""
    options, rest = split_options(given)
    if rest:
        raise ProgramError(
            f"unknown option {', '.join(sorted(rest))}; known are {', '.join(JobOptions.__slots__)}"
        )
    return options.checked()


def _parameters(function: Callable[..., Any]) -> Collection[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions do not say
        return ()
