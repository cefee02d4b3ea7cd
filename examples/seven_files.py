"""Seven files over the nodes: each is handled exactly once, wherever there is room.

    python examples/seven_files.py

Pushes seven files, counts the words of each on a node, and adds the counts up in order.
"""

import operator
import os
import tempfile
from pathlib import Path

from alpyne_grid.manager import JobObject, Manager


def count_words(text: JobObject) -> tuple[str, int, str]:
    """Return a file's name, its words, and which execution counted them."""
    return text.name, len(text.read().split()), f"{os.getpid()}"


def main() -> None:
    """Push, count, add."""
    with tempfile.TemporaryDirectory() as folder, Manager.connect() as grid:
        for number in range(1, 8):
            Path(folder, f"file-{number}.txt").write_text("word " * number * 100)
        files = grid.container("seven", copies=1)
        files.push_tree(folder)
        counts = list(grid.map(count_words, files.glob("*.txt"), chunk=1))
        for name, words, process in counts:
            print(f"{name}: {words} words, by process {process}")
        print("words:", grid.reduce(operator.add, [words for _, words, _ in counts]))
        print("in order:", grid.reduce(operator.add, [name[5] for name, _, _ in counts]))


if __name__ == "__main__":
    main()
