"""A program to send whole: `alpyne run examples/primes_program.py 10 50`.

Its main() runs on a node; its arguments are those behind the file's name, as text.
"""


def main(first: str, last: str) -> list[int]:
    """Print and return the primes from ``first`` to ``last``."""
    primes = [
        number
        for number in range(max(2, int(first)), int(last) + 1)
        if all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    ]
    print(f"{len(primes)} primes from {first} to {last}")
    return primes
