"""What the log shows, and what it never shows."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
from alpyne_grid.wire import Log, configure, log_loop_errors
from alpyne_grid.wire.log import place_of

from alpyne_proto.errors import RecordError


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logger = logging.getLogger("alpyne")
    before = (logger.handlers[:], logger.propagate, logger.level)
    configure(stream, level="DEBUG")
    yield stream
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def test_log_writes_one_json_object_per_event_when_the_stream_is_no_terminal(
    lines: io.StringIO,
) -> None:
    log = Log("wire.test", node="abc").bind(connection="01")
    log.info("opened", streams=3, ok=True)
    written = json.loads(lines.getvalue())
    assert written.pop("time").endswith("Z")
    assert written == {
        "level": "info", "logger": "alpyne.wire.test", "event": "opened",
        "node": "abc", "connection": "01", "streams": 3, "ok": True,
    }  # fmt: skip


def test_log_writes_plain_pairs_when_the_stream_is_a_terminal() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("alpyne")
    before = (logger.handlers[:], logger.propagate)
    configure(stream, as_json=False)
    Log("wire").warning("slow", text="two words", number=1)
    logger.handlers[:], logger.propagate = before
    assert stream.getvalue().split(" ", 1)[1] == 'warning slow text="two words" number=1\n'


def test_log_shows_ids_as_hex_and_of_longer_bytes_only_their_number(lines: io.StringIO) -> None:
    Log("wire").info("job", id=bytes(range(16)), key=bytes(32), view=memoryview(b"\xff"))
    written = json.loads(lines.getvalue())
    assert written["id"] == bytes(range(16)).hex()
    assert written["key"] == "(32 bytes)"
    assert written["view"] == "ff"


def test_log_keeps_an_event_on_one_short_line_when_a_text_is_hostile(lines: io.StringIO) -> None:
    Log("wire").info("name", text="a\nb\x1b[2J" + "x" * 5000)
    text = json.loads(lines.getvalue())["text"]
    assert text.startswith("a?b?[2Jxxx")
    assert len(text) < 310
    assert lines.getvalue().count("\n") == 1


def test_log_shows_the_text_of_our_own_errors_only(lines: io.StringIO) -> None:
    Log("wire").info("failed", ours=RecordError("tag wrong"), theirs=KeyError("secret"))
    written = json.loads(lines.getvalue())
    assert written["ours"] == "RecordError: tag wrong"
    assert written["theirs"] == "KeyError"


async def test_what_nobody_caught_becomes_one_event_without_a_traceback(
    lines: io.StringIO,
) -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    log_loop_errors(loop, Log("node"))
    loop.call_soon(lambda: {}["payload"])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.set_exception_handler(before)
    written = json.loads(lines.getvalue())
    assert written["event"] == "uncaught"
    assert written["error"] == "KeyError"
    assert written["at"].startswith("test_log.py:")
    assert "Traceback" not in lines.getvalue()
    assert "payload" not in lines.getvalue()


def test_place_of_names_files_and_lines_innermost_first() -> None:
    def inner() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x") as raised:
        inner()
    places = place_of(raised.value).split(" < ")
    assert len(places) == 2
    assert all(place.startswith("test_log.py:") for place in places)
