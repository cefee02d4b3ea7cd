"""What a worker says, out of its frames: a job can send anything, so nothing is taken on trust."""

from typing import TypeVar

from alpyne_proto import codec
from alpyne_proto.errors import FrameError
from alpyne_proto.frame import Frame
from alpyne_proto.messages.compute import JobState
from alpyne_proto.messages.worker import JobRan
from alpyne_proto.registry import Message, Shape

_ENDS = (JobState.DONE, JobState.FAILED, JobState.LIMIT)  # those that a worker may tell
_SHAPES = (Shape.REQUEST, Shape.RESPONSE)
_M = TypeVar("_M", bound=Message)


def message_of(frame: Frame, kind: type[_M]) -> _M:
    """Return the message in ``frame``, which must be a ``kind``; else FrameError or CodecError."""
    message = codec.decode(frame.meta, _SHAPES, lenient=False)
    if not isinstance(message, kind):
        raise FrameError(f"worker: {type(message).__name__} instead of {kind.__name__}")
    return message


def end_of(frame: Frame) -> JobRan:
    """Return how a program ended; FrameError for what is no end."""
    ran = message_of(frame, JobRan)
    if ran.state not in _ENDS:
        raise FrameError(f"worker: {ran.state.name} as the end of a job")
    return ran
