"""Started bare (``python -E -P -S boot.py``) by the daemon: finds the runtime and becomes a worker.

Arguments: the descriptors of the control and the job's socket, the scratch folder, then NAME=FOLDER
for each package that the runtime needs, with the folder that holds it. Only these are found that
way: nothing else of those folders gets onto the path of a program.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_OWN_FOLDER = __file__.rpartition("/")[0]
_PACKAGE = "alpyne_worker"


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
            spec = ModuleSpec(name, loader, origin=loader.path, is_package=True)
            spec.submodule_search_locations = [_OWN_FOLDER]
            return spec
        place = self._places.get(name)
        return PathFinder.find_spec(name, [place]) if place else None


def main(argv: list[str]) -> None:
    """Run as a worker's supervisor, or as its interpreter, until the daemon ends it."""
    control, job, scratch = int(argv[1]), int(argv[2]), argv[3]
    places = dict(argument.split("=", 1) for argument in argv[4:])
    sys.meta_path.insert(0, RuntimeFinder(places))  # type: ignore[arg-type]
    from alpyne_worker.main import interpret
    from alpyne_worker.supervisor import Supervisor

    Supervisor(control, job).run(lambda descriptor: interpret(descriptor, scratch))


if __name__ == "__main__":
    main(sys.argv)
