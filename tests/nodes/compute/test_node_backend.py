"""What a compute node tells its back end, and when it has it give up what it needs no more."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from alpyne_grid.nodes.compute import node as node_module
from alpyne_grid.nodes.compute.backends.base import BackendSetup
from alpyne_grid.nodes.compute.backends.process import ProcessBackend
from alpyne_grid.nodes.compute.node import ComputeNode
from alpyne_grid.nodes.config import NodeConfig, Registration
from alpyne_grid.nodes.errors import ConfigError

from alpyne_proto.keys import SigningKey
from alpyne_proto.messages.hello import NodeKind

Options = Mapping[str, tuple[str, ...]]


class Watched(ProcessBackend):
    """A process back end that says what becomes of it."""

    made: list["Watched"] = []  # noqa: RUF012 - the test's record

    def __init__(self, setup: BackendSetup) -> None:
        super().__init__(setup)
        self.setup = setup
        self.story: list[str] = []
        Watched.made.append(self)

    async def start(self) -> None:
        self.story.append("start")
        await super().start()

    def confine(self) -> None:
        self.story.append("confine")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """The back ends that nodes of this test have made."""
    monkeypatch.setattr(Watched, "made", [])
    monkeypatch.setattr(node_module, "find_backend", lambda name: Watched)
    return Watched.made


def config(folder: Path, options: Options, slots: int = 3) -> NodeConfig:
    """The configuration of a node that nobody uses."""
    owner = SigningKey.create(os.urandom).public
    return NodeConfig(
        NodeKind.COMPUTE,
        folder,
        (owner,),
        registration=Registration.OWNERS,
        slots=slots,
        backend="process",
        options=options,
    )


@pytest.mark.parametrize("confined", [False, True])
async def test_node_confines_itself_after_the_start_only_when_the_process_is_its_own(
    tmp_path: Path, watched: list[Watched], confined: bool
) -> None:
    node = ComputeNode(config(tmp_path, {}), confined=confined)
    await node.start()
    await node.close()
    (backend,) = watched
    assert backend.story == (["start", "confine"] if confined else ["start"])


async def test_node_tells_its_back_end_options_and_slots(
    tmp_path: Path, watched: list[Watched]
) -> None:
    node = ComputeNode(config(tmp_path, {"level": ("0",)}))
    await node.start()
    await node.close()
    setup = watched[0].setup
    assert (setup.options, setup.slots) == ({"level": ("0",)}, 3)
    assert setup.objects is not None


@pytest.mark.parametrize(
    ("level", "registration", "options", "warned"),
    [
        (1, Registration.OPEN, {}, True),
        (2, Registration.ADMINISTERED, {}, True),
        (1, Registration.OPEN, {"job-memory": ("1GiB",)}, False),
        (1, Registration.OWNERS, {}, False),
    ],
)
async def test_node_warns_at_its_start_when_jobs_of_others_have_no_memory_limit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    level: int,
    registration: Registration,
    options: Options,
    warned: bool,
) -> None:
    level_of_node = level

    class Isolated(ProcessBackend):
        """Says that it isolates."""

        def __init__(self, setup: BackendSetup) -> None:
            super().__init__(dataclasses.replace(setup, options={}))

        @property
        def level(self) -> int:
            return level_of_node

    monkeypatch.setattr(node_module, "find_backend", lambda name: Isolated)
    # Other tests may have taken the logs away from the root logger.
    monkeypatch.setattr(logging.getLogger("alpyne"), "propagate", True)
    given = dataclasses.replace(config(tmp_path, options), registration=registration)
    node = ComputeNode(given)
    with caplog.at_level(logging.WARNING):
        await node.start()
        await node.close()
    said = [one for one in caplog.records if one.getMessage() == "no_memory_limit"]
    assert len(said) == int(warned)


async def test_node_refuses_options_that_its_back_end_does_not_take(
    tmp_path: Path, watched: list[Watched]
) -> None:
    node = ComputeNode(config(tmp_path, {"colour": ("red",)}))
    with pytest.raises(ConfigError, match="takes no option colour"):
        await node.start()
    assert watched == []


async def test_check_says_what_jobs_would_run_in_and_starts_nothing(tmp_path: Path) -> None:
    said = await ComputeNode(config(tmp_path / "state", {})).check()
    assert "level 0" in said
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"level": ("2",)}, "level: expected one of 0, 1, got '2'"),
        ({"level": ("2",)}, "--backend docker"),
        ({"level": ("0", "1")}, "level: expected one of"),
        ({"level": ()}, "level: expected one of"),
        ({"job-disk": ("1GiB",)}, "job-disk: level 0 cannot keep a job to it"),
        ({"level": ("0",), "network": ("host",)}, "--level 1"),
    ],
)
def test_process_back_end_refuses_options_that_its_level_does_not_have(
    tmp_path: Path, options: Options, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ProcessBackend(BackendSetup(tmp_path, bytes(16), options=options))
    assert said in str(caught.value)
