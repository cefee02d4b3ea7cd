"""All messages of the protocol; importing this package fills the registry."""

from alpyne_proto.messages import access, compute, control, data, hello, program, worker

__all__ = ["access", "compute", "control", "data", "hello", "program", "worker"]
