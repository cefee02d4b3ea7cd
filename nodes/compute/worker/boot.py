"""Started bare (``python -E -P -S boot.py``) by the daemon: finds the runtime and becomes a worker.

Arguments: the descriptors of the control and the job's socket, the scratch folder, then NAME=FOLDER
for each package that the runtime needs, with the folder that holds it. Only these are found that
way: nothing else of those folders gets onto the path of a program.
"""

import gc
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_OWN_FOLDER = __file__.rpartition("/")[0]
_PACKAGE = "alpyne_worker"
_MESSAGES = "alpyne_proto.messages"  # its own __init__ declares all messages, most of them unused
_IN_FOLDER = "alpyne_proto/messages"


def _package(name: str, loader: Any, folder: str) -> ModuleSpec:
    spec = ModuleSpec(name, loader, is_package=True)
    spec.submodule_search_locations = [folder]
    return spec


class LazyPackage:
    """Loads a package whose modules are imported when they are asked for, and not before.

    Not an ``importlib.abc.Loader``: importing that class costs as much as a third of a start.
    """

    def create_module(self, spec: ModuleSpec) -> None:
        """Have an ordinary module made (importlib's protocol)."""

    def exec_module(self, module: ModuleType) -> None:
        """Give ``module`` its way of finding what is not there yet (PEP 562)."""

        def find(name: str) -> ModuleType:
            try:
                return import_module(f"{module.__name__}.{name}")
            except ModuleNotFoundError as error:
                raise AttributeError(f"{module.__name__} has no {name}: {error}") from None

        vars(module)["__getattr__"] = find


class RuntimeFinder:
    """Finds the runtime's packages, before anything of a program could stand in their place."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a runtime package; None for all else (importlib's protocol)."""
        if name == _PACKAGE:
            loader = SourceFileLoader(name, f"{_OWN_FOLDER}/__init__.py")
            return _package(name, loader, _OWN_FOLDER)
        if name == _MESSAGES:
            return _package(name, LazyPackage(), f"{self._places['alpyne_proto']}/{_IN_FOLDER}")
        place = self._places.get(name)
        return PathFinder.find_spec(name, [place]) if place else None


def main(argv: list[str]) -> None:
    """Run as a worker's supervisor, or as its interpreter, until the daemon ends it."""
    gc.disable()  # nothing of what is imported now ever becomes garbage
    control, job, scratch = int(argv[1]), int(argv[2]), argv[3]
    places = dict(argument.split("=", 1) for argument in argv[4:])
    sys.meta_path.insert(0, RuntimeFinder(places))
    interpret = import_module(f"{_PACKAGE}.main").interpret
    supervisor = import_module(f"{_PACKAGE}.supervisor").Supervisor(control, job)
    supervisor.run(lambda descriptor: interpret(descriptor, scratch))


if __name__ == "__main__":
    main(sys.argv)
