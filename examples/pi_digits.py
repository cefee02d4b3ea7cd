"""Digits of pi from independent work units: each unit computes its digits from its own position.

    python examples/pi_digits.py [UNITS]

Every unit is one job. Callbacks print each unit's end as it comes, in any order. One unit more
divides by zero on purpose: a unit that fails disturbs nobody.

Source of the formula: J. Machin, 1706, pi/4 = 4 arctan(1/5) - arctan(1/239).
"""

import sys

from alpyne_grid.manager import Job, Manager

DIGITS = 50  # of one unit
GUARD = 12  # more digits than asked for, so that rounding does not reach those


def arctan_of_inverse(number: int, unity: int) -> int:
    """Return arctan(1 / number) in units of 1 / unity."""
    term = total = unity // number
    square = number * number
    divisor = 1
    while term:
        term //= -square
        divisor += 2
        total += term // divisor
        if abs(term) <= 1:
            break
    return total


def digits_at(position: int) -> str:
    """Return DIGITS decimal digits of pi, from the ``position``-th behind the point on (from 1)."""
    last = position + DIGITS - 1
    unity = 10 ** (last + GUARD)
    pi = 4 * (4 * arctan_of_inverse(5, unity) - arctan_of_inverse(239, unity))
    return f"{pi // 10**GUARD % 10**DIGITS:0{DIGITS}d}"


def broken(position: int) -> str:
    """Fail, on purpose."""
    return str(position // 0)


def finished(job: Job) -> None:
    """Tell of a unit's end; called once for each, as soon as it is known."""
    error = job.exception()
    text = f"failed: {error}".splitlines()[0] if error else "finished"
    print(f"{job.name} on {job.node} {text}", file=sys.stderr)


def main() -> None:
    """Compute UNITS units on the grid and print the digits in order."""
    units = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    with Manager.connect() as grid:
        positions = [1 + unit * DIGITS for unit in range(units)]
        jobs = [grid.submit(digits_at, p, name=f"digits from {p}") for p in positions]
        bad = grid.submit(broken, 0, name="division by zero")
        for job in [*jobs, bad]:
            job.add_done_callback(finished)
        print("3." + "".join(job.result() for job in jobs))
        bad.exception()  # wait for it too


if __name__ == "__main__":
    main()
