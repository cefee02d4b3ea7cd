"""Recursive Fibonacci numbers, shipped from this script: no code of it is installed on the nodes.

python examples/fibonacci.py [N]
"""

import sys

from alpyne_grid.manager import Manager


def fibonacci(n: int) -> int:
    """Return the n-th Fibonacci number, slowly: it calls itself, on the node."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def main() -> None:
    """Print the Fibonacci numbers up to the N-th."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with Manager.connect() as grid:
        for n, value in enumerate(grid.map(fibonacci, range(most + 1))):
            print(f"fibonacci({n}) = {value}")


if __name__ == "__main__":
    main()
