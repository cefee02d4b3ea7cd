"""The registry: what may be declared, and that what is declared keeps its own rules."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from alpyne_proto import limits
from alpyne_proto.errors import ErrorCode, LocalProtocolError
from alpyne_proto.fields import U8, Blob, Choice, ListOf, Struct, Text
from alpyne_proto.frame import FrameType
from alpyne_proto.registry import (
    MESSAGES,
    STRUCTS,
    Field,
    Message,
    Role,
    Shape,
    Spec,
    State,
    message,
    struct,
)

ALL = [*MESSAGES.values(), *STRUCTS.values()]
IDS = [spec.name for spec in ALL]


@pytest.fixture(autouse=True)
def _unchanged() -> Any:
    """Leave the registry as it was."""
    messages, structs = dict(MESSAGES), dict(STRUCTS)
    yield
    for registered, before in ((MESSAGES, messages), (STRUCTS, structs)):
        registered.clear()
        registered.update(before)  # type: ignore[arg-type]


def test_message_is_registered_under_its_code() -> None:
    @message(0xF000, shape=Shape.REQUEST, sender=Role.NODE, states=(State.OPEN,), answers=(0x0A,))
    @dataclass(frozen=True, slots=True)
    class Example(Message):
        """An example."""

        one: Annotated[int, Field(2, U8, "a number")]
        two: Annotated[str, Field(3, Text(5), "a text")] = ""

    spec = MESSAGES[0xF000]
    assert spec.cls is Example
    assert Example.SPEC is spec
    assert [(f.key, f.name, f.required) for f in spec.fields] == [
        (2, "one", True),
        (3, "two", False),
    ]


def test_code_that_is_taken_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="taken by Done"):

        @message(0x0A, shape=Shape.RESPONSE)
        @dataclass(frozen=True, slots=True)
        class Again(Message):
            """It comes too late."""


@pytest.mark.parametrize(("first", "second"), [(2, 2), (4, 2), (0, 2)])
def test_keys_that_do_not_rise_from_one_are_refused(first: int, second: int) -> None:
    with pytest.raises(LocalProtocolError, match="rise"):

        @struct
        @dataclass(frozen=True, slots=True)
        class Wrong:
            """Its keys do not rise."""

            one: Annotated[int, Field(first, U8, "")] = 0
            two: Annotated[int, Field(second, U8, "")] = 0


@pytest.mark.parametrize("spec", ALL, ids=IDS)
def test_message_says_what_it_is_and_each_field_what_it_means(spec: Spec) -> None:
    assert spec.cls.__doc__
    assert not spec.cls.__doc__.startswith(f"{spec.name}(")
    assert all(field.text for field in spec.fields)


@pytest.mark.parametrize("spec", ALL, ids=IDS)
def test_message_is_frozen_and_slotted(spec: Spec) -> None:
    assert spec.cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__dict__" not in dir(spec.cls)


@pytest.mark.parametrize("spec", ALL, ids=IDS)
def test_defaults_lie_within_their_own_kinds(spec: Spec) -> None:
    for field in spec.fields:
        if not field.required:
            assert field.kind.check(field.default, field.name) == field.default


@pytest.mark.parametrize("spec", ALL, ids=IDS)
def test_message_has_no_more_fields_than_a_map_may_have_keys(spec: Spec) -> None:
    assert len(spec.fields) < limits.META_KEYS


@pytest.mark.parametrize("spec", MESSAGES.values(), ids=[s.name for s in MESSAGES.values()])
def test_codes_that_a_message_names_are_of_the_right_shape(spec: Spec) -> None:
    for code in spec.answers:
        assert MESSAGES[code].shape is Shape.RESPONSE
    for code in (*spec.rows, *spec.answer_rows):
        assert MESSAGES[code].shape is Shape.ROW
    if spec.answers:
        assert spec.shape is Shape.REQUEST
    if spec.rows:
        assert spec.body or spec.shape is Shape.RESPONSE
    if spec.payload_max:
        assert spec.shape is Shape.ROW


@pytest.mark.parametrize("spec", MESSAGES.values(), ids=[s.name for s in MESSAGES.values()])
def test_answers_are_legal_wherever_their_requests_are(spec: Spec) -> None:
    for code in spec.answers:
        assert spec.states <= MESSAGES[code].states


@pytest.mark.parametrize("spec", MESSAGES.values(), ids=[s.name for s in MESSAGES.values()])
def test_travelling_requests_have_an_answer(spec: Spec) -> None:
    if spec.shape is Shape.REQUEST and State.WORKER not in spec.states:
        assert spec.answers, "nobody could answer it but with Error"


def test_interrupts_fit_into_their_maximum() -> None:
    for spec in MESSAGES.values():
        if spec.shape is Shape.INTERRUPT:
            assert most(spec) + limits.FRAME_HEADER <= limits.INTERRUPT_MAX


def test_control_messages_fit_beside_bulk() -> None:
    beside = limits.RECORD_PLAIN_MAX - limits.BULK_DATA_MAX - 20
    for spec in MESSAGES.values():
        if spec.shape is Shape.CONTROL:
            assert most(spec) + limits.FRAME_HEADER <= beside


def most(spec: Spec) -> int:
    """Return a bound of the bytes that a message's meta may have."""
    return 8 + sum(2 + most_of(field.kind) for field in spec.fields)


def most_of(kind: Any) -> int:
    if isinstance(kind, Blob | Text):
        return kind.most + 5
    if isinstance(kind, ListOf):
        return 5 + kind.most * most_of(kind.item)
    if isinstance(kind, Struct):
        return most(STRUCTS[kind.name])
    return 9


def test_numbers_of_frames_and_errors_are_even_and_unique() -> None:
    assert all(type % 2 == 0 for type in FrameType)
    assert len({code.value for code in ErrorCode}) == len(ErrorCode.__members__)


def test_choices_name_enumerations_with_unique_numbers() -> None:
    for spec in ALL:
        for field in spec.fields:
            if isinstance(field.kind, Choice):
                members = field.kind.enum.__members__.values()
                assert len({int(member) for member in members}) == len(members)
