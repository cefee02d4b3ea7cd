"""Names of containers and objects: what is legal, and a container's id.

Manager and data node call the same functions, so that a name is refused before it travels and
again where it arrives. A path names an object inside a container and is never a file name on a
node.

Source: spec/PROTOCOL.md, "Data".
"""

import hashlib
import re
from typing import NoReturn

from alpyne_proto.errors import AlpyneError, ErrorCode
from alpyne_proto.limits import CONTAINER_NAME_MAX, PATH_MAX

CONTAINER_ID_CONTEXT = b"alpyne container v1\x00"
CONTAINER_ID_SIZE = 16
ACCOUNT_SIZE = 32

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHOWN_MAX = 60


class NameRefused(AlpyneError):
    """A path, prefix, pattern or container name that is not legal; the message says why."""

    code = ErrorCode.BAD_REQUEST


def container_id(account: bytes, name: str) -> bytes:
    """Return the id of the container that ``account`` (32 bytes) calls ``name``: 16 bytes.

    SHA-256 over a context string, the account's key and the name, cut to 16 bytes: the same name is
    the same container on every node, and no account can make another's id. Raises NameRefused.
    """
    if len(account) != ACCOUNT_SIZE:
        raise NameRefused(f"account: expected a key of {ACCOUNT_SIZE} bytes, got {len(account)}")
    check_container_name(name)
    digest = hashlib.sha256(CONTAINER_ID_CONTEXT + account + name.encode()).digest()
    return digest[:CONTAINER_ID_SIZE]


def check_container_name(name: str) -> str:
    """Return ``name``: 1 to 255 bytes of UTF-8 without control characters; else NameRefused."""
    return _checked("container name", name, CONTAINER_NAME_MAX)


def check_path(path: str) -> str:
    """Return ``path`` where it is legal for an object, or raise NameRefused.

    Legal: 1 to 1,024 bytes of UTF-8; segments between slashes, none of them empty, ``.`` or ``..``;
    no control characters.
    """
    _checked("path", path, PATH_MAX)
    if path[0] == "/":
        _refuse("path", path, "begins with a slash; give it relative to the container")
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            what = "an empty segment" if not segment else f"a segment {segment!r}"
            _refuse("path", path, f"has {what}; write each segment out, with one slash between")
    return path


def check_prefix(prefix: str) -> str:
    """Return ``prefix``, the beginning of paths; empty means all. Raises NameRefused."""
    return _checked("prefix", prefix, PATH_MAX) if prefix else prefix


def check_pattern(pattern: str) -> str:
    """Return ``pattern``, a glob; empty means all. Raises NameRefused."""
    return _checked("pattern", pattern, PATH_MAX) if pattern else pattern


def _checked(kind: str, name: str, most: int) -> str:
    if not name:
        raise NameRefused(f"{kind}: expected 1 to {most} bytes, got none")
    if len(name) > most:
        _refuse(kind, name, f"has {len(name)} characters, at most {most} bytes are allowed")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        _refuse(kind, name, f"is not UTF-8: a lone surrogate at character {error.start}")
    if size > most:
        _refuse(kind, name, f"has {size} bytes of UTF-8, at most {most} are allowed")
    control = _CONTROL.search(name)
    if control is not None:
        place = f"U+{ord(control[0]):04X} at character {control.start()}"
        _refuse(kind, name, f"has a control character, {place}; leave it out")
    return name


def _refuse(kind: str, name: str, why: str) -> NoReturn:
    shown = ascii(name[:_SHOWN_MAX]) + ("..." if len(name) > _SHOWN_MAX else "")
    raise NameRefused(f"{kind} {shown}: {why}")
