"""What the administrator says of the server: URI, database, TLS. No password leaves this module.

The URI is parsed by pymongo; here it is taken apart only as far as messages and the questions of a
stranger need it: hosts without the password, and whether there is one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from alpyne_grid.nodes.errors import ConfigError

OPTIONS = frozenset({"uri", "uri-file", "database", "tls-ca-file"})
DEFAULT_DATABASE = "alpyne"
DEFAULT_PORT = 27017
PAUSE_S = 30.0  # how long requests wait for an election; MongoDB's own ones take some 12 s
# A primary that hangs, or whose network is cut, is noticed within the sum of both. Without these it
# is after half a minute, and what was asked of it waits for so long.
NOTICED: Mapping[str, int] = {"heartbeatFrequencyMS": 2000, "connectTimeoutMS": 3000}
FORM = "mongodb://USER:PASSWORD@HOST:PORT,.../?replicaSet=NAME"

_DATABASE = re.compile(r"[A-Za-z0-9_-]{1,63}")
_SYSTEM_DATABASES = frozenset({"admin", "config", "local"})
# Kinds of authentication that need no user in the URI.
_WITHOUT_USER = frozenset({"MONGODB-X509", "MONGODB-AWS", "MONGODB-OIDC"})


@dataclass(frozen=True, slots=True)
class MongoSettings:
    """How the server is reached.

    uri: with the password. hosts: as the URI names them. user: "" where the mechanism needs none.
    tls: whether connections are encrypted. pause_s: how long a request waits for a primary.
    """

    uri: str = field(repr=False)
    database: str
    hosts: tuple[str, ...]
    user: str
    tls: bool
    tls_ca_file: str = ""
    pause_s: float = PAUSE_S

    @property
    def place(self) -> str:
        """The server's name in messages."""
        return f"MongoDB at {', '.join(self.hosts)}"

    @property
    def is_srv(self) -> bool:
        """Whether the URI names hosts by a DNS entry."""
        return self.uri.lower().startswith("mongodb+srv://")

    @property
    def client_options(self) -> Mapping[str, Any]:
        """What pymongo's client takes beside the URI; these win over the same words in it."""
        options: dict[str, Any] = {
            "appname": "alpyne",
            "retryReads": True,
            "retryWrites": True,
            "serverSelectionTimeoutMS": int(self.pause_s * 1000),
        }
        given = {name.lower() for name, _ in parse_qsl(_parts(self.uri)[3])}
        for name, value in NOTICED.items():
            if name.lower() not in given:
                options[name] = value
        return options | self._tls_options()

    def strangers(self, host: str) -> tuple[str, Mapping[str, Any]]:
        """Return URI and options for one member, as somebody without a password would have them."""
        query = {
            name: value
            for name, value in parse_qsl(_parts(self.uri)[3])
            if name.lower().startswith(("tls", "ssl"))
        }
        if self.is_srv:
            query.setdefault("tls", "true")
        query["directConnection"] = "true"
        return f"mongodb://{host}/?{urlencode(query)}", self._tls_options()

    def _tls_options(self) -> dict[str, Any]:
        return {"tls": True, "tlsCAFile": self.tls_ca_file} if self.tls_ca_file else {}

    def without_secrets(self, text: str) -> str:
        """Return ``text`` without the password, should a driver's message hold it."""
        _, userinfo, _, _ = _parts(self.uri)
        password = userinfo.partition(":")[2]
        for secret in {self.uri, userinfo, password, unquote(password)}:
            if len(secret) > 2:
                text = text.replace(secret, "***")
        return text


def read_settings(options: Mapping[str, tuple[str, ...]]) -> MongoSettings:
    """Return the settings that ``options`` describe. Raises ConfigError."""
    uri = _uri(options)
    scheme, userinfo, hosts, query = _parts(uri)
    words = {name.lower(): value for name, value in parse_qsl(query)}
    # An @ behind the hosts means that they are none: the password has a slash in it.
    is_split = not userinfo and "@" in uri
    if scheme not in ("mongodb", "mongodb+srv") or not hosts or is_split:
        raise ConfigError(
            f"uri: expected {FORM}, with user and password percent-encoded (RFC 3986); got "
            "something else, not shown because it may hold a password"
        )
    user = unquote(userinfo.partition(":")[0])
    if not user and words.get("authmechanism", "").upper() not in _WITHOUT_USER:
        raise ConfigError(
            "uri: names no user; objects are kept only on a server that asks for a password; give "
            f"{FORM} in a file by --uri-file"
        )
    ca_file = _one(options, "tls-ca-file", "")
    if ca_file and not Path(ca_file).is_file():
        raise ConfigError(f"tls-ca-file: {ca_file} is no file; give the PEM file of the authority")
    tls = words.get("tls", words.get("ssl", str(scheme == "mongodb+srv"))).lower() == "true"
    return MongoSettings(
        uri=uri,
        database=_database(_one(options, "database", DEFAULT_DATABASE)),
        hosts=tuple(_with_port(host) for host in hosts.split(",")),
        user=user,
        tls=tls or bool(ca_file),
        tls_ca_file=ca_file,
        pause_s=_pause_s(words.get("timeoutms", "")),
    )


def _uri(options: Mapping[str, tuple[str, ...]]) -> str:
    uri, file = _one(options, "uri", ""), _one(options, "uri-file", "")
    if bool(uri) == bool(file):
        got = "both" if uri else "neither"
        raise ConfigError(
            f"uri: expected --uri-file FILE (a file with {FORM} that only the node's user reads) "
            f"or --uri URI (other users of the machine may see it), got {got}"
        )
    if uri:
        return uri.strip()
    try:
        return Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ConfigError(
            f"uri-file: {file} cannot be read ({reason}); write the URI into it, readable for the "
            "node's user only"
        ) from None


def _one(options: Mapping[str, tuple[str, ...]], name: str, default: str) -> str:
    values = options.get(name, ())
    if len(values) > 1:
        raise ConfigError(f"{name}: expected once, got {len(values)} times")
    return values[0] if values else default


def _database(name: str) -> str:
    if not _DATABASE.fullmatch(name) or name in _SYSTEM_DATABASES:
        raise ConfigError(
            "database: expected 1 to 63 letters, digits, - and _, and none of "
            f"{', '.join(sorted(_SYSTEM_DATABASES))}; got {name!r}"
        )
    return name


def _pause_s(timeout_ms: str) -> float:
    if not timeout_ms:
        return PAUSE_S
    if not timeout_ms.isdecimal() or not int(timeout_ms):
        raise ConfigError(f"uri: timeoutMS: expected milliseconds above 0, got {timeout_ms!r}")
    return int(timeout_ms) / 1000


def _parts(uri: str) -> tuple[str, str, str, str]:
    """Return scheme, user with password, hosts and query of a URI; of other text anything."""
    scheme, _, rest = uri.partition("://")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    userinfo, _, hosts = authority.rpartition("@")
    return scheme.lower(), userinfo, hosts, rest.partition("?")[2]


def _with_port(host: str) -> str:
    is_complete = host.endswith(".sock") or re.search(r":\d+$", host)
    return host if is_complete else f"{host}:{DEFAULT_PORT}"
