"""Fixtures of real parts. README.md in this folder says what each gives."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parts import inventory, places
from parts.docker_engine import Engine, SharedEngine
from parts.mongo_set import MongoSet

# Read before the tests' own environment hides it: CI takes no part as missing.
REQUIRED = os.environ.get("ALPYNE_REQUIRE_PARTS") == "1"
# Which part a fixture needs; tests that use it are marked by the part's name.
NEEDS = {
    "engine": "docker",
    "own_engine": "docker",
    "mongo_set": "mongodb",
    "mongo_single": "mongodb",
    "make_mongo": "mongodb",
    "bubblewrap": "bubblewrap",
}
_problems: dict[str, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the parts that their fixtures need, before -m chooses among them."""
    for item in items:
        for part in {NEEDS[name] for name in getattr(item, "fixturenames", ()) if name in NEEDS}:
            item.add_marker(part)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose part is missing; fail it where all parts are required."""
    for part in inventory.PARTS:
        if item.get_closest_marker(part) is not None:
            need(part)


def need(part: str) -> None:
    """Skip the test, or fail it, if ``part`` (docker, mongodb, bubblewrap) is missing."""
    if part not in _problems:
        _problems[part] = inventory.problem(part)
    if _problems[part]:
        reason = f"{part}: {_problems[part]}; run ./dev parts"
        if REQUIRED:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Return the engine of `./dev parts`, which others use at the same time."""
    need("docker")
    known = places.found()["docker"]
    if known["folder"]:
        return Engine(Path(known["folder"]))
    return SharedEngine(Path(known["host"].removeprefix("unix://")), inventory.ENGINE)


@pytest.fixture(scope="session")
def _own_engine() -> Iterator[Engine]:
    need("docker")
    if not places.found()["docker"]["folder"]:
        reason = "docker: only root may start an engine of its own; run ./dev parts as root"
        (pytest.fail if REQUIRED else pytest.skip)(reason)
    # On the disk of the checkout: folders for temporary files may lie in memory.
    made = Engine(places.PARTS / f"engine-{secrets.token_hex(4)}")
    try:
        made.start().make_images()
        yield made
    finally:
        made.remove()


@pytest.fixture
def own_engine(_own_engine: Engine) -> Iterator[Engine]:
    """Return an engine that a test may stop, kill and start; it runs, with nothing on it."""
    _own_engine.start().clear()
    yield _own_engine
    _own_engine.start().clear()


@pytest.fixture(scope="session")
def make_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., MongoSet]]:
    """Return a function that makes and starts a MongoSet, with the arguments of its class."""
    need("mongodb")
    made: list[MongoSet] = []

    def make(members: int = 3, *, tls: bool = False, authentication: bool = True) -> MongoSet:
        folder = tmp_path_factory.mktemp("mongo") / "set"
        made.append(MongoSet(folder, members, tls=tls, authentication=authentication))
        return made[-1].start()

    yield make
    for one in made:
        one.remove()


@pytest.fixture(scope="session")
def _mongo_set(make_mongo: Callable[..., MongoSet]) -> MongoSet:
    return make_mongo(3)


@pytest.fixture
def mongo_set(_mongo_set: MongoSet) -> MongoSet:
    """Return a replica set of three, whole again, whose members a test may kill and suspend."""
    _mongo_set.make_whole()
    return _mongo_set


@pytest.fixture(scope="session")
def _mongo_single(make_mongo: Callable[..., MongoSet]) -> MongoSet:
    return make_mongo(1)


@pytest.fixture
def mongo_single(_mongo_single: MongoSet) -> MongoSet:
    """Return a replica set of one member, which a test may kill and start again."""
    _mongo_single.make_whole()
    return _mongo_single


@pytest.fixture(scope="session")
def bubblewrap() -> str:
    """Return the path of a bwrap that works."""
    need("bubblewrap")
    return places.found()["bubblewrap"]["command"]
