"""What the main job runs on the nodes: small functions over objects.

This module and ``analysis`` travel to the nodes with the job, as everything beside the main script
that it imports does; nothing of this folder is installed there.
"""

import analysis

from alpyne_proto.jobobject import JobObject


def is_wanted(source: JobObject) -> bool:
    """Return whether a source file may hold definitions; reads it from its data node."""
    return analysis.has_definitions(source.read())


def report_of(source: JobObject) -> analysis.Report:
    """Return the report of one source file, read from its data node."""
    return analysis.analyse(source.path, source.read())


def merged(left: analysis.Report, right: analysis.Report) -> analysis.Report:
    """Combine the reports of two neighbouring runs of files."""
    return analysis.merge(left, right)
