"""The documents: every command and program in them is run as printed, every link goes somewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from alpyne_grid.manager.identity import create_account
from alpyne_grid.nodes.compute.job import MOVES
from alpyne_grid.tools.cluster import LocalCluster
from docs_pages import NotRun, Page, PageError, pages_below, read_page
from docs_session import Ran, Site, fits, run_page
from parts.inventory import problem

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path.relative_to(ROOT) for path in pages_below(ROOT)]
RUN = [
    pytest.param(path, marks=[getattr(pytest.mark, part) for part in read.parts])
    for path in PAGES
    if (read := read_page(ROOT / path)).runs
]
REASON_MIN = 15  # characters; "cannot" is none
IMAGE, OTHER_IMAGE = "python:3.12-slim", "python:3.12"  # the images that pages name

_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start the tutorial's nodes, for pages that take them as given; return their owner's home."""
    with LocalCluster(tmp_path_factory.mktemp("pool") / "nodes", create_account) as cluster:
        nodes = {"worker": "compute", "disk-1": "data", "disk-2": "data"}
        cluster.start_all([cluster.add(kind, name=name) for name, kind in nodes.items()])
        for daemon in cluster.daemons:
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "alpyne_grid",
                    "pair",
                    daemon.address,
                    "--name",
                    daemon.name,
                ],
                env={**os.environ, "ALPYNE_HOME": str(cluster.home)},
                check=True,
                capture_output=True,
            )
        yield cluster.home


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pool: Path
) -> Iterator[Mapping[Path, "Future[list[Ran]]"]]:
    """Run the pages that were asked for, two at a time: they mostly wait for processes to start."""
    asked = [item.callspec.params["path"] for item in request.session.items if RUNS in item.name]
    pages = {path: read_page(ROOT / path) for path in asked}
    runnable = {path: page for path, page in pages.items() if not any(map(problem, page.parts))}
    folders = {path: tmp_path_factory.mktemp(path.stem.lower()) for path in runnable}
    site = made_site(request, pool, {part for page in runnable.values() for part in page.parts})
    with ThreadPoolExecutor(2) as threads:
        yield {
            path: threads.submit(run_page, runnable[path], folder, site)
            for path, folder in folders.items()
        }


def made_site(request: pytest.FixtureRequest, pool: Path, parts: set[str]) -> Site:
    """Return what stands for the engine of pages, and the file with the URI of a replica set."""
    words: dict[str, str] = {}
    variables: dict[str, str] = {}
    if "docker" in parts:
        engine = request.getfixturevalue("engine")
        words |= {IMAGE: engine.image, OTHER_IMAGE: engine.other_image}
        words["--backend docker"] = f"--backend docker --docker-host {engine.host}"
    if "mongodb" in parts:
        mongo = request.getfixturevalue("make_mongo")(3)
        variables["DOCS_URI_FILE"] = str(mongo.uri_file)
    return Site(pool, words, variables)


@pytest.mark.integration
@pytest.mark.parametrize("path", RUN, ids=str)
def test_page_works_when_its_commands_are_run_as_printed(
    path: Path, runs: Mapping[Path, "Future[list[Ran]]"]
) -> None:
    problems = [ran.problem() for ran in runs[path].result()]
    assert not any(problems), "\n".join([f"{path}:", *filter(None, problems)])


RUNS = test_page_works_when_its_commands_are_run_as_printed.__name__


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_page_gives_a_reason_when_a_block_is_not_run(path: Path) -> None:
    steps = read_page(ROOT / path).steps
    reasons = [step.reason for step in steps if isinstance(step, NotRun)]
    assert all(len(reason) >= REASON_MIN for reason in reasons), reasons


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_page_links_only_to_what_is_there(path: Path) -> None:
    text = (ROOT / path).read_text()
    missing = []
    for match in _LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        place = ((ROOT / path).parent / target).resolve() if target else ROOT / path
        if not place.exists() or (anchor and anchor not in anchors(place)):
            missing.append(match["target"])
    assert not missing


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made from their text."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    docs = [path.relative_to("docs") for path in PAGES if path.parts[0] == "docs"]
    assert [
        str(path) for path in docs if f"({path})" not in index and path.name != "README.md"
    ] == []


def test_diagram_shows_the_moves_that_the_nodes_table_has() -> None:
    text = (ROOT / "docs" / "topics" / "job-life-cycle.md").read_text()
    drawn = re.findall(r"^    (\w+) --> (\w+)$", text, re.MULTILINE)
    told = re.findall(r"^\| ([A-Z]+) \| ([A-Z]+) \| (.*) \|$", text, re.MULTILINE)
    moves = [(before.name, after.name, why) for (before, after), why in MOVES.items()]
    assert drawn == [(before, after) for before, after, _ in moves]
    assert told == moves


# ---- the tools of these tests ----


def page(text: str, folder: Path) -> Page:
    path = folder / "page.md"
    path.write_text(text)
    return read_page(path)


def problems(text: str, folder: Path) -> list[str]:
    return [ran.problem() for ran in run_page(page(text, folder), folder / "run")]


def test_reader_refuses_a_block_when_nothing_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PageError, match="needs 'file' or 'not run'"):
        page("```ini\n[Unit]\n```\n", tmp_path)


def test_reader_refuses_a_command_when_it_stands_in_a_block_to_read(tmp_path: Path) -> None:
    with pytest.raises(PageError, match="holds a command"):
        page("```text\n$ rm -rf /\n```\n", tmp_path)


def test_session_keeps_variables_and_files_when_one_block_follows_another(tmp_path: Path) -> None:
    text = (
        "<!-- file: a.txt -->\n```text\nhello\n```\n"
        "```console\n$ name=a.txt\n```\n```console\n$ cat $name\nhel...\n```\n"
    )
    assert problems(text, tmp_path) == ["", ""]


def test_session_reports_a_command_when_it_fails_and_those_behind_it(tmp_path: Path) -> None:
    first, second = problems("```console\n$ false\n$ true\n```\n", tmp_path)
    assert "ended with 1, expected 0" in first
    assert "was not reached" in second


def test_session_reports_output_when_it_is_not_the_one_shown(tmp_path: Path) -> None:
    [problem] = problems("```console\n$ echo 1 2\n1 3\n```\n", tmp_path)
    assert "should print:" in problem


def test_session_gives_each_machine_its_home_when_a_file_is_copied_there(tmp_path: Path) -> None:
    text = (
        "<!-- machines: lab -->\n```console\n$ echo hi > note\n$ scp note lab:\n"
        "lab$ cat ~/note\nhi\nlab$ echo lab.example.org\n1...\n$ ls\nnote\n```\n"
    )
    assert problems(text, tmp_path) == [""] * 5


@pytest.mark.parametrize(
    ("wanted", "printed", "expected"),
    [
        ("a ... c", "a  b\nc", True),
        ("a", "a b", False),
        ("...b.", "a (bc", False),
        ("1.5", "1x5", False),
    ],
)
def test_fits_compares_words_when_dots_stand_for_anything(
    wanted: str, printed: str, expected: bool
) -> None:
    assert fits(wanted, printed) is expected


def test_session_puts_what_is_here_for_the_words_of_a_page(tmp_path: Path) -> None:
    read = page(
        "<!-- parts: docker -->\n```console\n$ echo python:3.12-slim $MORE\nmine 1\n```\n", tmp_path
    )
    assert read.parts == ("docker",)
    [ran] = run_page(read, tmp_path / "run", Site(words={IMAGE: "mine"}, variables={"MORE": "1"}))
    assert ran.problem() == ""
