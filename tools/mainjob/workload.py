"""What the main job ships to the nodes: small functions over objects, sent by value.

``analysis`` travels with them, so that nothing of this folder is installed on a node.
"""

from collections.abc import Iterable

from alpyne_grid.tools.mainjob import analysis

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


def modules_to_ship() -> Iterable[object]:
    """Return the modules that must be pickled by value."""
    from alpyne_grid.tools.mainjob import workload

    return (analysis, workload)
