"""Work goes to the data: two sets of a million numbers, a compute node beside each.

    python examples/parity.py

Needs data nodes under two host labels, with a compute node under each. Every set lies on one data
node. Whether each number is odd (1) or even (0) is computed beside its set, and the answer is kept
there, so that no byte of either crosses from one host label to the other. The element-wise sum
needs both sets; it runs beside the larger one.
"""

import array
import operator
import random

from alpyne_grid.manager import Container, JobObject, Manager, Node

COUNT = 1_000_000
LARGE, SMALL = "q", "i"  # array types of 8 and of 4 bytes


def parities(numbers: JobObject) -> bytes:
    """Return a byte of 0 or 1 for each number; runs on a node."""
    typecode = LARGE if numbers.size == COUNT * 8 else SMALL
    return bytes(value & 1 for value in array.array(typecode, numbers.read()))


def sums(left: JobObject, right: JobObject) -> "array.array[int]":
    """Return the element-wise sum of both sets; runs on a node."""
    pairs = zip(array.array(LARGE, left.read()), array.array(SMALL, right.read()), strict=True)
    return array.array(LARGE, (a + b for a, b in pairs))


def crossed(nodes: list[Node]) -> int:
    """Return the bytes of objects that went between a data node and jobs under another label."""
    labels = {node.label for node in nodes if node.kind == "compute"}
    return sum(
        traffic.sent_bytes + traffic.received_bytes
        for node in nodes
        if node.kind == "data" and node.status is not None
        for traffic in node.status.traffic
        if traffic.label in labels - {node.label}
    )


def make_set(grid: Manager, node: Node, typecode: str) -> tuple[Container, "array.array[int]"]:
    """Push a set to one data node; return its container and the numbers."""
    container = grid.container(f"numbers-{node.label}", copies=1, members=[node.key])
    numbers = array.array(typecode, (random.randrange(1 << 30) for _ in range(COUNT)))
    container.put("numbers", numbers.tobytes())
    return container, numbers


def main() -> None:
    """Push two sets, compute where they lie, and check the answers here."""
    with Manager.connect() as grid:
        data = {node.label: node for node in grid.nodes() if node.kind == "data"}
        if len(data) < 2:
            raise SystemExit("parity: needs data nodes under two host labels (--host-label)")
        first, second = sorted(data)[:2]
        large, large_numbers = make_set(grid, data[first], LARGE)
        small, small_numbers = make_set(grid, data[second], SMALL)
        for container, numbers in ((large, large_numbers), (small, small_numbers)):
            item = container.stat("numbers")
            (answer,) = grid.map(parities, [item], into=container)
            print(f"{container.name}: {crossed(grid.nodes())} bytes between host labels")
            odd = container.value(answer)
            assert odd == bytes(value & 1 for value in numbers)
            print(f"{container.name}: {sum(odd)} of {COUNT} numbers are odd")
        job = grid.submit(sums, large.stat("numbers"), small.stat("numbers"))
        assert list(job.result()) == list(map(operator.add, large_numbers, small_numbers))
        label = next(node.label for node in grid.nodes() if node.name == job.node)
        print(f"the sums ran under host label {label}, beside the larger set under {first}")


if __name__ == "__main__":
    main()
