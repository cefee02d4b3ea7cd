"""Compute nodes: a durable queue of jobs, run in workers by a back end."""
