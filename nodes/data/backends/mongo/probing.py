"""What a server says to a stranger: one that is unsafe, unfit or away is refused with a remedy.

Each member is asked by somebody who has no password. So a server that lets anybody in is found for
certain, whatever its options say; and the answer is at hand even where a client of the whole set
would only find no primary.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass, field

import pymongo
from alpyne_grid.nodes.data.backends.mongo.link import MongoLink
from alpyne_grid.nodes.data.backends.mongo.schema import OWNER, Doc
from alpyne_grid.nodes.data.backends.mongo.settings import MongoSettings
from alpyne_grid.nodes.errors import ConfigError
from pymongo import AsyncMongoClient
from pymongo.errors import NotPrimaryError, OperationFailure, PyMongoError

PROBE_S = 3.0
MIN_WIRE = 9  # MongoDB 4.4: a transaction may touch collections whatever shards they lie on
MIN_VERSION = "4.4"


@dataclass(frozen=True, slots=True)
class Probe:
    """What one member answered. ``error``: why it did not; ``open_to_all``: it asks no password."""

    host: str
    hello: Doc = field(default_factory=dict)
    open_to_all: bool = False
    error: str = ""


async def inspect(link: MongoLink) -> Doc:
    """Return the primary's ``hello`` where all members that answer are safe and fit.

    Raises ConfigError for what has to be changed, OSError for a server that is away.
    """
    settings = link.settings
    seeds = () if settings.is_srv else settings.hosts
    probes = await _probe_all(settings, seeds)
    if probes and all(probe.error for probe in probes):
        reasons = ", ".join(_named(probe) for probe in probes)
        raise OSError(
            f"{settings.place}: not reachable ({reasons}); start the server, or correct the URI's "
            f"host, port and TLS options ({_tls_hint(settings)})"
        )
    for probe in probes:
        check_member(settings, probe)
    hello = await link.patiently(lambda: _greet(link))
    more = {f"{host}:{port}" for host, port in link.client.nodes} - set(seeds)
    for probe in await _probe_all(settings, sorted(more)):
        check_member(settings, probe)
    await asyncio.to_thread(_check_privacy, settings, [*seeds, *more])
    return hello


async def _greet(link: MongoLink) -> Doc:
    """Return the primary's ``hello``, once the user may read the database."""
    await link[OWNER].find_one({"_id": OWNER}, {"_id": 1})
    return await link.client.admin.command("hello")


def check_member(settings: MongoSettings, probe: Probe) -> None:
    """Raise ConfigError where a member that answered must not, or cannot, keep objects."""
    hello, place = probe.hello, f"MongoDB at {probe.host}"
    if probe.error:
        return
    if hello.get("maxWireVersion", 0) < MIN_WIRE:
        raise ConfigError(f"{place}: too old; MongoDB {MIN_VERSION} or newer is needed")
    name = hello.get("setName") or "rs0"
    initiate = f'rs.initiate({{_id: "{name}", members: [{{_id: 0, host: "{probe.host}"}}]}})'
    if hello.get("isreplicaset") and not hello.get("setName"):
        raise ConfigError(
            f"{place}: is to be a replica set and was not initiated; run once on it: "
            f"mongosh --port {probe.host.rpartition(':')[2]} --eval '{initiate}'"
        )
    if not hello.get("setName") and hello.get("msg") != "isdbgrid":
        raise ConfigError(
            f"{place}: a single server without a replica set, which has no transactions; make it a "
            "set of one member: start mongod with --replSet rs0 --keyFile FILE beside its other "
            "options (FILE: openssl rand -base64 756, mode 600), then run once: mongosh URI --eval "
            f"'{initiate}'"
        )
    if probe.open_to_all:
        raise ConfigError(
            f"{place}: asks for no password: anybody who reaches it can read and change all "
            "objects; start mongod with --keyFile FILE (or --auth and x.509 between the members), "
            "and add a user for this node: db.getSiblingDB('admin').createUser({user: "
            f"{settings.user or 'alpyne'!r}, pwd: passwordPrompt(), roles: [{{role: 'readWrite', "
            f"db: {settings.database!r}}}]}})"
        )


async def _probe_all(settings: MongoSettings, hosts: "tuple[str, ...] | list[str]") -> list[Probe]:
    return list(await asyncio.gather(*(_probe(settings, host) for host in hosts)))


async def _probe(settings: MongoSettings, host: str) -> Probe:
    uri, options = settings.strangers(host)
    try:
        stranger: AsyncMongoClient[Doc] = AsyncMongoClient(
            uri, serverSelectionTimeoutMS=int(PROBE_S * 1000), **options
        )
    except (PyMongoError, ValueError, TypeError, OSError) as error:
        return Probe(host, error=settings.without_secrets(str(error)))
    try:
        with pymongo.timeout(PROBE_S):
            hello = await stranger.admin.command("hello")
            return Probe(host, hello, await _is_open(stranger, settings.database))
    except PyMongoError as error:
        (member,) = stranger.topology_description.server_descriptions().values()
        if not member.error and 0 < member.max_wire_version < MIN_WIRE:
            return Probe(host, {"maxWireVersion": member.max_wire_version})
        text = str(member.error or error).partition(" (configured timeouts")[0]
        return Probe(host, error=settings.without_secrets(text))
    finally:
        await stranger.close()


async def _is_open(stranger: "AsyncMongoClient[Doc]", database: str) -> bool:
    """Return whether somebody without a password may read what is to be ours."""
    try:
        # Not listDatabases: it is answered, with an empty list, to whoever comes from the server's
        # own machine to a member that knows no user yet, as a new one while it copies the data.
        await stranger[database].command({"find": OWNER, "filter": {"_id": OWNER}})
    except (OperationFailure, NotPrimaryError):  # the latter from one without a set
        return False
    return True


def _named(probe: Probe) -> str:
    return probe.error if probe.host in probe.error else f"{probe.host}: {probe.error}"


def _tls_hint(settings: MongoSettings) -> str:
    if settings.tls:
        return "--option tls-ca-file=FILE for an authority of your own"
    return "tls=true where the server takes nothing else"


def _check_privacy(settings: MongoSettings, hosts: list[str]) -> None:
    """Raise ConfigError where objects would pass a network unencrypted. Blocks."""
    if settings.tls:
        return
    for host in hosts:
        name = host.rpartition(":")[0].strip("[]")
        if not host.endswith(".sock") and not _is_here(name):
            raise ConfigError(
                f"MongoDB at {host}: another machine, and the URI asks for no TLS: objects would "
                "pass the network in the clear; let mongod serve TLS (--tlsMode requireTLS "
                "--tlsCertificateKeyFile FILE) and add tls=true to the URI, with --option "
                "tls-ca-file=FILE where the authority is your own"
            )


def _is_here(name: str) -> bool:
    """Return whether all addresses of ``name`` are this machine's own."""
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, _, _, address in found:
        if ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            continue
        with socket.socket(family, kind) as tried:
            try:
                tried.bind(address)  # possible for one's own addresses only
            except OSError:
                return False
    return True
