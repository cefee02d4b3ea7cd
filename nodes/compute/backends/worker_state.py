"""Where a worker is in its life, and where it can go from there."""

from enum import Enum


class WorkerState(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    IDLE = "idle"
    RUNNING = "running"
    ENDING = "ending"
    GONE = "gone"

    __hash__ = object.__hash__  # looked up for each job; by name, as an Enum does, is slower


_S = WorkerState
MOVES = {
    _S.STARTING: {_S.IDLE, _S.ENDING},
    _S.IDLE: {_S.RUNNING, _S.ENDING},
    _S.RUNNING: {_S.IDLE, _S.ENDING},
    _S.ENDING: {_S.GONE},
    _S.GONE: set(),
}
