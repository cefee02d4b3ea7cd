"""The contract of back ends of compute nodes: ``BackendContract`` is all of it.

    class TestMyBackend(BackendContract):
        @asynccontextmanager
        async def opened(self, setup):  # yields a back end that has reaped and started
            backend = MyBackend(setup)
            await backend.reap()
            await backend.start()
            try:
                yield backend
            finally:
                await backend.close()

Each test gets a back end of its own. A test file's own functions travel by value as well, after
``cloudpickle.register_pickle_by_value(sys.modules[__name__])``.
"""

from alpyne_grid.tools.contracts.compute.bench import (
    ALICE,
    BOB,
    BackendBench,
    Bench,
    arguments,
    call,
    function_row,
)
from alpyne_grid.tools.contracts.compute.calls import CallContract
from alpyne_grid.tools.contracts.compute.isolation import IsolationContract
from alpyne_grid.tools.contracts.compute.kill import KillContract
from alpyne_grid.tools.contracts.compute.limits import LimitContract
from alpyne_grid.tools.contracts.compute.object_room import ObjectRoom, Objects
from alpyne_grid.tools.contracts.compute.objects import ObjectContract
from alpyne_grid.tools.contracts.compute.output import OutputContract
from alpyne_grid.tools.contracts.compute.processes import escape, is_dead, marked, named, wait_gone
from alpyne_grid.tools.contracts.compute.programs import ProgramContract
from alpyne_grid.tools.contracts.compute.recorder import DONE, FAILED, LIMIT, Recorder, Run
from alpyne_grid.tools.contracts.compute.suspension import SuspensionContract


class BackendContract(
    CallContract,
    ProgramContract,
    OutputContract,
    LimitContract,
    KillContract,
    IsolationContract,
    ObjectContract,
    SuspensionContract,
):
    """What every back end of compute nodes must do."""


__all__ = [
    "ALICE",
    "BOB",
    "DONE",
    "FAILED",
    "LIMIT",
    "BackendBench",
    "BackendContract",
    "Bench",
    "CallContract",
    "IsolationContract",
    "KillContract",
    "LimitContract",
    "ObjectContract",
    "ObjectRoom",
    "Objects",
    "OutputContract",
    "ProgramContract",
    "Recorder",
    "Run",
    "SuspensionContract",
    "arguments",
    "call",
    "escape",
    "function_row",
    "is_dead",
    "marked",
    "named",
    "wait_gone",
]
