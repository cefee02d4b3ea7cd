"""How processes ended, in words; for daemon and worker."""

import signal

SIGNALLED = 256  # added to the number of the signal that ended a process


def signal_name(number: int) -> str:
    """Return a signal as people know it, for instance ``SIGSEGV (signal 11)``."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def describe_exit(status: int) -> str:
    """Return how an interpreter ended whose exit status is 256 + n after signal n."""
    if status < SIGNALLED:
        return f"the interpreter ended with status {status} before the job did (os._exit?)"
    hint = ""
    if status - SIGNALLED == signal.SIGKILL:
        hint = "; perhaps the machine ran out of memory"
    return f"the interpreter was ended by {signal_name(status - SIGNALLED)}{hint}"
