"""Which handler serves which request of a data node."""

from collections.abc import Awaitable, Callable, Mapping

from alpyne_grid.nodes.data.asking import Gate
from alpyne_grid.nodes.data.backends.base import DataBackend
from alpyne_grid.nodes.data.driver import ObjectDriver
from alpyne_grid.nodes.data.reading import Reading
from alpyne_grid.nodes.data.traffic import Traffic
from alpyne_grid.nodes.data.writing import Writing
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.wire import Handler, Request

from alpyne_proto.errors import ErrorCode, Outcome
from alpyne_proto.messages import data as messages
from alpyne_proto.registry import Message

Handling = Callable[[Request], Awaitable[None]]


def data_handlers(
    driver: ObjectDriver, backend: DataBackend, gate: Gate, traffic: Traffic
) -> Mapping[type[Message], Handler]:
    """Return the handlers of all data messages."""
    writing = Writing(driver, backend, gate, traffic)
    reading = Reading(backend, gate, traffic)
    handlers: Mapping[type[Message], Handling] = {
        messages.PutContainer: writing.put_container,
        messages.GetContainer: reading.get_container,
        messages.ListContainers: reading.list_containers,
        messages.PutObject: writing.put,
        messages.GetObject: reading.get,
        messages.StatObject: reading.stat,
        messages.ListObjects: reading.list_objects,
        messages.DeleteObject: writing.delete,
    }
    return {message: _saying_what_failed(handler) for message, handler in handlers.items()}


def _saying_what_failed(handler: Handling) -> Handler:
    """Answer with what the store says where it gives no answer: it may be another machine."""

    async def handle(request: Request) -> None:
        try:
            await handler(request)
        except StoreFailed as error:
            request.fail(ErrorCode.STORE_FAILED, str(error), retryable=True, outcome=Outcome.MAYBE)

    return handle
