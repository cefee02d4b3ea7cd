"""Coroutine tests, and asserts of the contracts that show what they compared."""

pytest_plugins = ["alpyne_grid.tools.contracts.plugin"]
