"""What the tests of back ends share: coroutine tests, and the contract suite as a module."""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path

import pytest

TEST_S = 30.0  # after which a test that hangs is ended

# Test files are imported by themselves; what they share is made importable here.
sys.path.insert(0, str(Path(__file__).parent))
for _name in ("compute_bench", "compute_contract"):
    pytest.register_assert_rewrite(_name)
    import_module(_name)
sys.path.pop(0)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test; fail it for tasks it leaves and for errors that reached the loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(_run(lambda: pyfuncitem.obj(**arguments)))
    return True


async def _run(test: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    unhandled: list[str] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(str(context)))
    async with asyncio.timeout(TEST_S):
        await test()
        for _ in range(20):  # what was cancelled or closed needs some turns of the loop
            await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert left == []
    assert unhandled == []
