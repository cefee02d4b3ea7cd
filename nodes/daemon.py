"""Run a node as a process: `alpyne node compute` and `alpyne node data`.

One line on standard output says that it serves, and where:

    alpyne compute node ready alpyne://127.0.0.1:40321#...

The log goes to standard error. SIGTERM and SIGINT end it in order; after SIGKILL or a power cut the
next start picks up from the state folder. Exit codes: 0 ended in order, 1 failed, 2 wrong
configuration.
"""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from alpyne_grid.nodes.config import NodeConfig, read_config
from alpyne_grid.nodes.errors import ConfigError, StateError
from alpyne_grid.nodes.state import StateFolder
from alpyne_grid.wire.log import Log, configure, log_loop_errors

from alpyne_grid.durable import write_durably
from alpyne_proto.address import Address
from alpyne_proto.errors import AlpyneError
from alpyne_proto.messages.hello import NodeKind

COLLECT_AFTER = 10_000  # new objects, between two looks for cycles among them
EXIT_FAILED = 1
EXIT_CONFIGURATION = 2


class Node(Protocol):
    """What this module runs."""

    @property
    def address(self) -> Address:
        """The address to hand out."""

    async def check(self) -> str:
        """Say with what its back end would work; raises what ``start`` would raise about it."""

    async def start(self) -> None:
        """Open the state folder, recover, serve."""

    async def close(self) -> None:
        """End in order."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node that ``arguments`` (without the program's name) describe; return exit code."""
    options = vars(command_parser().parse_args(arguments))
    kind = NodeKind[options.pop("kind").upper()]
    check_only = options.pop("check_config")
    try:
        config = read_config(kind, options, os.environ)
        if check_only:
            return _check(config)
        configure(level=config.log_level)
        return asyncio.run(_run(config))
    except ConfigError as error:
        print(f"alpyne node: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except (AlpyneError, OSError) as error:
        print(f"alpyne node: {error}", file=sys.stderr)
        return EXIT_FAILED


def _check(config: NodeConfig) -> int:
    """Say whether a node could start with ``config``, without starting it."""
    if (config.state / "lock").exists():
        try:
            StateFolder.check(config.state)
        except StateError as error:
            print(f"alpyne node: {error}", file=sys.stderr)
            return EXIT_FAILED
    about = asyncio.run(_maker(config.kind)(config).check())
    owners = f"{len(config.owners)} owner{'' if len(config.owners) == 1 else 's'}"
    print(
        f"{config.kind.name.lower()} node: state {config.state}, listens on "
        f"{config.host}:{config.port or 'a free port'}, back end {config.backend} ({about}), "
        f"registration {config.registration.value}, {owners}: can start"
    )
    return 0


def _maker(kind: NodeKind) -> Callable[[NodeConfig], Node]:
    # Imported here so that a data node never loads what only a compute node needs, and back.
    if kind is NodeKind.COMPUTE:
        from alpyne_grid.nodes.compute.node import ComputeNode

        return partial(ComputeNode, confined=True)
    from alpyne_grid.nodes.data.node import DataNode

    return DataNode


async def _run(config: NodeConfig) -> int:
    log = Log("node")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    log_loop_errors(loop, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows: Ctrl-C arrives as KeyboardInterrupt
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    node = _maker(config.kind)(config)
    await node.start()
    try:
        address = str(node.address)
        if config.address_file is not None:
            write_durably(config.address_file.absolute(), f"{address}\n".encode(), mode=0o644)
        print(f"alpyne {config.kind.name.lower()} node ready {address}", flush=True)
        log.info("ready", kind=config.kind.name.lower(), address=address, state=str(config.state))
        # What is here now stays, and a job makes hardly any cycles: to look for them among some
        # hundred objects at a time, as is usual, takes a twentieth of all the work for small jobs.
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        await stop.wait()
        log.info("stopping")
    finally:
        await node.close()
    return 0


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of what follows `alpyne node`; docs/cli.md lists its options."""
    parser = argparse.ArgumentParser(
        prog="alpyne node",
        description="Run a compute node or a data node in the foreground.",
        epilog="Every option can also stand in the file given by --config (TOML) or in the "
        "environment as ALPYNE_NODE_<OPTION>; the command line wins over both.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="compute|data")
    compute = kinds.add_parser("compute", help="run jobs", allow_abbrev=False)
    data = kinds.add_parser("data", help="keep objects", allow_abbrev=False)
    for sub in (compute, data):
        _add_common(sub)
    compute.add_argument("--slots", metavar="N", help="execution places (default: one per core)")
    _add_compute_backend(compute)
    _add_data_backend(data)
    for sub in (compute, data):
        sub.add_argument(
            "--option",
            metavar="NAME=VALUE",
            help="tells the back end something more; repeatable",
            action="append",
        )
    return parser


def _add_compute_backend(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what runs jobs")
    group.add_argument("--backend", metavar="NAME", help="process or docker (default: process)")
    group.add_argument(
        "--level",
        metavar="LEVEL",
        help="isolation by the process back end: 0 none, 1 bubblewrap (default: 0)",
    )
    group.add_argument(
        "--image",
        metavar="IMAGE",
        help="Docker image of jobs; given again: others that jobs may ask for "
        "(default: python:3.X-slim of this Python's version)",
        action="append",
    )
    group.add_argument(
        "--network",
        metavar="NAME",
        help="network that isolated jobs may ask for, repeatable: a Docker network, or `host` at "
        "level 1 (default: none)",
        action="append",
    )
    group.add_argument(
        "--docker-host", metavar="URL", help="engine (default: unix:///var/run/docker.sock)"
    )


def _add_data_backend(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what keeps objects")
    group.add_argument("--backend", metavar="NAME", help="local or mongodb (default: local)")
    group.add_argument("--uri", metavar="URI", help="of the MongoDB server or replica set")
    group.add_argument(
        "--uri-file", metavar="FILE", help="file with that URI, so that nobody sees its password"
    )
    group.add_argument(
        "--database", metavar="NAME", help="MongoDB database of this node alone (default: alpyne)"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    def option(name: str, metavar: str, text: str, **more: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=text, **more)

    option("--state", "FOLDER", "state folder (default: ~/.local/state/alpyne/<kind>)", type=Path)
    option("--host", "HOST", "address to listen on (default: 127.0.0.1)")
    option("--port", "PORT", "port to listen on; 0 takes the last one, or a free one (default: 0)")
    option("--advertise", "HOST", "host that the printed address names (default: --host)")
    option(
        "--owner",
        "KEY.pub",
        "public key of an administrator; may be given more than once (default: your own account)",
        action="append",
    )
    option(
        "--registration",
        "HOW",
        "open or administered (default: data nodes administered, compute nodes owners only; "
        "others need --level 1 or --backend docker)",
    )
    option("--host-label", "LABEL", "names this machine, so that work runs beside its data")
    option("--quota-bytes", "N", "bytes an account may keep; 0 = no limit (default: 10 GiB)")
    option("--open-quota-bytes", "N", "the same for accounts that registered themselves (1 GiB)")
    option("--address-file", "FILE", "write the address there once it serves", type=Path)
    option("--compression", "HOW", "auto, on or off (default: auto)")
    option("--log-level", "LEVEL", "debug, info, warning or error (default: info)")
    option("--config", "FILE", "TOML file with these options", type=Path)
    option("--labels", "NAME=VALUE", "attribute of the offer; repeatable", action="append")
    parser.add_argument(
        "--check-config", action="store_true", help="say whether it could start, and exit"
    )


if __name__ == "__main__":
    sys.exit(main())
