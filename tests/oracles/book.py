"""The pages of the book, and the syntax of its code."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "backends" / "README.md",
    *sorted(page for folder in ("docs", ".github") for page in (ROOT / folder).rglob("*.md")),
]


@cache
def parsed(path: Path) -> ast.Module:
    """The tree of a Python file: many tests read the same ones."""
    return ast.parse(path.read_text(encoding="utf-8"))
