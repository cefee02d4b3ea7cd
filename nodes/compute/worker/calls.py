"""The forms CALL and MAP: a pickled function over arguments."""

from collections.abc import Callable, Iterator
from typing import Any

from alpyne_proto.jobobject import into_path, loaded
from alpyne_proto.messages.program import Arguments, Items, Value, Values
from alpyne_proto.registry import Message

from .failures import item_failed_row
from .objects import ObjectClient
from .program import Functions, arguments, expect, function_of
from .values import Body, Encoder

Source = Iterator[tuple[Message, memoryview]]
_Failed = tuple[int, BaseException]  # an item's index in the map, and what it raised
_GOES_ON = (Exception, SystemExit)  # an item may raise these without harm to the others


def run_call(source: Source, functions: Functions, encoder: Encoder) -> Body:
    """Call a function once and return its value's rows; raises what it raises."""
    function = function_of(source, functions)
    row, payload = expect(source, Arguments)
    args, kwargs = arguments(row, payload, source)
    body = Body()
    add_value(body, encoder, function(*args, **kwargs))
    return body


def add_value(body: Body, encoder: Encoder, value: Any) -> None:
    """Append the Value row of ``value`` and its buffers; ProgramFailed where it has no bytes."""
    data, buffers = encoder.encode(value)
    body.add_value(Value(buffers=len(buffers)), (data, buffers))


def run_map(
    source: Source,
    functions: Functions,
    encoder: Encoder,
    objects: ObjectClient,
    ends_all: Callable[[BaseException], bool],
) -> Body:
    """Call a function on each item of a chunk and return one outcome per item.

    An item that raises is an ItemFailed row; the others are not hurt, unless ``ends_all`` says of
    what it raised that it is the chunk's. Values stand in runs of neighbours, one row for each.
    """
    function = function_of(source, functions)
    row, payload = expect(source, Items)
    items = arguments(row, payload, source)
    done: list[tuple[int, Any]] = []
    failed: list[_Failed] = []
    for index, item in enumerate(items, row.first):
        try:
            value = function(*(map(loaded, item) if row.load else item))
            if row.into:
                value = _write_value(objects, row, index, encoder, value)
        except _GOES_ON as error:
            if ends_all(error):
                raise
            failed.append((index, error))
        else:
            done.append((index, value))
    body = Body()
    for run in _runs(done):
        failed += _add_values(body, encoder, run)
    for index, raised in failed:
        body.add(*item_failed_row(index, raised, encoder.pickler()))
    return body


def _write_value(
    objects: ObjectClient, row: Items, index: int, encoder: Encoder, value: Any
) -> Any:
    """Write a value as a value object and return the reference, which either codec can carry."""
    body = Body()
    add_value(body, encoder, value)
    path = into_path(row.into_prefix, index)
    return objects.write(row.into, path, body, row.copies, int(encoder.codec)).as_plain()


def _runs(done: list[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    """Yield the neighbours in ``done`` whose indexes follow one another."""
    start = 0
    for at in range(1, len(done) + 1):
        if at == len(done) or done[at][0] != done[at - 1][0] + 1:
            yield done[start:at]
            start = at


def _add_values(body: Body, encoder: Encoder, run: list[tuple[int, Any]]) -> list[_Failed]:
    """Append a run of values as one row; where that fails, find the values that are at fault."""
    try:
        data, buffers = encoder.encode([value for _, value in run])
    except _GOES_ON as error:
        if len(run) == 1:
            return [(run[0][0], _of_one(encoder, run[0][1], error))]
        middle = len(run) // 2
        return _add_values(body, encoder, run[:middle]) + _add_values(body, encoder, run[middle:])
    row = Values(first=run[0][0], count=len(run), buffers=len(buffers))
    body.add_value(row, (data, buffers))
    return []


def _of_one(encoder: Encoder, value: Any, error: BaseException) -> BaseException:
    """Return the failure of a value by itself, whose text names its type and not the list's."""
    try:
        encoder.encode(value)
    except _GOES_ON as own:
        return own
    return error
