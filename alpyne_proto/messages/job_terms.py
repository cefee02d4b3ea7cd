"""What jobs are, where they stand and why they ended: the numbers that messages carry.

They stand apart from the compute messages, because a worker needs them and not those: declaring a
message takes time, and a worker starts in tens of milliseconds.
"""

from enum import IntEnum


class JobForm(IntEnum):
    """What a job's payload is; see alpyne_proto.messages.program."""

    CALL = 1  # a function and its arguments
    MAP = 2  # a function and a chunk of items; one outcome per item
    SOURCE = 3  # a .py file with main(...)
    COMMAND = 4  # argv, input files, output patterns


class ResultCodec(IntEnum):
    """How a job's values come back."""

    PICKLE = 1  # trusted nodes
    PLAIN = 2  # None, bool, int, float, str, bytes, list, tuple, dict, set, arrays


class JobState(IntEnum):
    """States of an execution; from DONE on it is finished."""

    QUEUED = 1
    STARTING = 2
    RUNNING = 3
    SUSPENDED = 4
    DONE = 5
    FAILED = 6
    KILLED = 7
    LIMIT = 8
    TIMEOUT = 9
    LOST = 10


class Cause(IntEnum):
    """Why a job did not end as DONE."""

    NONE = 0
    EXCEPTION = 1  # the program raised
    CRASH = 2  # the interpreter or command died of a signal or os._exit
    BAD_PROGRAM = 3  # syntax error, no main, not a program
    MISSING_FILE = 4  # a file, module or object that the program names is not there
    PYTHON_VERSION = 5  # this node's Python cannot run the code
    BAD_ARGUMENTS = 6  # the arguments do not unpickle here
    UNPICKLABLE_RESULT = 7
    UNSAFE_RESULT = 8  # not a plain value, on a node that is not trusted
    EXIT_STATUS = 9  # a command ended with a status other than 0
    MEMORY = 10
    OUTPUT = 11  # stdout, stderr or result over the size allowed
    WALL_TIME = 12
    CANCELLED = 13
    REVOKED = 14  # the account was revoked
    NODE = 15  # the node could not start or keep the job
    PROCESSES = 16  # more processes and threads than allowed
    DISK = 17  # more bytes or files in its folders than allowed
