"""Servers and options that are refused at the start: what is wrong, where, and what to do."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bson
import pytest
from alpyne_grid.nodes.data.backends.mongo import probing
from alpyne_grid.nodes.data.backends.mongo.probing import Probe, check_member
from alpyne_grid.nodes.data.backends.mongo.settings import read_settings
from alpyne_grid.nodes.errors import ConfigError
from mongo_bench import backend_of, command_line, database_of, lone_mongod
from parts.mongo_set import MongoSet
from pymongo import MongoClient

PASSWORD = "s3cret/p@ss"
ESCAPED = "s3cret%2Fp%40ss"


async def refusal(uri: str, folder: Path, **options: str) -> str:
    """Return what a start, and a check, are refused with; both say the same."""
    said = []
    for act in ("check", "start"):
        backend = backend_of(uri, folder, **options)
        try:
            with pytest.raises((ConfigError, OSError)) as caught:
                await getattr(backend, act)()
        finally:
            await backend.close()
        said.append(str(caught.value))
    for text in said:
        assert ESCAPED not in text
        assert PASSWORD not in text
        assert text[:60] == said[0][:60]
    return said[0]


# ---- the administrator's words ----


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find out at once that a server is not there."""
    monkeypatch.setattr(probing, "PROBE_S", 1.0)


def read(**options: str) -> Any:
    return read_settings({name.replace("_", "-"): (value,) for name, value in options.items()})


def test_settings_take_the_uri_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "uri"
    file.write_text(f"mongodb://ann:{ESCAPED}@one,two:27018/?replicaSet=rs0\n")
    settings = read(uri_file=str(file))
    assert (settings.user, settings.hosts) == ("ann", ("one:27017", "two:27018"))
    assert settings.database == "alpyne"
    assert ESCAPED not in repr(settings)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "got neither"),
        ({"uri": "mongodb://a:b@c", "uri_file": "x"}, "got both"),
        ({"uri_file": "/nowhere/uri"}, "No such file"),
        ({"uri": f"postgres://ann:{ESCAPED}@c"}, "expected mongodb://"),
        ({"uri": f"mongodb://ann:{PASSWORD}@c"}, "percent-encoded"),
        ({"uri": "mongodb://localhost"}, "names no user"),
        ({"uri": "mongodb://a:b@c", "database": "a/b"}, "got 'a/b'"),
        ({"uri": "mongodb://a:b@c", "database": "admin"}, "got 'admin'"),
        ({"uri": "mongodb://a:b@c", "tls_ca_file": "/nowhere"}, "/nowhere is no file"),
        ({"uri": "mongodb://a:b@c/?timeoutMS=soon"}, "timeoutMS"),
    ],
)
def test_settings_refuse_what_cannot_be_meant(options: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        read(**options)
    assert ESCAPED not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_settings_need_no_user_where_the_certificate_is_one() -> None:
    assert read(uri="mongodb://c/?authMechanism=MONGODB-X509&tls=true").tls


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://ann:{ESCAPED}@127.0.0.1:99999/",
        f"mongodb://ann:{ESCAPED}@127.0.0.1/?tls=true&tlsInsecure=true&tlsAllowInvalidCertificates=true",
        "mongodb://ann:50%zz@127.0.0.1/",
    ],
)
async def test_node_refuses_a_uri_that_pymongo_cannot_use_without_the_password(
    tmp_path: Path, uri: str
) -> None:
    assert "uri: " in await refusal(uri, tmp_path)


# ---- servers ----


@pytest.fixture(scope="module")
def open_server(make_mongo: Callable[..., MongoSet]) -> MongoSet:
    """A set that asks nobody for a password."""
    return make_mongo(1, authentication=False)


async def test_node_refuses_a_server_that_lets_anybody_in(
    open_server: MongoSet, tmp_path: Path
) -> None:
    with open_server.client() as client:  # the password is right; it is just not asked for
        client.admin.command("createUser", "ann", pwd="x", roles=["root"])
    said = await refusal(open_server.uri.replace("//", "//ann:x@"), tmp_path)
    assert "asks for no password" in said
    assert "--keyFile" in said
    assert f"127.0.0.1:{open_server.ports[0]}" in said


