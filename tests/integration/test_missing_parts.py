"""What a program is told when its node cannot make containers any more."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from alpyne_grid.manager import JobLost, JobState, Manager, grid_table
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster
from parts.docker_engine import Engine

pytestmark = [pytest.mark.integration, pytest.mark.docker]


@dataclass
class Site:
    """A program's grid of one node, and an image of its own that the node lists."""

    grid: Manager
    engine: Engine
    image: str


@pytest.fixture(scope="module")
def site(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The image is another name of the tests' image; it may be gone at the end."""
    repository = f"alpyne-missing-{secrets.token_hex(4)}"
    engine.api.post(f"/images/{engine.image}/tag", repo=repository, tag="1")
    image = f"{repository}:1"
    options = ["--backend", "docker", "--docker-host", engine.host]
    options += ["--image", engine.image, "--image", image]
    try:
        with LocalCluster(tmp_path_factory.mktemp("missing") / "cluster", create_account) as made:
            made.start("compute", "--slots", "1", *options)
            with Manager.connect(made.addresses, home=made.home) as grid:
                yield Site(grid, engine, image)
    finally:
        if engine.api.get(f"/images/{image}/json") is not None:
            engine.api.delete(f"/images/{image}")


def test_job_is_lost_with_the_command_that_gets_its_image_when_the_image_was_removed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The job moves as often as ever, but waits less in between.
    monkeypatch.setattr(grid_table, "PAUSE_S", 0.01)
    assert site.grid.submit(os.getuid, image=site.image).result(30) > 0
    site.engine.api.delete(f"/images/{site.image}")
    # Other limits than those of the worker that is warm: this needs a new container.
    job = site.grid.submit(os.getuid, image=site.image, memory="200MB")
    with pytest.raises(JobLost) as lost:
        job.result(60)
    assert job.state is JobState.LOST
    assert f"docker pull {site.image}" in lost.value.reason
    assert "put right at the node what the reason names" in str(lost.value)
    assert site.engine.api.get(f"/images/{site.image}/json") is None  # nobody has pulled it
    assert site.grid.submit(os.getuid).result(30) > 0  # the node is well
