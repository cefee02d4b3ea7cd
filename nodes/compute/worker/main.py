"""The interpreter that runs the jobs of one account, one after the other."""

import faulthandler
import os
import site
import sys
from functools import partial
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, struct_rusage
from resource import getrusage as _usage
from types import ModuleType
from typing import Any

from alpyne_proto.messages.job_terms import Cause, JobForm, JobState
from alpyne_proto.messages.worker import JobRan, RunJob, WorkerReady

from .calls import run_call, run_map
from .channel import DaemonChannel
from .cleaning import CleanState, line_buffered_output
from .failures import ProgramFailed, cause_of, failure_row, is_out_of_disk, line_of
from .objects import ObjectClient
from .program import Functions, rows
from .sources import run_source
from .values import Body, Encoder

MARK = "ALPYNE_JOB_MARK"
_KIB = 1024
_BLOCK = 512  # bytes, of the counters of blocks in getrusage(2)
_Used = tuple[float, int, int]  # CPU seconds, blocks read from disks and written to them


def commands() -> Any:
    """Return what runs commands; most workers never need it."""
    from . import commands as loaded

    return loaded


class Interpreter:
    """Takes jobs from the daemon and runs them."""

    def __init__(self, job: int, scratch: str) -> None:
        """``job``: descriptor of the job's socket pair. ``scratch``: its working folder."""
        self._process = os.getpid()
        self._channel = DaemonChannel(job)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._channel.announce(WorkerReady(pid=self._process, python=version))
        _look_as_usual()  # while the daemon makes up its mind
        self._objects = ObjectClient(self._channel)
        self._functions = Functions()
        self._mark = {MARK: os.environ[MARK]}
        self._scratch = scratch
        self._clean = CleanState(scratch)
        self._peak = _open_peak()
        self._before: _Used = (0.0, 0, 0)

    def run(self) -> None:
        """Serve until the daemon closes the socket."""
        self._begin_anew()
        while (taken := self._channel.next_job()) is not None:
            self._serve(*taken)

    def _serve(self, order: RunJob, stream_id: int, program: bytes) -> None:
        ran, body = self._outcome(order, program)
        self._clean.flush()
        if os.getpid() != self._process:
            os._exit(0)  # the program forked and came back twice: its child ends here
        usage = _usage(RUSAGE_SELF)
        cpu_s, read, written = _used(usage)
        before_s, read_before, written_before = self._before
        ran["cpu_ms"] = int((cpu_s - before_s) * 1000)
        ran["disk_read_bytes"] = (read - read_before) * _BLOCK
        ran["disk_written_bytes"] = (written - written_before) * _BLOCK
        ran["peak_memory_bytes"] = usage.ru_maxrss * _KIB
        ran["spent"] = self._clean.is_spent()
        self._channel.respond(stream_id, JobRan(**ran), body, body.size)
        self._clean.restore()
        if order.form is JobForm.COMMAND:
            commands().remove_folder(order.folder)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Prepare what is measured of the next job now, when nobody waits."""
        if self._peak is not None:
            os.pwrite(self._peak, b"5", 0)  # proc(5): the peak of resident memory begins anew
        self._before = _used(_usage(RUSAGE_SELF))

    def _outcome(self, order: RunJob, program: bytes) -> tuple[dict[str, Any], Body]:
        """Run the program; return the fields of JobRan and the result's rows."""
        encoder = Encoder(order.codec, by_value=order.form is JobForm.SOURCE)
        try:
            if self._clean.enter_bundle(order.bundle):
                self._functions.clear()
            body = self._run(order, _read_program(order, program), encoder)
        except BaseException as error:  # a program may raise anything
            if self._is_out_of_disk(order, error):
                text = f"the job filled its folders, which may hold {order.disk_bytes} bytes"
                return {"state": JobState.LIMIT, "cause": Cause.DISK, "text": text}, Body()
            body = Body()
            body.add(*failure_row(error, encoder.pickler()))
            status = error.status if isinstance(error, ProgramFailed) else 0
            return {
                "state": JobState.FAILED,
                "cause": cause_of(error),
                "text": line_of(error),
                "exit_status": status,
            }, body
        if order.result_bytes and body.size > order.result_bytes:
            text = f"the result has {body.size} bytes, the limit is {order.result_bytes}"
            return {"state": JobState.LIMIT, "cause": Cause.OUTPUT, "text": text}, Body()
        return {"state": JobState.DONE}, body

    def _run(self, order: RunJob, program: bytes | memoryview, encoder: Encoder) -> Body:
        source = rows(program)
        match order.form:
            case JobForm.CALL:
                return run_call(source, self._functions, encoder)
            case JobForm.MAP:
                ends_all = partial(self._is_out_of_disk, order)
                return run_map(source, self._functions, encoder, self._objects, ends_all)
            case JobForm.SOURCE:
                return run_source(source, encoder)
            case JobForm.COMMAND:
                body: Body = commands().run_command(source, order.folder, self._mark)
                return body

    def _is_out_of_disk(self, order: RunJob, error: BaseException) -> bool:
        return order.disk_bytes > 0 and is_out_of_disk(error, self._scratch)


def _read_program(order: RunJob, program: bytes) -> bytes | memoryview:
    """Return the program's rows; a large program is a file, which is mapped and not read."""
    if not order.program:
        return program
    import mmap  # few programs are that large

    with open(order.program, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _used(own: struct_rusage) -> _Used:
    """Return what is in ``own``, and what the children used that were waited for."""
    ended = _usage(RUSAGE_CHILDREN)
    return (
        own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime,
        own.ru_inblock + ended.ru_inblock,
        own.ru_oublock + ended.ru_oublock,
    )


def _open_peak() -> int | None:
    """Return the file by which the peak of memory is reset; None where the kernel has none."""
    try:
        return os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return None


def _look_as_usual() -> None:
    """Make this bare interpreter one in which a program finds all as it would anywhere."""
    sys.modules["__main__"] = ModuleType("__main__")
    site.main()  # the node's installed packages
    line_buffered_output()
    faulthandler.enable()  # a crash of the interpreter shows its Python traceback on stderr


def interpret(job: int, scratch: str) -> None:
    """Run jobs from the socket pair's end ``job`` until the daemon closes it."""
    Interpreter(job, scratch).run()
