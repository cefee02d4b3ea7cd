"""The real parts that tests, figures and the main job need beyond Python: `./dev parts`.

    docker       an engine of this checkout's own, with an image of the running Python
    mongodb      MongoDB's server, and a replica set of three with authentication
    bubblewrap   namespaces for processes without an engine

README.md in this folder says what tests get of them. The engine and the set of `./dev parts` are
shared by all who use the checkout; what a test stops or kills is its own.
"""
