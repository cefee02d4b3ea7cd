"""What the main job computes of Python source files. Imports nothing of Alpyne, on purpose.

The same functions run on the nodes and in the serial run that checks them. A ``Report`` of one file
or of many is a plain dict, and ``merge`` is associative, so that reports can be combined in a tree:

    modules     {path: (lines, tokens, functions, classes)}
    names       Counter of identifiers
    bodies      {digest of a function's body: [(path, line, name), ...]}, in order of the files
"""

import ast
import builtins
import hashlib
import io
import keyword
import tokenize
from collections import Counter
from typing import Any

BODY_STATEMENTS_MIN = 3  # shorter bodies are alike by accident
TOP_NAMES = 15
TOP_DUPLICATES = 10

Report = dict[str, Any]
_SKIPPED = (tokenize.ENCODING, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def has_definitions(source: bytes) -> bool:
    """Return whether a file may hold a function or a class; cheap, without parsing."""
    return b"def " in source or b"class " in source


def analyse(path: str, source: bytes) -> Report:
    """Return the report of one file; a file that does not parse counts its lines only."""
    lines = source.count(b"\n")
    try:
        tokens, names = _count_tokens(source)
        tree = ast.parse(source)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return {"modules": {path: (lines, 0, 0, 0)}, "names": Counter(), "bodies": {}}
    functions = classes = 0
    bodies: dict[bytes, list[tuple[str, int, str]]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions += 1
            if _statements(node.body) >= BODY_STATEMENTS_MIN:
                digest = _digest(node.body)
                bodies.setdefault(digest, []).append((path, node.lineno, node.name))
    return {
        "modules": {path: (lines, tokens, functions, classes)},
        "names": names,
        "bodies": bodies,
    }


def _count_tokens(source: bytes) -> tuple[int, Counter[str]]:
    count = 0
    names: Counter[str] = Counter()
    known = frozenset(keyword.kwlist) | frozenset(dir(builtins))
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type in _SKIPPED:
            continue
        count += 1
        if token.type == tokenize.NAME and token.string not in known:
            names[token.string] += 1
    return count, names


def _statements(body: list[ast.stmt]) -> int:
    first = body[0] if body else None
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return len(body) - is_docstring


def _digest(body: list[ast.stmt]) -> bytes:
    text = "\n".join(ast.dump(statement) for statement in body)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:12]


def merge(left: Report, right: Report) -> Report:
    """Add ``right``, the report of the files behind those of ``left``, to ``left``; return that."""
    left["modules"].update(right["modules"])
    left["names"].update(right["names"])
    for digest, places in right["bodies"].items():
        left["bodies"].setdefault(digest, []).extend(places)
    return left


def empty() -> Report:
    """Return the report of no file."""
    return {"modules": {}, "names": Counter(), "bodies": {}}


def canonical(report: Report) -> dict[str, Any]:
    """Return ``report`` in full as plain JSON values that compare equal for equal reports."""
    return {
        "modules": {path: list(counts) for path, counts in sorted(report["modules"].items())},
        "names": sorted(report["names"].items()),
        "bodies": {
            digest.hex(): [list(place) for place in places]
            for digest, places in sorted(report["bodies"].items())
            if len(places) > 1
        },
        "single_bodies": sorted(
            digest.hex() for digest, places in report["bodies"].items() if len(places) == 1
        ),
    }


def summary(report: Report) -> dict[str, Any]:
    """Return what a person wants to see of ``report``."""
    counts = list(report["modules"].values())
    duplicates = [places for places in report["bodies"].values() if len(places) > 1]
    across = [p for p in duplicates if len({path for path, _, _ in p}) > 1]
    names = sorted(report["names"].items(), key=lambda item: (-item[1], item[0]))
    return {
        "files": len(counts),
        "lines": sum(c[0] for c in counts),
        "tokens": sum(c[1] for c in counts),
        "functions": sum(c[2] for c in counts),
        "classes": sum(c[3] for c in counts),
        "names": names[:TOP_NAMES],
        "largest": sorted(report["modules"].items(), key=lambda m: (-m[1][1], m[0]))[:5],
        "duplicates": len(across),
        "most_copied": sorted(across, key=lambda p: (-len(p), p))[:TOP_DUPLICATES],
    }
