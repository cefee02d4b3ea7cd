"""The first process of a sandbox: it limits itself for good and becomes a worker.

    python -E -P -S boot_sandbox.py PROCESSES DESCRIPTORS FILE_BYTES ARGUMENTS...

The first three are resource limits of setrlimit(2), 0 for none; ARGUMENTS are those of ``boot.py``.
The limits are set here, inside of the sandbox's user namespace: since Linux 5.14 the kernel counts
processes per namespace, so that those of the same user outside do not matter.
"""

import os
import resource
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any

_LIMITS = (resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)


def main(arguments: list[str]) -> None:
    """Set the limits and run as a worker; never returns."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, text in zip(_LIMITS, arguments[1:], strict=False):
        if most := int(text):
            _, hard = resource.getrlimit(kind)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))
    _load_boot()["main"](["", *arguments[1 + len(_LIMITS) :]])


def _load_boot() -> dict[str, Any]:
    """Load ``boot.py``, which leaves no trace among the modules of jobs."""
    folder = os.path.dirname(os.path.abspath(__file__))
    loader = SourceFileLoader("boot", f"{folder}/boot.py")
    module = ModuleType("boot")
    module.__file__ = loader.path
    loader.exec_module(module)
    return vars(module)


if __name__ == "__main__":
    main(sys.argv)
