"""Glob patterns over the paths of a container.

    ?        one character, not a slash
    *        any characters, no slash
    **       any characters, slashes too; as a whole segment also none: ``a/**/b`` matches ``a/b``
    [abc]    one of these; ranges as a-z; ``[!abc]`` one that is none of these; never a slash
    [*]      an asterisk itself

Matching is case-sensitive and of the whole path. A pattern becomes a nondeterministic automaton of
one bit per position, whose states all advance together (bit-parallel simulation, Baeza-Yates and
Gonnet 1992): the time is bounded by the path's length times the pattern's, so that no pattern
keeps a node busy for ever, as one can with a backtracking regular expression.
"""

import re

from alpyne_proto.container import NameRefused, check_pattern

_WILD = re.compile(r"[*?\[]")
_MASKS_MAX = 1024  # characters whose masks are kept
_SHOWN_MAX = 60


class Glob:
    """A compiled pattern.

    pattern: 1 to 1,024 bytes of UTF-8; NameRefused for others, and for a class without its end.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise NameRefused("pattern: expected 1 to 1024 bytes, got none; ** matches everything")
        check_pattern(pattern)
        wild = _WILD.search(pattern)
        self.prefix = pattern[: wild.start()] if wild else pattern
        """What every match begins with."""
        self._suffix = _literal_end(pattern)
        self._literals: dict[str, int] = {}  # character -> positions that it leads on from
        self._classes: list[tuple[int, re.Pattern[str]]] = []
        self._any = 0  # positions that any character but a slash leads on from
        self._star = 0  # positions where any character but a slash may stay
        self._deep = 0  # positions where any character may stay
        self._skip_1 = 0  # positions from which the next is reached unread
        self._skip_2 = 0  # the same for the next but one
        self._masks: dict[str, int] = {}
        self._accept = 1 << self._compile(pattern)
        self._start = self._closed(1)

    def matches(self, path: str) -> bool:
        """Return whether the whole of ``path`` matches."""
        if not (path.startswith(self.prefix) and path.endswith(self._suffix)):
            return False
        state = self._start
        deep = self._deep
        shallow = deep | self._star
        masks = self._masks
        for char in path:
            mask = masks.get(char)
            if mask is None:
                mask = self._mask(char)
            state = self._closed((state & mask) << 1 | state & (deep if char == "/" else shallow))
            if not state:
                return False
        return bool(state & self._accept)

    def _compile(self, pattern: str) -> int:
        """Fill the masks from ``pattern``; return the position behind its end."""
        pattern = re.sub(r"\*{3,}", "**", pattern)
        # Several in a row say no more than one; without them a skip leads to at most two others.
        pattern = re.sub(r"(?:(?<=/)|^)(?:\*\*/){2,}", "**/", pattern)
        at = position = 0
        while at < len(pattern):
            bit = 1 << position
            if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
                self._skip_1 |= bit
                self._skip_2 |= bit
                self._deep |= bit << 1
                self._literals["/"] = self._literals.get("/", 0) | bit << 1
                at += 3
                position += 2
                continue
            if pattern.startswith("**", at):
                self._deep |= bit
                self._skip_1 |= bit
                at += 1
            elif pattern[at] == "*":
                self._star |= bit
                self._skip_1 |= bit
            elif pattern[at] == "?":
                self._any |= bit
            elif pattern[at] == "[":
                at = self._class(pattern, at, bit)
            else:
                self._literals[pattern[at]] = self._literals.get(pattern[at], 0) | bit
            at += 1
            position += 1
        return position

    def _class(self, pattern: str, at: int, bit: int) -> int:
        """Take the class that begins at ``at``; return the place of its closing bracket."""
        begin = at + 1
        negated = pattern.startswith("!", begin)
        begin += negated
        end = pattern.find("]", begin + 1)
        if end < 0:
            raise NameRefused(
                f"pattern {pattern[:_SHOWN_MAX]!a}: the class at character {at} has no "
                "closing ]; write [[] for the bracket itself"
            )
        ranges = []
        while begin < end:
            is_range = pattern[begin + 1] == "-" and begin + 2 < end
            last = pattern[begin + 2] if is_range else pattern[begin]
            if pattern[begin] <= last:  # a range that runs backwards holds nothing
                ranges.append(f"{re.escape(pattern[begin])}-{re.escape(last)}")
            begin += 3 if is_range else 1
        inside = "".join(ranges)
        one = rf"[^{inside}]" if negated else rf"[{inside}]"
        if not inside:
            one = r"[\s\S]" if negated else r"(?!)"
        self._classes.append((bit, re.compile(one)))
        return end

    def _mask(self, char: str) -> int:
        """Return the positions that ``char`` leads on from."""
        mask = self._literals.get(char, 0)
        if char != "/":
            mask |= self._any
            for bit, one in self._classes:
                if one.match(char):
                    mask |= bit
        if len(self._masks) < _MASKS_MAX:
            self._masks[char] = mask
        return mask

    def _closed(self, state: int) -> int:
        """Return ``state`` with the positions that are reached from it without reading."""
        while True:
            more = state | (state & self._skip_1) << 1 | (state & self._skip_2) << 2
            if more == state:
                return state
            state = more


def _literal_end(pattern: str) -> str:
    """Return what every match ends with."""
    last = max(pattern.rfind(char) for char in "*?]")
    end = pattern[last + 1 :]
    is_segment = re.search(r"(?:^|/)\*\*+$", pattern[: last + 1]) is not None
    return end[1:] if is_segment and end.startswith("/") else end
