"""The course of the main job, from an empty folder to a verified report."""

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import cloudpickle
from alpyne_grid.manager import Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import Daemon, LocalCluster
from alpyne_grid.tools.mainjob import analysis, workload
from alpyne_grid.tools.mainjob.corpus import Corpus
from alpyne_grid.tools.mainjob.faults import Killing
from alpyne_grid.tools.mainjob.screen import Screen, counted, megabytes

BYTES_SHARE_MAX = 0.05  # of the input, from the manager to compute nodes
ARCHIVE = "corpus.tar"
READ_FIRST = 1 << 20


def run(corpus: Corpus, folder: Path) -> int:
    """Run the main job with its state below ``folder``; 0 only where everything was verified."""
    screen = Screen()
    began = time.monotonic()
    screen.say(
        f"input: {len(corpus.files)} files, {megabytes(corpus.size_bytes)}, from {corpus.folder}"
    )
    serial = _start_serial(corpus)
    with LocalCluster(folder, create_account) as cluster:
        with screen.step("start 2 compute nodes and 3 data nodes"):
            compute = [cluster.add("compute", "--slots", "1") for _ in range(2)]
            data = [cluster.add("data") for _ in range(3)]
            cluster.start_all([*compute, *data])
        with Manager.connect(cluster.addresses, home=cluster.home) as grid:
            report = _work(grid, corpus, compute, data, screen)
            statistics = grid.statistics()
    with screen.step("compare with the serial run"):
        expected = _finish_serial(serial)
        same = json.loads(json.dumps(analysis.canonical(report))) == expected
    _show_report(screen, report)
    _show_work(screen, statistics, corpus, {d.address: d.name for d in cluster.daemons})
    return _verdict(screen, same, statistics, corpus, time.monotonic() - began)
