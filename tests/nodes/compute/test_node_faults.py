"""What a compute node does when it is killed, and when its disk is full."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import JobRow, JobState, ListJobs, Verdict
from alpyne_proto.ssh_keys import write_public_line

NodeOf = Callable[..., AbstractAsyncContextManager[Any]]

INTERRUPTED = """
    import os, subprocess, sys, time
    def main():
        with open({log!r}, "a") as file:
            file.write("run\\n")
        if os.path.exists({flag!r}):
            return "second attempt"
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        time.sleep(600)
"""


@contextmanager
def daemon(folder: Path, manager: Any) -> Iterator[SimpleNamespace]:
    """A node as a process, with ``address`` and ``process``."""
    key = folder / "owner.pub"
    key.write_text(write_public_line(manager.account.public) + "\n")
    options = ["--state", str(folder / "state"), "--owner", str(key), "--slots", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "alpyne_grid.nodes.daemon", "compute", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.fullmatch(r"alpyne compute node ready (\S+)\n", line)
            assert address, line
            yield SimpleNamespace(address=address[1], process=process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)


def sleepers(state: Path) -> list[psutil.Process]:
    """The processes that jobs of this node have left."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", "600"] and process.pid != os.getpid():
                parents = process.environ().get("ALPYNE_JOB_MARK", "")
                if (state / "backend" / "process" / "mark").read_text() in parents:
                    found.append(process)
    return found


@pytest.mark.crash
def test_killed_node_ends_what_ran_and_runs_it_again_under_a_new_attempt(
    tmp_path: Path, manager: Any, another: Callable[..., Any]
) -> None:
    log, flag = tmp_path / "log", tmp_path / "flag"
    text = INTERRUPTED.format(log=str(log), flag=str(flag))

    async def until_killed(node: SimpleNamespace) -> list[Any]:
        await manager.dial(node)
        done = await manager.submit("def main(): return 'done'")
        await manager.until(done)
        running = await manager.submit(text)
        waiting = await manager.submit("def main(): return 'waited'")
        await manager.until(running, JobState.RUNNING)
        while not sleepers(tmp_path / "state"):
            await asyncio.sleep(0.02)
        node.process.kill()
        return [done, running, waiting]

    async def afterwards(node: SimpleNamespace, jobs: list[Any]) -> None:
        again = await another(manager.account).dial(node)
        values = [await again.value(job) for job in jobs]
        assert values == ["done", "second attempt", "waited"]
        attempts = [again.events[job.job_id][-1].attempt for job in jobs]
        assert attempts[0] == 1
        assert attempts[1] == 2
        await again.connection.close()

    with daemon(tmp_path, manager) as node:
        jobs = asyncio.run(until_killed(node))
    flag.touch()
    with daemon(tmp_path, manager) as node:
        assert sleepers(tmp_path / "state") == []  # before it serves
        asyncio.run(afterwards(node, jobs))
    assert log.read_text() == "run\n" * 2


@pytest.mark.crash
def test_killed_node_has_every_job_that_it_has_acknowledged(
    tmp_path: Path, manager: Any, another: Callable[..., Any], program: Callable[[str], bytes]
) -> None:
    text = program("import time\ndef main(): time.sleep(600)")

    async def until_killed(node: SimpleNamespace) -> set[bytes]:
        await manager.dial(node, subscribe=False)
        accepted: set[bytes] = set()

        async def submit() -> None:
            with contextlib.suppress(Exception):
                while True:
                    jobs = [(manager.spec(), text) for _ in range(16)]
                    answers = await manager.send(*jobs)
                    accepted.update(a.job_id for a in answers if a.verdict is Verdict.ACCEPTED)

        submitting = [asyncio.ensure_future(submit()) for _ in range(4)]
        while len(accepted) < 500:
            await asyncio.sleep(0.001)
        node.process.kill()
        await asyncio.gather(*submitting)
        return accepted

    async def afterwards(node: SimpleNamespace) -> set[bytes]:
        again = await another(manager.account).dial(node, subscribe=False)
        rows = await again.rows(ListJobs(), kind=JobRow)
        await again.connection.close()
        return {row.job_id for row in rows}

    with daemon(tmp_path, manager) as node:
        accepted = asyncio.run(until_killed(node))
    with daemon(tmp_path, manager) as node:
        assert accepted <= asyncio.run(afterwards(node))


def test_node_refuses_work_while_its_disk_is_full_and_takes_it_again_with_room(
    node_of: NodeOf, manager: Any, program: Callable[[str], bytes]
) -> None:
    text = program("def main(): return 1")

    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            first = await manager.submit("def main(): return 'kept'")
            await manager.until(first)
            writer = node._host.store._writer
            await node._host.store.commit(())
            (pages,) = writer.execute("PRAGMA page_count").fetchone()
            writer.execute(f"PRAGMA max_page_count = {pages + 2}")
            job = manager.spec()
            (answer,) = await manager.send((job, text + bytes(100_000)))
            assert (answer.verdict, answer.code) == (Verdict.REFUSED, ErrorCode.STORE_FAILED)
            assert answer.retryable
            assert answer.retry_after_ms > 0
            assert [row.job_id for row in await manager.rows(ListJobs(), kind=JobRow)] == [
                first.job_id
            ]
            writer.execute("PRAGMA max_page_count = 100000")
            (answer,) = await manager.send((job, text))
            assert answer.verdict is Verdict.ACCEPTED
            assert await manager.value(job) == 1

    asyncio.run(main())
