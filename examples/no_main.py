"""Not a program: it has no main(). `alpyne run examples/no_main.py` says so."""

ANSWER = 42
