"""A job of another account that runs beside a hostile one, and must not notice it."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

from alpyne_grid.tools.contracts.compute import BOB, DONE, Bench, Run

from alpyne_proto.jobobject import JobObject

OVER = b"over"
START_S = 60.0  # within which it runs; a machine may be busy


@dataclass(slots=True)
class Neighbour:
    """The job, where its files are, and by what word they can be known."""

    run: Run
    token: str
    files: list[str]


@asynccontextmanager
async def neighbour(bench: Bench) -> AsyncIterator[Neighbour]:
    """Run the neighbour beside what happens within; it must return its value unhurt."""
    objects = bench.room.objects
    path, token = f"over-{secrets.token_hex(4)}", f"own{secrets.token_hex(12)}"
    item = JobObject(
        b"c" * 16, path, 1, b"w" * 16, len(OVER), sha256(OVER).digest(), tuple(objects.serving)
    )
    run = bench.start_call(live, item, token, account=BOB)
    first = await bench.line(run, START_S)
    yield Neighbour(run, token, first.split("\t"))
    objects.contents[path] = OVER
    await bench.ended(run, START_S)
    assert run.how == DONE, run.end.text
    rounds, total = run.value()
    assert rounds > 0
    assert total == sum(range(rounds))


def live(over: JobObject, token: str) -> tuple[int, int]:
    """Work in all ways that a job works, until the object is there; any failure fails the job."""
    import os
    import threading
    import time

    def keep(folder: str) -> str:
        path = os.path.join(folder, f"of-{token}")
        try:
            with open(path, "w") as file:
                file.write(token)
        except OSError:  # not every job has this folder
            return ""
        return os.path.realpath(path)

    places = (".", "/tmp", "/dev/shm", "/var/tmp")  # some may be the same folder
    files = list(dict.fromkeys(keep(folder) for folder in places))
    print("\t".join(filter(None, files)))
    rounds, added = 0, [0]
    while True:
        memory = bytearray(4 << 20)
        thread = threading.Thread(target=added.append, args=(rounds,))
        thread.start()
        thread.join()
        child = os.fork()
        if child == 0:
            os._exit(memory[rounds % len(memory)])
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("its child did not end well")
        for path in filter(None, files):
            with open(path) as file:
                if file.read() != token:
                    raise RuntimeError(f"{path} has changed")
        rounds += 1
        try:
            over.read()
        except FileNotFoundError:
            time.sleep(0.01)
            continue
        for path in filter(None, files):
            os.unlink(path)
        return rounds, sum(added)
