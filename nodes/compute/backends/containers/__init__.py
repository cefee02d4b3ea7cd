"""The back end ``docker``: workers in containers, isolation level 2.

    daemon --closed verbs--> launcher --Docker Engine API--> engine --> containers
    daemon --frames---------------------------------------------------> workers inside

The daemon, which faces the network, cannot open the engine's socket (``confine.py``); the launcher,
a process of its own, can, and takes nothing but the verbs of ``verbs.py``. Only the launcher
imports the package ``docker``.
"""
