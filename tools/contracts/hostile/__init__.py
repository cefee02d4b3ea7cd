"""The hostile contract: back ends that isolate (level 1 and above) deny all that stands here.

    class TestHostile(HostileContract):
        level = 1
        def opened(self, setup): ...

``WhatLevelZeroLetsThrough`` is for the process back end at level 0: the same attacks, which it does
not stop.
"""

from alpyne_grid.tools.contracts.hostile.bench import HostileBench
from alpyne_grid.tools.contracts.hostile.denial import DenialContract
from alpyne_grid.tools.contracts.hostile.exhaustion import ExhaustionContract
from alpyne_grid.tools.contracts.hostile.level_zero import WhatLevelZeroLetsThrough
from alpyne_grid.tools.contracts.hostile.metering import MeteringContract


class HostileContract(DenialContract, ExhaustionContract, MeteringContract):
    """What back ends of level 1 and above promise beside ``BackendContract``."""


__all__ = [
    "DenialContract",
    "ExhaustionContract",
    "HostileBench",
    "HostileContract",
    "MeteringContract",
    "WhatLevelZeroLetsThrough",
]
