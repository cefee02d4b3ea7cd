"""A pytest plugin for the contracts: runs coroutine tests, and shows what their asserts compared.

A ``conftest.py`` names it: ``pytest_plugins = ["alpyne_grid.tools.contracts.plugin"]``. It must be
loaded before the contracts are imported, which is so there. A coroutine test has ``WITHIN_S``
seconds, or what the attribute ``within_s`` of its class says; it fails for tasks that it leaves
and for errors that nobody took.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

import pytest

WITHIN_S = 60.0  # after which a test that hangs is ended
TURNS = 20  # of the loop, in which what was closed or called late shows its errors
GRACE_S = 2.0  # for tasks that were cancelled to end

for _part in ("compute", "data", "hostile"):
    pytest.register_assert_rewrite(f"alpyne_grid.tools.contracts.{_part}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test; leave any other to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    within_s = float(getattr(pyfuncitem.cls, "within_s", WITHIN_S))
    asyncio.run(_run(lambda: pyfuncitem.obj(**arguments), within_s))
    return True


async def _run(test: Callable[[], Awaitable[None]], within_s: float) -> None:
    loop = asyncio.get_running_loop()
    unhandled: list[str] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(str(context)))
    async with asyncio.timeout(within_s):
        await test()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    deadline = loop.time() + GRACE_S
    while _left() and loop.time() < deadline:
        await asyncio.sleep(0.001)
    assert _left() == []
    assert unhandled == []


def _left() -> list["asyncio.Task[object]"]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
