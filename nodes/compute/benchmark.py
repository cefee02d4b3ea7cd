"""A node's score: how much standard work one core does per second, and all cores together.

The work is what jobs in Python are made of: integer arithmetic, attribute and container access,
text, floats, hashing. A score of 100 is about one core of a 2020 laptop. It is measured once per
machine, in processes of its own with low priority, while the node is idle; until then the score is
a quick estimate. Run as a script this file measures one core and prints the score.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

VERSION = 1  # of the work; a cached score of another version is measured again
UNITS_PER_POINT = 80.0  # units per second that make one point
ROUNDS, ROUND_S = 3, 0.3  # the best round counts: what disturbs a machine makes it slower only
IDLE_S = 10.0  # a node must have been idle so long before it measures
IDLE_LOAD = 0.5  # per core; above it others use the machine
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Score:
    """One core's score, all cores' together, and whether they are only estimated."""

    one: float
    all: float
    estimated: bool


def work() -> int:
    """Do one unit of the standard work and return a checksum."""
    total = 0
    table: dict[str, int] = {}
    for i in range(200):
        total = (total * 31 + i * i) % 1_000_003
        key = f"k{total % 97}"
        table[key] = table.get(key, 0) + len(key)
    numbers = [float((i * 7919) % 1009) for i in range(200)]
    numbers.sort()
    mean = sum(numbers) / len(numbers)
    spread = sum((x - mean) ** 2 for x in numbers)
    digest = hashlib.sha256(b"%d" % total * 64).digest()
    return total + int(spread) % 1000 + digest[0] + len(table)


def measure(duration_s: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the score of this thread over ``duration_s`` seconds."""
    begin = clock()
    units = 0
    while (elapsed := clock() - begin) < duration_s:
        work()
        units += 1
    return units / elapsed / UNITS_PER_POINT


def estimate() -> Score:
    """Return a quick guess, which costs about ten milliseconds."""
    one = max(measure(0.002) for _ in range(5))
    return Score(one, one * (os.cpu_count() or 1), True)


def fingerprint() -> str:
    """Return what a cached score belongs to: this processor, its cores, this Python."""
    model = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("model name", "CPU part", "cpu model")):
                model = line.partition(":")[2].strip()
                break
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{VERSION}|{os.uname().machine}|{model}|{os.cpu_count()}|{python}"


def cached(path: Path) -> Score | None:
    """Return the score in ``path`` where it was measured on this machine, else None."""
    try:
        entry = json.loads(path.read_text())
        if entry["fingerprint"] != fingerprint():
            return None
        return Score(float(entry["one"]), float(entry["all"]), False)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing, damaged or of another version: it is measured again


def save(path: Path, score: Score) -> None:
    """Write ``score`` to ``path``; a crash in between only costs another measurement."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"fingerprint": fingerprint(), **asdict(score)}))
    os.replace(part, path)


async def run() -> Score:
    """Measure in processes of its own: one alone, then one per core at once.

    Cancelling it ends the processes. Raises OSError where they cannot be started.
    """
    one = (await _measure_together(1))[0]
    return Score(one, sum(await _measure_together(os.cpu_count() or 1)), False)


async def _measure_together(count: int) -> list[float]:
    processes: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(count):
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-I",
                    "-S",
                    __file__,
                    stdout=asyncio.subprocess.PIPE,
                    stdin=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            )
        async with asyncio.timeout(TIMEOUT_S):
            outputs = await asyncio.gather(*(process.communicate() for process in processes))
        return [float(output) for output, _ in outputs]
    except (TimeoutError, ValueError) as error:
        raise OSError(f"benchmark: did not end as it should ({type(error).__name__})") from None
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.nice(10)
    print(max(measure(ROUND_S) for _ in range(ROUNDS)))
