"""The parts of a checkout: how each is got, how it is started, and what is said of it."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from parts import bubblewrap, image, mongod, packages, places
from parts.docker_api import DockerApi
from parts.docker_engine import Engine, SharedEngine
from parts.mongo_set import MongoSet
from parts.places import PartFailed

ENGINE = places.PARTS / "docker"
MONGO = places.PARTS / "mongo"
MACHINES_ENGINE = Path("/var/run/docker.sock")
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
# Libraries of mongod that are no part of a small Debian, by the packages that hold them.
LIBRARIES = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}


class Line(NamedTuple):
    """What is said of a part. ``todo``: what to do where it does not work."""

    part: str
    state: str
    where: str
    works: bool = True
    todo: str = ""


Got = tuple[list[Line], dict[str, str]]


def docker() -> Got:
    """Return an engine that runs, with the images."""
    lines: list[Line] = []
    try:
        engine = _engine()
        lines.append(_about(engine))
        made = engine.make_images()
    except PartFailed as failed:
        return [*lines, Line("docker", "MISSING", "", False, str(failed))], {}
    for name, what in (
        (engine.image, f"image of Python {sys.version.split()[0]}"),
        (engine.other_image, "another one of it"),
        (engine.bare_image, "image without Python"),
    ):
        lines.append(Line(what, "made" if name in made else "there", name))
    found = {
        "host": engine.host,
        "image": engine.image,
        "other_image": engine.other_image,
        "bare_image": engine.bare_image,
        "folder": "" if isinstance(engine, SharedEngine) else str(engine.folder),
    }
    return lines, found


def _engine() -> Engine:
    if sys.platform != "linux":
        raise PartFailed(f"an engine of the checkout's own needs Linux, this is {sys.platform}")
    if os.geteuid() != 0:
        # Only root may start one. Who may use the machine's engine is root there anyway.
        if DockerApi(MACHINES_ENGINE).answers():
            return SharedEngine(MACHINES_ENGINE, ENGINE).start()
        command = "sudo usermod -aG docker $USER"
        if shutil.which("dockerd", path=SYSTEM_PATH) is None:
            command = f"sudo apt-get install --no-install-recommends docker.io && {command}"
        raise PartFailed(
            "only root starts an engine of the checkout's own, and the machine's engine at "
            f"{MACHINES_ENGINE} does not answer you; type: {command}\nand log in again, "
            "or run ./dev parts as root"
        )
    missing = [
        package
        for command, package in (("dockerd", "docker.io"), ("iptables", "iptables"))
        if shutil.which(command, path=SYSTEM_PATH) is None
    ]
    if missing:
        packages.install(missing)
    return Engine(ENGINE).start()


def _about(engine: Engine) -> Line:
    version = (engine.api.get("/version") or {}).get("Version", "?")
    if isinstance(engine, SharedEngine):
        return Line("docker", f"{version} runs, the machine's", engine.host)
    process = engine.process
    state = f"{version} runs, {engine.driver}, pid {process.pid if process else '?'}"
    if engine.driver == "vfs":
        state += " (slow: this file system is none for overlay2)"
    return Line("docker", state, engine.host)


def mongodb() -> Got:
    """Return a mongod and a replica set of three that runs."""
    lines: list[Line] = []
    try:
        program = mongod.fetch(places.PARTS / "mongodb")
        if missing := mongod.missing_libraries(program):
            packages.install(sorted({LIBRARIES.get(name, name) for name in missing}))
        lines.append(Line("mongod", _mongod_state(program), str(program)))
        mongo = _started(program)
    except PartFailed as failed:
        return [*lines, Line("mongodb", "MISSING", "", False, str(failed))], {}
    ports = ", ".join(map(str, mongo.ports))
    lines.append(Line("mongodb", f"set of three runs on ports {ports}", str(mongo.uri_file)))
    return lines, {"mongod": str(program), "uri_file": str(mongo.uri_file), "folder": str(MONGO)}


def _mongod_state(program: Path) -> str:
    return f"{mongod.VERSION} there" if mongod.VERSION in program.name else "yours"


def _started(program: Path) -> MongoSet:
    try:
        return MongoSet(MONGO, mongod=program).start()
    except PartFailed as failed:
        # Its ports may be another's since the machine was started anew. It holds nothing of value.
        print(f"parts: mongodb is made anew: {failed}", file=sys.stderr)
        MongoSet(MONGO).remove()
        return MongoSet(MONGO, mongod=program).start()


def namespaces() -> Got:
    """Return a bubblewrap that works."""
    try:
        if not bubblewrap.command():
            packages.install(["bubblewrap"])
        version = bubblewrap.try_out()
    except PartFailed as failed:
        return [Line("bubblewrap", "MISSING", "", False, str(failed))], {}
    where = bubblewrap.command()
    return [Line("bubblewrap", f"{version} works", where)], {"command": where}


PARTS: dict[str, Callable[[], Got]] = {
    "docker": docker,
    "mongodb": mongodb,
    "bubblewrap": namespaces,
}


def stop(names: list[str]) -> list[Line]:
    """End what `./dev parts` has started; what is installed stays."""
    lines = []
    if "docker" in names and ENGINE.exists():
        engine = Engine(ENGINE)
        ran = engine.process is not None
        if ran and engine.api.answers():
            engine.clear()
        engine.stop()
        lines.append(Line("docker", "ended" if ran else "did not run", engine.host))
    if "mongodb" in names and MONGO.exists():
        mongo = MongoSet(MONGO)
        ran = any(map(mongo.process, range(len(mongo.ports))))
        mongo.stop()
        lines.append(Line("mongodb", "ended" if ran else "did not run", str(MONGO)))
    return lines or [Line("parts", "none was started", "")]


def problem(name: str) -> str:
    """Return why a part cannot be used now, "" if it can."""
    known: dict[str, Any] = places.found().get(name, {})
    if not known:
        return "it is not there"
    if name == "docker":
        api = DockerApi(Path(known["host"].removeprefix("unix://")))
        if not api.answers():
            return f"no engine answers at {known['host']}"
        if api.get(f"/images/{image.PYTHON_IMAGE}/json") is None:
            return f"the engine has no image {image.PYTHON_IMAGE}"
    elif name == "mongodb" and not Path(known["mongod"]).is_file():
        return f"{known['mongod']} is gone"
    elif name == "bubblewrap":
        try:
            bubblewrap.try_out()
        except PartFailed as failed:
            return str(failed)
    return ""
