"""What can be wrong at a node's start; each message says what to do.

AlpyneError
├── StateError    the state folder cannot be used
├── ConfigError   an option, environment variable or file entry cannot be used
└── StoreFailed   a commit failed (nodes/store.py)
"""

from alpyne_proto.errors import AlpyneError, ErrorCode


class StateError(AlpyneError):
    """The node's state folder cannot be used."""

    code = ErrorCode.STORE_FAILED


class ConfigError(AlpyneError):
    """A node's configuration cannot be used."""

    code = ErrorCode.BAD_REQUEST
