"""The manager library: what a program embeds to use the grid."""

if __name__ != "alpyne_grid.manager":
    raise ImportError("this folder is the package alpyne_grid.manager: import it by that name")

from alpyne_grid.manager.aio import AsyncManager
from alpyne_grid.manager.command import Command
from alpyne_grid.manager.errors import (
    BadArguments,
    BadProgram,
    CannotSuspend,
    CommandFailed,
    ContainerError,
    JobCancelled,
    JobCrashed,
    JobFailed,
    JobLost,
    JobRaised,
    JobRefused,
    JobTimeout,
    JournalError,
    LimitExceeded,
    ManagerClosed,
    MaybeStale,
    MissingFile,
    NodeUnreachable,
    NoNodeFits,
    NotEnoughCopies,
    NotRegistered,
    ObjectError,
    ObjectNotFound,
    ObjectUnavailable,
    PoolError,
    ProgramError,
    Receipt,
    ResultTimeout,
    UnknownJob,
    UnpicklableResult,
    UnsafePath,
    UnsafeResult,
    VersionConflict,
    WrongPython,
)
from alpyne_grid.manager.jobs import AsyncJob
from alpyne_grid.manager.nodes import Node
from alpyne_grid.manager.objects import AsyncContainer
from alpyne_grid.manager.options import JobOptions
from alpyne_grid.manager.results import CommandResult
from alpyne_grid.manager.source_file import Source
from alpyne_grid.manager.statistics import NodeStatistics, Statistics
from alpyne_grid.manager.sync import Manager
from alpyne_grid.manager.sync_jobs import Job, Results
from alpyne_grid.manager.sync_objects import Container

from alpyne_proto.jobobject import JobObject
from alpyne_proto.messages.compute import JobState

__all__ = [
    "AsyncContainer",
    "AsyncJob",
    "AsyncManager",
    "BadArguments",
    "BadProgram",
    "CannotSuspend",
    "Command",
    "CommandFailed",
    "CommandResult",
    "Container",
    "ContainerError",
    "Job",
    "JobCancelled",
    "JobCrashed",
    "JobFailed",
    "JobLost",
    "JobObject",
    "JobOptions",
    "JobRaised",
    "JobRefused",
    "JobState",
    "JobTimeout",
    "JournalError",
    "LimitExceeded",
    "Manager",
    "ManagerClosed",
    "MaybeStale",
    "MissingFile",
    "NoNodeFits",
    "Node",
    "NodeStatistics",
    "NodeUnreachable",
    "NotEnoughCopies",
    "NotRegistered",
    "ObjectError",
    "ObjectNotFound",
    "ObjectUnavailable",
    "PoolError",
    "ProgramError",
    "Receipt",
    "ResultTimeout",
    "Results",
    "Source",
    "Statistics",
    "UnknownJob",
    "UnpicklableResult",
    "UnsafePath",
    "UnsafeResult",
    "VersionConflict",
    "WrongPython",
]
