"""The worker runtime: what runs a client's programs, in processes of its own.

Pure Python on the standard library, cloudpickle, msgpack and ``alpyne_proto``'s frames and codec,
so that the folder can be mounted into any image that has Python. Its modules name each other
relatively: a worker loads them as the package ``alpyne_worker`` (see ``boot.py``), without the
packages around this folder. Daemons use ``tree.py`` from here and nothing that unpickles.
"""
