"""What back ends promise, as test suites that a back end of your own can be put through.

``contracts.compute.BackendContract`` is for compute nodes, ``contracts.data.DataBackendContract``
and ``DurableBackendContract`` for data nodes, ``contracts.hostile.HostileContract`` for back ends
that isolate (level 1 and above). They need pytest and nothing else that nodes do not need;
coroutine tests are run by a plugin. In ``conftest.py`` beside the tests:

    pytest_plugins = ["alpyne_grid.tools.contracts.plugin"]
"""
