"""Values to bytes and back: pickled (protocol 5, out-of-band buffers) or plain."""

import pickle
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Any

from alpyne_proto import codec, plain
from alpyne_proto.messages.job_terms import Cause, ResultCodec
from alpyne_proto.messages.program import Buffer
from alpyne_proto.registry import Message

from .failures import ProgramFailed, type_name

OUT_OF_BAND_MIN = 16 * 1024  # smaller buffers are cheaper inside the pickle
_ROW = Struct(">HI")
Piece = bytes | bytearray | memoryview


def cloud_pickle() -> Any:
    """Return cloudpickle, which most results do not need."""
    import cloudpickle

    return cloudpickle


def dump(value: Any, *, by_value: bool = False) -> tuple[bytes, list[memoryview]]:
    """Return the pickle of ``value`` and its large buffers.

    ``by_value``: classes and functions of the program travel with it (cloudpickle at once, where
    plain pickle would refer to modules that the manager does not have).
    Raises what the value's own pickling raises.
    """
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if len(raw) < OUT_OF_BAND_MIN:
            return True
        buffers.append(raw)
        return False

    if not by_value:
        try:
            return pickle.dumps(value, 5, buffer_callback=keep), buffers
        except Exception:  # what is defined in the main script needs cloudpickle
            buffers.clear()
    data: bytes = cloud_pickle().dumps(value, protocol=5, buffer_callback=keep)
    return data, buffers


def load(data: Piece, buffers: Iterable[Piece] = ()) -> Any:
    """Return the value that a client pickled. Only workers do this."""
    return pickle.loads(data, buffers=[bytearray(buffer) for buffer in buffers])


def pickle_exception(raised: BaseException) -> bytes:
    """Return ``raised`` pickled without buffers, tried in both directions.

    Exceptions with arguments of their own often pickle and then fail to load, at the manager.
    """
    try:
        data = pickle.dumps(raised, 5)
    except Exception:
        data = cloud_pickle().dumps(raised, protocol=5)
    pickle.loads(data)
    return data


class Encoder:
    """Encodes the values of one job by its codec."""

    def __init__(self, by: ResultCodec, *, by_value: bool = False) -> None:
        self.codec = by
        self._by_value = by_value

    def encode(self, value: Any) -> tuple[bytes, list[memoryview]]:
        """Return the encoded value and its buffers.

        Raises ProgramFailed, cause UNPICKLABLE_RESULT or UNSAFE_RESULT, naming the type.
        """
        if self.codec is ResultCodec.PLAIN:
            try:
                return plain.encode(value), []
            except plain.UnsafeValue as error:
                raise ProgramFailed(Cause.UNSAFE_RESULT, str(error)) from None
        try:
            return dump(value, by_value=self._by_value)
        except BaseException as error:  # a value's own methods may raise anything
            raise ProgramFailed(
                Cause.UNPICKLABLE_RESULT,
                f"the result, {type_name(value)}, cannot be pickled: "
                f"{type(error).__name__}: {error}; return plain data instead",
                error,
            ) from None

    def pickler(self) -> Any:
        """Return the function that pickles exceptions, or None: a plain result has no pickles."""
        return None if self.codec is ResultCodec.PLAIN else pickle_exception


class Body:
    """A result on its way out: rows as pieces, with their size."""

    def __init__(self) -> None:
        self.pieces: list[Piece | Iterator[Piece]] = []
        self.size = 0

    def add(self, row: Message, payload: Piece = b"") -> None:
        """Append a row."""
        self.add_streamed(row, (payload,), len(payload))

    def add_streamed(self, row: Message, payload: Iterable[Piece], size: int) -> None:
        """Append a row whose payload of ``size`` bytes is made when it is sent."""
        meta = codec.encode(row)
        self.pieces += (_ROW.pack(len(meta), size) + meta, iter(payload))
        self.size += _ROW.size + len(meta) + size

    def add_value(self, row: Message, value: tuple[bytes, Sequence[memoryview]]) -> None:
        """Append the row of an encoded value and the rows of its buffers."""
        self.add(row, value[0])
        for buffer in value[1]:
            self.add(Buffer(), buffer)

    def __iter__(self) -> Iterator[Piece]:
        for piece in self.pieces:
            if isinstance(piece, (bytes, bytearray, memoryview)):
                yield piece
            else:
                yield from piece