async def test_node_does_not_take_a_member_without_users_yet_for_one_that_lets_anybody_in(
    tmp_path: Path,
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 64)
    key.chmod(0o400)
    with lone_mongod(tmp_path / "db", "--replSet", "rs0", "--keyFile", str(key)) as host:
        with MongoClient[dict[str, Any]](f"mongodb://{host}/?directConnection=true") as client:
            members = [{"_id": 0, "host": host}]
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            while not client.admin.command("hello")["isWritablePrimary"]:
                await asyncio.sleep(0.05)
        said = await refusal(f"mongodb://ann:{ESCAPED}@{host}/", tmp_path / "state")
        assert "refused user 'ann'" in said


async def test_node_refuses_a_wrong_password(mongo_single: MongoSet, tmp_path: Path) -> None:
    uri = mongo_single.uri_of("administrator", PASSWORD)
    said = await refusal(uri, tmp_path)
    assert f"127.0.0.1:{mongo_single.ports[0]}: refused user 'administrator'" in said
    assert "authSource" in said


async def test_node_refuses_a_user_without_rights_and_says_how_to_grant_them(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    uri = mongo_single.add_user("poor", "x", [])
    said = await refusal(uri, tmp_path)
    grant = f"grantRolesToUser('poor', [{{role: 'readWrite', db: '{database_of(tmp_path)}'}}])"
    assert grant in said


async def test_node_starts_for_a_user_who_may_use_its_database_only(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    rights = [{"role": "readWrite", "db": database_of(tmp_path)}]
    backend = backend_of(mongo_single.add_user("enough", "x", rights), tmp_path)
    try:
        await backend.start()
        assert "this node's, 0 commits" in await backend.check()
    finally:
        await backend.close()


async def test_node_says_which_server_is_not_reachable(tmp_path: Path) -> None:
    said = await refusal(f"mongodb://ann:{ESCAPED}@127.0.0.1:1/", tmp_path)
    assert "MongoDB at 127.0.0.1:1: not reachable" in said
    assert "Connect call failed" in said


async def test_node_refuses_a_single_server_and_says_how_to_make_it_a_set(tmp_path: Path) -> None:
    with lone_mongod(tmp_path / "db") as host:
        said = await refusal(f"mongodb://ann:{ESCAPED}@{host}/", tmp_path / "state")
        assert "--replSet rs0 --keyFile FILE" in said
        assert f'rs.initiate({{_id: "rs0", members: [{{_id: 0, host: "{host}"}}]}})' in said


async def test_set_that_was_not_initiated_becomes_one_by_the_command_that_is_said(
    tmp_path: Path,
) -> None:
    with lone_mongod(tmp_path / "db", "--replSet", "rs0") as host:
        said = await refusal(f"mongodb://ann:{ESCAPED}@{host}/", tmp_path / "state")
        _, _, command = said.partition("--eval 'rs.initiate(")
        given = command.partition(")'")[0].replace("_id", '"_id"').replace("members", '"members"')
        client: Any = MongoClient(f"mongodb://{host}/?directConnection=true")
        client.admin.command("replSetInitiate", eval(given.replace("host:", '"host":')))
        while not client.admin.command("hello")["isWritablePrimary"]:
            await asyncio.sleep(0.05)
        client.close()
        said = await refusal(f"mongodb://ann:{ESCAPED}@{host}/", tmp_path / "state")
        assert "asks for no password" in said  # the next thing that is wrong with it


@asynccontextmanager
async def server_that_says(hello: dict[str, Any]) -> AsyncIterator[str]:
    """Serve MongoDB's wire protocol: every command is answered with ``hello``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length, number, _, operation = struct.unpack("<4i", await reader.readexactly(16))
                await reader.readexactly(length - 16)
                body = bson.encode(hello)
                if operation == 2004:  # OP_QUERY, answered by OP_REPLY
                    answer = struct.pack("<iqii", 8, 0, 0, 1) + body
                    head = struct.pack("<4i", 16 + len(answer), 0, number, 1)
                else:  # OP_MSG
                    answer = struct.pack("<iB", 0, 0) + body
                    head = struct.pack("<4i", 16 + len(answer), 0, number, 2013)
                writer.write(head + answer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("wire", [6, 8], ids=["3.6, too old for pymongo", "4.2"])
async def test_node_refuses_a_server_that_is_too_old(tmp_path: Path, wire: int) -> None:
    hello = {"ok": 1.0, "isWritablePrimary": True, "minWireVersion": 0, "maxWireVersion": wire}
    async with server_that_says(hello) as host:
        said = await refusal(f"mongodb://ann:{ESCAPED}@{host}/", tmp_path)
    assert host in said
    assert "MongoDB 4.4 or newer" in said


def test_node_takes_a_router_of_a_sharded_cluster() -> None:
    settings = read(uri="mongodb://ann:x@c")
    check_member(settings, Probe("c:27017", {"msg": "isdbgrid", "maxWireVersion": 17}))


# ---- encryption ----


@pytest.fixture(scope="module")
def tls_set(make_mongo: Callable[..., MongoSet]) -> MongoSet:
    return make_mongo(1, tls=True)


def without_authority(mongo: MongoSet) -> str:
    return mongo.uri.partition("&tlsCAFile=")[0]


async def test_node_works_over_tls_with_an_authority_of_ones_own(
    tls_set: MongoSet, tmp_path: Path
) -> None:
    for uri, options in (
        (tls_set.uri, {}),
        (without_authority(tls_set), {"tls_ca_file": str(tls_set.ca_file)}),
        (tls_set.uri.partition("&tls=")[0], {"tls_ca_file": str(tls_set.ca_file)}),
    ):
        backend = backend_of(uri, tmp_path, **options)
        try:
            await backend.start()
            assert "TLS, database" in await backend.check()
        finally:
            await backend.close()


async def test_node_refuses_a_server_whose_authority_it_does_not_know(
    tls_set: MongoSet, tmp_path: Path
) -> None:
    said = await refusal(without_authority(tls_set), tmp_path)
    assert "certificate verify failed" in said
    assert "tls-ca-file" in said


async def test_node_says_it_when_a_server_wants_tls_and_the_uri_does_not(
    tls_set: MongoSet, tmp_path: Path
) -> None:
    said = await refusal(tls_set.uri.partition("&tls=")[0], tmp_path)
    assert "not reachable" in said
    assert "tls=true" in said


async def test_node_refuses_another_machine_without_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mongo_single: MongoSet
) -> None:
    where = "alpyne_grid.nodes.data.backends.mongo.probing._is_here"
    monkeypatch.setattr(where, lambda name: False)
    assert "objects would pass the network in the clear" in await refusal(
        mongo_single.uri, tmp_path
    )


# ---- the command line ----


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[str]:
    from alpyne_grid.manager.identity import create_account

    create_account(tmp_path / "home")
    yield str(tmp_path / "home" / "account.pub")


def test_check_config_says_what_it_found_and_what_is_wrong(
    mongo_single: MongoSet, tmp_path: Path, owner: str
) -> None:
    given = ["--check-config", "--owner", owner, "--state", str(tmp_path / "state")]
    given += ["--backend", "mongodb", "--database", database_of(tmp_path)]
    well = command_line(*given, "--uri-file", str(mongo_single.uri_file))
    assert well.returncode == 0, well.stderr
    assert "replica set alpyne of 1 member, no TLS (this machine only)" in well.stdout
    assert "not used yet" in well.stdout
    assert not (tmp_path / "state").exists()
    wrong = command_line(*given, "--uri", mongo_single.uri_of("administrator", PASSWORD))
    assert wrong.returncode == 2
    assert "refused user 'administrator'" in wrong.stderr
    assert ESCAPED not in wrong.stderr
    away = command_line(*given, "--uri", f"mongodb://ann:{ESCAPED}@127.0.0.1:1/")
    assert away.returncode == 1
    assert "not reachable" in away.stderr
