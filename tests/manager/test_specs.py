"""The rows that jobs are submitted by."""

from dataclasses import replace
from typing import Any

import pytest
from alpyne_grid.manager import program as programs
from alpyne_grid.manager.bundle import Bundle
from alpyne_grid.manager.options import CheckedOptions, JobOptions
from alpyne_grid.manager.specs import Work, row_for

from alpyne_proto.codec import read_rows
from alpyne_proto.messages.compute import JobSpec, ResultCodec

ONE, OTHER = b"1" * 16, b"2" * 16
PLAIN_OPTIONS = CheckedOptions()


def spec_of(work: Work, allocation: int = 1, *, trusted: bool = True) -> tuple[JobSpec, bytes]:
    identity: Any = None  # only tickets are signed
    row = row_for(work, allocation, trusted=trusted, holder=b"h" * 32, identity=identity, routes={})
    ((spec, payload),) = read_rows(row, (JobSpec.SPEC.code,))
    assert isinstance(spec, JobSpec)
    return spec, payload


def call(job_id: bytes, options: CheckedOptions = PLAIN_OPTIONS, argument: int = 0) -> Work:
    return Work(job_id, programs.call(spec_of, (argument,), {}), options)


def test_specs_of_calls_of_one_function_differ_by_their_ids_and_arguments_alone() -> None:
    one, other = call(ONE, argument=1), call(OTHER, argument=22)
    first, second = spec_of(one), spec_of(other)
    assert second == (replace(first[0], job_id=OTHER), other.program.payload)
    assert first[1] == one.program.payload


@pytest.mark.parametrize(
    ("changed", "name", "expected"),
    [
        (call(OTHER, JobOptions(timeout=5).checked()), "timeout_ms", 5_000),
        (call(OTHER, JobOptions(tags=("t",)).checked()), "tags", ("t",)),
        (replace(call(OTHER), bundle=Bundle(b"zip", b"s" * 32, ("a.py",))), "bundle", b"s" * 32),
        (replace(call(OTHER), group=b"g" * 16), "group", b"g" * 16),
    ],
)
def test_spec_has_what_changed_when_a_job_follows_one_that_is_nearly_alike(
    changed: Work, name: str, expected: object
) -> None:
    spec_of(call(ONE))
    spec, _ = spec_of(changed)
    assert (spec.job_id, getattr(spec, name)) == (OTHER, expected)


def test_spec_has_its_own_allocation_and_codec_when_the_job_moves() -> None:
    spec_of(call(ONE))
    spec, _ = spec_of(call(ONE), 2, trusted=False)
    assert (spec.allocation, spec.codec) == (2, ResultCodec.PLAIN)


def test_spec_names_its_payload_by_hash_when_that_is_too_large_for_the_row() -> None:
    spec_of(call(ONE))
    large = Work(OTHER, programs.call(len, (b"x" * 2_000_000,), {}), PLAIN_OPTIONS)
    spec, payload = spec_of(large)
    assert (spec.payload_sha256, payload) == (large.payload_sha256, b"")
    assert len(spec.payload_sha256) == 32
