"""What the sources say beside their values: comments behind names, and headings between them."""

import ast
import inspect
import io
import tokenize
from dataclasses import dataclass
from types import ModuleType

_HEADING = "# ---"


@dataclass(frozen=True, slots=True)
class Named:
    """A name that a module or a class assigns, with the comment behind it.

    ``heading`` is the text of the last ``# --- text ---`` line above it, or "".
    """

    owner: str  # class name, or "" at the module's top level
    name: str
    comment: str
    heading: str


def named_values(module: ModuleType) -> list[Named]:
    """Return the plain assignments of ``module`` and its classes in order, with their comments."""
    source = inspect.getsource(module)
    comments = _comments(source)
    found = []
    tree = ast.parse(source)
    for owner, body in (("", tree.body), *_classes(tree)):
        for statement in body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                line = statement.end_lineno or statement.lineno
                found.append(
                    Named(
                        owner,
                        statement.targets[0].id,
                        comments.get(line, ""),
                        _heading_above(comments, line),
                    )
                )
    return found


def _classes(tree: ast.Module) -> list[tuple[str, list[ast.stmt]]]:
    return [(node.name, node.body) for node in tree.body if isinstance(node, ast.ClassDef)]


def _comments(source: str) -> dict[int, str]:
    """Return the text of each comment by its line; headings keep their mark."""
    texts = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string
            texts[token.start[0]] = text if text.startswith(_HEADING) else text.lstrip("# ")
    return texts


def _heading_above(comments: dict[int, str], line: int) -> str:
    above = [at for at, text in comments.items() if at < line and text.startswith(_HEADING)]
    return comments[max(above)].strip("# -") if above else ""
