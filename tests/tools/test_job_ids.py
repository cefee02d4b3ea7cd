"""Job ids as people type them."""

import pytest
from alpyne_grid.tools.job_ids import (
    JobAmbiguous,
    JobNotFound,
    find,
    full_text,
    parse_full,
    short_texts,
)
from hypothesis import given
from hypothesis import strategies as st


def job(journal: str, counter: int) -> bytes:
    return bytes.fromhex(journal.ljust(16, "0")) + counter.to_bytes(8)


A1 = job("3f9c11", 1)
A17 = job("3f9c11", 17)
B1 = job("3f9caa", 1)
C1 = job("77", 1)
ALL = [A1, A17, B1, C1]


@given(st.binary(min_size=16, max_size=16))
def test_parse_full_reads_both_forms(job_id: bytes) -> None:
    assert parse_full(full_text(job_id)) == job_id
    assert parse_full(job_id.hex()) == job_id


@pytest.mark.parametrize("text", ["", "-", "3f9c-1", "zz", "3f9c110000000000-x", "00-99" * 9])
def test_parse_full_gives_none_when_the_id_is_not_whole(text: str) -> None:
    assert parse_full(text) is None


def test_short_texts_tell_journals_apart() -> None:
    assert list(short_texts(ALL).values()) == ["3f9c1-1", "3f9c1-17", "3f9ca-1", "77000-1"]
    assert short_texts([C1]) == {C1: "7700-1"}


def test_find_takes_every_short_text() -> None:
    assert [find(text, ALL) for text in short_texts(ALL).values()] == ALL


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("7-1", C1), ("77", C1), ("3F9C1-17", A17), ("3f9c-17", A17), (C1.hex(), C1)],
)
def test_find_takes_any_start_that_one_job_fits(text: str, wanted: bytes) -> None:
    assert find(text, ALL) == wanted


def test_find_names_the_candidates_when_several_jobs_fit() -> None:
    with pytest.raises(JobAmbiguous, match="3f9c110000000000-1, 3f9caa0000000000-1"):
        find("3f9c-1", ALL)


@pytest.mark.parametrize("text", ["3f9c-2", "-1", "", "8"])
def test_find_refuses_an_id_that_no_job_has(text: str) -> None:
    with pytest.raises(JobNotFound, match="alpyne jobs"):
        find(text, ALL)
