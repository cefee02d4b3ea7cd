"""spec/PROTOCOL.md and the code name the same things."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest

import alpyne_proto.messages  # noqa: F401 - fills the registry
from alpyne_proto import (
    errors,
    fields,
    frame,
    limits,
    preface,
    record,
    registry,
    streams,
    table,
    ticket,
)
from alpyne_proto.messages import access, compute, control, data, hello
from alpyne_proto.registry import MESSAGES, STRUCTS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "spec/PROTOCOL.md").read_text("utf-8")
# What is written by people; the generated tables are made from the code anyway.
PROSE = re.sub(r"<!-- generated: .*?<!-- end -->", "", TEXT, flags=re.DOTALL)
VECTORS = "".join(path.read_text("utf-8") for path in (ROOT / "spec/vectors").glob("*.json"))

WORD = r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\b[A-Z]{3,}\b"  # FRAME_ERROR, OPEN
QUOTED = re.compile(r"`([^`\n]+)`")
# RFC 2119, the words of other protocols and of cryptography.
FOREIGN = {
    *("MUST", "SHOULD", "MAY", "NOT", "ALPYNE", "BEGIN", "PRIVATE", "KEYS", "DEVICE", "HELLO"),
    *("ASCII", "UTF", "TCP", "TCP_NODELAY", "RFC", "QUIC", "CVE", "CRIME", "GREASE"),
    *("AES", "GCM", "SHA", "AEAD", "REKEY", "KEM"),
}
# Quoted words that are parts of the layouts written in the text.
LAYOUT = {"host_label", "length", "route", "h", "true", "false", "array"}
# Attributes of a compute node's offer, and their values.
OFFER = {"images", "networks", "isolation", "suspend", "kernel", "sampled", "signals", "none"}


def enums_of(*modules: object) -> Iterator[type[Enum]]:
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Enum):
                yield value


MODULES = (
    *(errors, frame, preface, record, registry, streams, table, ticket),
    *(access, compute, control, data, hello),
)
ENUMS = {enum.__name__: enum for enum in enums_of(*MODULES)}
CAPITALS = {name for name in vars(limits) if name.isupper()} | {
    member.name for enum in ENUMS.values() for member in enum
}
CLASSES = {spec.name for spec in MESSAGES.values()} | set(STRUCTS) | set(ENUMS)
FIELDS = {f.name for spec in (*MESSAGES.values(), *STRUCTS.values()) for f in spec.fields}
KINDS = {f"u{bits}" for bits in (8, 16, 32, 64)} | {fields.REAL.label, fields.FLAG.label}


def test_every_name_in_capitals_exists() -> None:
    named = set(re.findall(WORD, PROSE)) - FOREIGN
    assert sorted(named - CAPITALS) == []
    assert "RECORD_MAX" in named


def test_every_quoted_message_struct_or_enumeration_exists() -> None:
    quoted = set(QUOTED.findall(PROSE))
    named = {text for text in quoted if re.fullmatch(r"([A-Z][a-z]+){1,4}", text)}
    assert sorted(named - CLASSES) == []
    assert {"Register", "SubmitJobs", "BodyDigest"} <= named


def test_every_quoted_field_exists() -> None:
    quoted = set(QUOTED.findall(PROSE))
    named = {text for text in quoted if re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", text)}
    assert sorted(named - FIELDS - KINDS - LAYOUT - OFFER) == []
    assert {"max_data", "expect", "retry_after_ms"} <= named


def test_every_connection_error_is_explained() -> None:
    violations = PROSE[PROSE.index("Which violation is which") :]
    wanted = {code.name for code in errors.ErrorCode if 0 < code < 32} - {"SHUTTING_DOWN"}
    assert sorted(name for name in wanted if name not in violations) == []


def test_every_section_that_the_code_cites_exists() -> None:
    headings = set(re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE))
    cited = re.compile(r'PROTOCOL\.md`?,?\s+(?:section\s+)?((?:"[^"]+"(?:,| and)?\s*)+)')
    missing = []
    for folder in ("alpyne_proto", "wire", "nodes", "manager", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for names in cited.findall(path.read_text("utf-8")):
                wanted = re.findall(r'"([^"]+)"', names)
                missing += [f"{path.name}: {name}" for name in wanted if name not in headings]
    assert missing == []


def test_every_link_within_the_page_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    assert sorted(set(re.findall(r"\]\(#([^)]+)\)", TEXT)) - anchors) == []


@pytest.mark.parametrize("example", sorted(set(re.findall(r"\b[0-9a-f]{24,}\b", PROSE))))
def test_example_bytes_stand_in_the_vectors(example: str) -> None:
    assert example in VECTORS
