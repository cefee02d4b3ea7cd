"""The options of the back end docker."""

import sys

import pytest
from alpyne_grid.nodes.compute.backends.containers.settings import read_settings
from alpyne_grid.nodes.errors import ConfigError


def test_settings_have_defaults_when_nothing_is_said() -> None:
    settings = read_settings({})
    assert settings.images == (f"python:{sys.version_info.major}.{sys.version_info.minor}-slim",)
    assert settings.networks == ()
    assert settings.host == "unix:///var/run/docker.sock"
    assert settings.defaults.processes > 0
    assert settings.defaults.disk_bytes > 0


def test_first_image_is_the_default_and_each_stands_once() -> None:
    assert read_settings({"image": ("a:1", "b:2", "a:1")}).images == ("a:1", "b:2")


def test_limits_of_jobs_are_read() -> None:
    options = {"job-memory": ("1GiB",), "job-processes": ("32",), "job-disk": ("64MiB",)}
    defaults = read_settings(options).defaults
    assert defaults == (1 << 30, 32, 64 << 20)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"docker-host": ("tcp://10.0.0.1:2375",)}, "unix:///PATH"),
        ({"docker-host": ("ssh://me@there",)}, "unix:///PATH"),
        ({"docker-host": ("unix:///a", "unix:///b")}, "one value"),
        ({"image": ("--privileged",)}, "image: expected a name"),
        ({"image": ("",)}, "image: expected a name"),
        ({"network": ("host",)}, "docker network create"),
        ({"network": ("none",)}, "docker network create"),
        ({"network": ("container:abc",)}, "network: expected a name"),
        ({"job-memory": ("much",)}, "job-memory: expected a number"),
        ({"job-disk": ("1KiB",)}, "job-disk: expected a number"),
    ],
)
def test_settings_are_refused_and_say_what_was_expected(
    options: dict[str, tuple[str, ...]], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        read_settings(options)
