"""Pages of the documentation, read by tests: their blocks of code and their tables."""

import ast
import contextlib
import io
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d*|-?\d+")


def blocks(page):
    """Each block of Python of a page, with the text that it is said to print, or ''."""
    return BLOCK.findall((DOCS / page).read_text("utf-8"))


def printed(code, namespace):
    """What a block of code prints, run in a namespace."""
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        exec(compile(code, "<page>", "exec"), namespace)
    return heard.getvalue()


def definitions(page):
    """The namespace of a page in which nothing is fitted or printed."""
    namespace = {"__name__": "page"}
    for code, _ in blocks(page):
        kept = [
            node
            for node in ast.parse(code).body
            if not isinstance(node, ast.Expr | ast.Try)
            and not (isinstance(node, ast.Assign) and "posterior" in ast.unparse(node))
        ]
        exec(compile(ast.Module(kept, []), "<page>", "exec"), namespace)
    return namespace


def tables(page):
    """Each table of a page under the heading above it: heading -> rows of cells."""
    found, heading = {}, ""
    for line in (DOCS / page).read_text("utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not re.fullmatch(r"[|\- ]+", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(heading, []).append(cells)
    return {heading: rows[1:] for heading, rows in found.items()}


def coded(cell):
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
