"""What one job sees of another, and of the daemon."""

import os
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.tools.contracts.compute.bench import BOB, BackendBench
from alpyne_grid.tools.contracts.compute.processes import marked
from alpyne_grid.tools.contracts.compute.recorder import DONE


class IsolationContract(BackendBench):
    """What one job sees of another, and of the daemon."""

    async def test_accounts_never_share_a_worker(self, tmp_path: Path) -> None:
        def work() -> tuple[int, list[str]]:
            import os
            import sys

            seen: list[str] = sys.__dict__.setdefault("seen_by", [])
            seen.append("job")
            return os.getpid(), list(seen)

        async with self.bench(tmp_path) as bench:
            alice = await bench.value(work)
            bob = await bench.value(work, account=BOB)
            again = await bench.value(work)
            assert bob[1] == ["job"]
            assert again == (alice[0], ["job", "job"])

    async def test_job_finds_a_fresh_interpreter_when_another_changed_it(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            before = await bench.value(_state)
            assert await bench.value(_mess_up) == before["pid"]
            assert await bench.value(_state) == before
            run = await bench.call(print, "printed")
            assert run.written() == "printed\n"

    async def test_job_that_leaves_a_thread_gets_its_worker_replaced(self, tmp_path: Path) -> None:
        def work() -> str:
            import os
            import sys
            import threading
            import time

            sys.__dict__["had_a_thread"] = True
            threading.Thread(target=lambda: time.sleep(30), daemon=True).start()
            return os.environ["ALPYNE_JOB_MARK"]

        def is_replaced() -> bool:
            import sys

            return "had_a_thread" not in sys.__dict__

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert run.how == DONE
            assert marked(run.value()) == []
            assert run.end.ended == 0
            assert await bench.value(is_replaced)

    async def test_job_sees_no_secret_of_the_daemon(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def work() -> tuple[dict[str, str], list[str]]:
            import os

            links = []
            for name in os.listdir("/proc/self/fd"):
                try:
                    links.append(os.readlink(f"/proc/self/fd/{name}"))
                except OSError:
                    continue
            return dict(os.environ), links

        monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
        with (tmp_path / "secret").open("w") as secret:
            os.set_inheritable(secret.fileno(), True)
            async with self.bench(tmp_path) as bench:
                environment, links = await bench.value(work)
        assert "DATABASE_PASSWORD" not in environment
        assert not [link for link in links if "secret" in link]
        assert len([link for link in links if link.startswith("socket:")]) <= 1

    async def test_worker_loads_no_cryptography_no_compression_and_no_event_loop(
        self, tmp_path: Path
    ) -> None:
        def work() -> list[str]:
            import sys

            unwanted = {"cryptography", "zstandard", "asyncio", "ssl", "socket", "alpyne_grid"}
            return sorted(unwanted & set(sys.modules))

        async with self.bench(tmp_path) as bench:
            assert await bench.value(work) == []

    async def test_job_starts_in_an_empty_folder(self, tmp_path: Path) -> None:
        def work() -> list[str]:
            import os
            from pathlib import Path

            found = os.listdir()
            Path("deep/er").mkdir(parents=True)
            Path("deep/er/file").write_text("left")
            Path("link").symlink_to("/etc")
            return found

        async with self.bench(tmp_path) as bench:
            assert [await bench.value(work) for _ in range(3)] == [[]] * 3


def _state() -> dict[str, Any]:
    """Return what a job can change in its interpreter."""
    import gc
    import os
    import signal
    import sys

    mask = os.umask(0)
    os.umask(mask)
    return {
        "pid": os.getpid(),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "argv": list(sys.argv),
        "umask": mask,
        "handlers": [str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGALRM)],
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "recursion": sys.getrecursionlimit(),
        "streams": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
        "hooks": [repr(hook) for hook in sys.meta_path],
        "tracing": [repr(sys.gettrace()), repr(sys.getprofile())],
        "collecting": gc.isenabled(),
        "main": sorted(vars(sys.modules["__main__"])),
    }


def _mess_up() -> int:
    """Change all of it."""
    import gc
    import io
    import os
    import signal
    import sys

    os.environ.clear()
    os.environ["LEFT"] = "behind"
    os.chdir("/")
    os.umask(0o777)
    sys.path[:] = ["/nowhere"]
    sys.argv[:] = ["other"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 100)
    sys.setrecursionlimit(5000)
    os.close(1)
    os.open("/dev/null", os.O_WRONLY)
    sys.stdout.close()
    sys.stdout = io.StringIO()
    sys.stderr = None
    sys.meta_path.insert(0, type("Hook", (), {"find_spec": staticmethod(lambda *_: None)})())
    sys.settrace(lambda *_: None)
    gc.disable()
    vars(sys.modules["__main__"])["left"] = "behind"
    return os.getpid()
