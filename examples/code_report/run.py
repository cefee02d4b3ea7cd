"""The course of the main job, from an empty folder to a verified report."""

import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import analysis
import ending
import workload
from alpyne_grid.manager import JobState, Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.manager.trees import Transfer
from alpyne_grid.tools.cluster import Daemon, LocalCluster
from corpus import Corpus
from faults import FaultMissed, Killing, OpenRead
from places import Places
from screen import Screen, counted, megabytes

from alpyne_proto.address import Address, key_to_text

COPIES = 2
SLOTS = "2"  # of each compute node; one node is left in the end
CHUNK = 16  # files of one job: few jobs, so that little goes from the manager to the nodes
ARCHIVE = "corpus.tar"
WATCHED_JOBS = 8  # the newest of each node
ARCHIVE_MIN = 16 << 20  # more than a stream's credit and two sockets hold


def run(corpus: Corpus, folder: Path, places: Places) -> int:
    """Run the main job with its state below ``folder``; 0 only where everything was verified."""
    screen = Screen()
    began = time.monotonic()
    size = megabytes(corpus.size_bytes)
    screen.say(f"input: {len(corpus.files)} Python files, {size}, from {corpus.folder}")
    screen.say(f"nodes: {places}")
    with LocalCluster(folder / "nodes", create_account) as cluster:
        with screen.step("start 2 compute and 3 data nodes"):
            for _ in range(2):
                cluster.add("compute", "--slots", SLOTS, *places.compute())
            for _ in range(3):
                cluster.add("data", *places.data())
            cluster.start_all(cluster.daemons)
        with Manager.connect(cluster.addresses, home=cluster.home, progress=False) as grid:
            job = MainJob(grid, corpus, cluster, screen)
            job.push(folder)
            report = job.analyse()
            statistics = grid.statistics()
    with screen.step("compare with a serial run"):
        same = json.loads(json.dumps(analysis.canonical(report))) == _serial(corpus)
    names = {_key(daemon): daemon.name for daemon in cluster.daemons}
    outcome = ending.Outcome(same, statistics, names, corpus.size_bytes, time.monotonic() - began)
    ending.show(screen, report, outcome)
    return ending.verdict(screen, outcome)


class MainJob:
    """The job itself, and the faults that are made while it runs."""

    def __init__(
        self, grid: Manager, corpus: Corpus, cluster: LocalCluster, screen: Screen
    ) -> None:
        self._grid = grid
        self._corpus = corpus
        self._screen = screen
        self._daemons = {_key(daemon): daemon for daemon in cluster.daemons}
        self._sources = grid.container("sources", copies=COPIES)
        self._archives = grid.container("archives", copies=COPIES)
        self._reports = grid.container("reports", copies=COPIES)

    def push(self, folder: Path) -> None:
        """Push all files, and one archive of them that is made in ``folder``."""
        files = self._corpus.files
        with self._screen.step("push with two copies", len(files)) as done:
            staged = _staged(self._corpus, folder / "input")
            _archive(staged, files, folder / ARCHIVE)
            pushed = 0

            def show(transfer: Transfer) -> None:
                nonlocal pushed
                done(transfer.files - pushed)
                pushed = transfer.files

            self._sources.push_tree(staged, on_progress=show)
            self._archives.push(folder / ARCHIVE, ARCHIVE)

    def analyse(self) -> analysis.Report:
        """Filter, map and reduce on the nodes, while one of each kind is killed."""
        total = len(self._corpus.files)
        archive = self._archives.stat(ARCHIVE)
        read = OpenRead(self._grid, self._archives, archive)
        with self._screen.step("filter on the compute nodes", total) as done:
            everything = counted(self._sources.glob("**"), done)
            wanted = list(self._grid.filter(workload.is_wanted, everything))
        with self._screen.step("analyse on the compute nodes", len(wanted)) as done:
            killing = self._kill(read)
            parts = self._grid.map(workload.report_of, wanted, into=self._reports, chunk=CHUNK)
            reports = list(counted(parts, done))
            killing.join()
        with self._screen.step("reduce in a tree on the nodes", len(reports)) as done:
            last = self._grid.reduce(workload.merged, counted(reports, done), into=self._reports)
            report: analysis.Report = self._reports.value(last)
        with self._screen.step("read on after the data node's end"):
            if read.finish() != archive.sha256:
                raise FaultMissed(f"{ARCHIVE}: the bytes read are not those that were pushed")
        return report

    def _kill(self, read: OpenRead) -> Killing:
        """Kill the data node that serves ``read``, and a compute node once it runs a job."""
        victim = next(node for node in self._grid.statistics().nodes if node.kind == "compute")

        def runs_a_job() -> bool:
            return any(
                job.state is JobState.RUNNING and job.node == victim.name
                for job in self._grid.jobs(limit=WATCHED_JOBS)
            )

        self._daemons[read.key].kill()
        return Killing(self._daemons[victim.key], runs_a_job)


def _key(daemon: Daemon) -> str:
    return key_to_text(Address.parse(daemon.address).key)


def _staged(corpus: Corpus, folder: Path) -> Path:
    """Copy the corpus to ``folder`` and return it: a tree that holds nothing else."""
    for name in corpus.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(corpus.folder / name, target)
    return folder


def _archive(folder: Path, files: Sequence[str], path: Path) -> None:
    """Write a tar of the files, repeated until it has ARCHIVE_MIN bytes."""
    with tarfile.open(path, "w") as archive:
        while path.stat().st_size < ARCHIVE_MIN:
            for name in files:
                archive.add(folder / name, name)


def _serial(corpus: Corpus) -> Any:
    """Return the canonical report of a run without Alpyne, in a process of its own."""
    script = Path(__file__).with_name("serial.py")
    done = subprocess.run(
        [sys.executable, "-E", "-s", str(script), str(corpus.folder)],
        input="".join(f"{name}\n" for name in corpus.files).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)
