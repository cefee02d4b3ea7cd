"""What a hostile job tries without breaking anything: reach for what is not its own.

A probe is a function of one argument, the bait that the test has laid out on the machine (see
``bait``). It returns what it got, or raises OSError where it was denied; an empty list is nothing.
All probes of a level run in one job, each in a process of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alpyne_grid.tools.contracts.hostile import probes_files as files
from alpyne_grid.tools.contracts.hostile import probes_network as network
from alpyne_grid.tools.contracts.hostile import probes_rights as rights

Bait = dict[str, Any]
Loot = str | int | list[str]
PROBE_S = 20  # that one may take


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that is tried.

    ``at_level_0``: whether it succeeds there: ``always``; ``as the user``, where the daemon's user
    could do it; ``never``, where that level denies it too, or what is there depends on the machine.
    """

    name: str
    try_it: Callable[[Bait], Loot]
    at_level_0: str = "always"


PROBES = (
    # ---- other processes ----
    Probe("environ of process 1", files.environ_of_1),
    Probe("mem of process 1", files.mem_of_1, "as the user"),
    Probe("maps of process 1", files.maps_of_1),
    Probe("root of process 1", files.root_of_1),
    Probe("cwd of process 1", files.cwd_of_1),
    Probe("fd of process 1", files.fd_of_1),
    Probe("a secret in another process's environment", files.environment_of_another),
    Probe("another process's command line", files.command_line_of_another),
    Probe("the daemon's process", files.daemon_process),
    Probe("a signal to another process", rights.kill_another),
    # ---- files ----
    Probe("the daemon's key by its path", files.key_by_path),
    Probe("the daemon's key by a search", files.key_by_search),
    Probe("the daemon's key behind a link", files.key_behind_link),
    Probe("another job's files by their paths", files.neighbour_by_path),
    Probe("another job's files by a search", files.neighbour_by_search),
    Probe("the daemon's environment", files.daemon_environment, "never"),
    Probe("a descriptor of the daemon", files.descriptor_of_daemon, "never"),
    Probe("more descriptors than its own", files.foreign_descriptors, "never"),
    Probe("files that only root may read", files.roots_files, "as the user"),
    Probe("a write outside its own folders", files.write_outside),
    Probe("a write to the runtime", files.write_runtime, "as the user"),
    Probe("a write to kernel settings", files.write_kernel_settings, "as the user"),
    Probe("a write to its own limits", files.write_control_groups, "never"),
    Probe("devices", files.devices, "as the user"),
    Probe("the kernel's memory and messages", files.kernel, "as the user"),
    # ---- the network ----
    Probe("a connection to loopback", network.loopback),
    Probe("a connection to loopback by IPv6", network.loopback_6, "as the user"),
    Probe("a datagram to loopback", network.datagram),
    Probe("a connection to the machine's own address", network.own_address),
    Probe("a connection to the metadata address", network.metadata, "never"),
    Probe("the container engine's socket", network.engine_socket),
    Probe("an abstract socket of the machine", network.abstract_socket),
    Probe("network interfaces beside loopback", network.interfaces, "as the user"),
    Probe("shared memory of the machine", network.shared_memory),
    # ---- rights ----
    Probe("tracing its supervisor", rights.trace_supervisor, "as the user"),
    Probe("memory of its supervisor", rights.memory_of_supervisor, "as the user"),
    Probe("tracing process 1", rights.trace_process_1, "as the user"),
    Probe("more than its hard limits", rights.raise_limits, "as the user"),
    Probe("no bound on descriptors", rights.descriptors_without_bound, "never"),
    Probe("a mount", rights.mount, "as the user"),
    Probe("namespaces of its own", rights.unshare, "as the user"),
    Probe("the namespaces of process 1", rights.enter_namespaces, "never"),
    Probe("another root folder", rights.change_root, "as the user"),
    Probe("being root", rights.be_root, "as the user"),
    Probe("becoming root", rights.become_root, "as the user"),
    Probe("root's group", rights.root_group, "as the user"),
    Probe("capabilities", rights.capabilities, "as the user"),
    Probe("privileges by setuid binaries", rights.new_privileges, "as the user"),
)


def try_all(probes: list[Probe], bait: Bait) -> dict[str, tuple[str, str]]:
    """Try each probe in a process of its own; return by name what came of it.

    That is ``("got", LOOT)``, ``("denied", WHY)``, or ``("broken", TRACEBACK)`` for a probe that
    could not be tried.
    """
    import os

    print(os.environ.get("ALPYNE_JOB_MARK", ""), flush=True)
    return {probe.name: _try(probe.try_it, bait) for probe in probes}


def _try(try_it: Callable[[Bait], Loot], bait: Bait) -> tuple[str, str]:
    import os

    supervisor = bait["supervisor"] or os.getppid()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, _outcome(try_it, {**bait, "supervisor": supervisor}))
        os._exit(0)
    os.close(writer)
    said = b""
    while data := os.read(reader, 65_536):
        said += data
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):  # 31: a system call that is not allowed
        ended_by = f"ended by signal {os.WTERMSIG(status)}"
        return ("denied" if os.WTERMSIG(status) == 31 else "broken"), ended_by
    how, _, what = said.decode().partition(" ")
    return how, what


def _outcome(try_it: Callable[[Bait], Loot], bait: Bait) -> bytes:
    import signal
    import traceback

    signal.alarm(PROBE_S)
    try:
        loot = try_it(bait)
    except OSError as error:
        said = f"denied {type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a probe that is broken is no denial
        said = f"broken {traceback.format_exc()}"
    else:
        said = f"got {loot!r:.2000}" if loot else "denied nothing there"
    return said.encode(errors="replace")
