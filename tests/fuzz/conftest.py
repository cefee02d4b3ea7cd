"""Strategies that come from the registry: what is declared is what is tried."""

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from alpyne_proto import messages
from alpyne_proto.fields import Bits, Blob, Choice, Flag, ListOf, Real, Struct, Text, Uint
from alpyne_proto.registry import MESSAGES, STRUCTS, Message, Spec

assert messages  # importing them fills the registry

_LIST_MOST = 4  # enough to find what a list does wrong, and no more than fits into meta
_TEXT_MOST = 60


def _of_kind(kind: Any) -> st.SearchStrategy[Any]:
    """Return values that a kind takes, its bounds often among them."""
    if isinstance(kind, Uint):
        most = (1 << kind.bits) - 1
        return st.one_of(st.sampled_from([0, 1, most]), st.integers(0, most))
    if isinstance(kind, Blob):
        sizes = st.binary(min_size=kind.least, max_size=min(kind.most, kind.least + _TEXT_MOST))
        return st.one_of(sizes, st.just(b"")) if kind.or_empty else sizes
    if isinstance(kind, Text):
        texts = st.text(st.characters(codec="utf-8"), max_size=min(kind.most // 4, _TEXT_MOST))
        return st.one_of(texts, st.text(string.printable, max_size=min(kind.most, _TEXT_MOST)))
    if isinstance(kind, Choice):
        return st.sampled_from(list(kind.enum))
    if isinstance(kind, Bits):
        return st.integers(0, kind.mask).map(lambda bits: bits & kind.mask)
    if isinstance(kind, ListOf):
        size = min(kind.most, _LIST_MOST)
        return st.lists(_of_kind(kind.item), max_size=size).map(tuple)
    if isinstance(kind, Struct):
        return _of_spec(STRUCTS[kind.name])
    if isinstance(kind, Real):
        return st.floats(allow_nan=False, allow_infinity=False, width=32)
    assert isinstance(kind, Flag)
    return st.booleans()


def _of_spec(spec: Spec) -> st.SearchStrategy[Any]:
    fields = {
        field.name: _of_kind(field.kind)
        if field.required
        else st.one_of(st.just(field.default), _of_kind(field.kind))
        for field in spec.fields
    }
    return st.builds(spec.cls, **fields)


_STRATEGIES = {spec.cls: _of_spec(spec) for spec in MESSAGES.values()}


@pytest.fixture(scope="session")
def of() -> Callable[..., st.SearchStrategy[Message]]:
    """Give a strategy of the messages of some classes."""

    def of_classes(*classes: type[Message]) -> st.SearchStrategy[Message]:
        return st.one_of([_STRATEGIES[cls] for cls in classes])

    return of_classes
