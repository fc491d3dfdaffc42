"""Write docs/equations.md: every numbered equation, the functions that implement it, the tests that check it.

    python docs/make_equations.py

A docstring implements or checks an equation by citing it: Eq. (1.9), or Eqs. (1.9), (1.10).
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
CITED = re.compile(r"Eqs?\. ((?:\(\d+\.\d+\)(?:, | and )?)+)")


def equations() -> dict[str, str]:
    """Number -> file of the chapter that displays it, in the order of the book."""
    found: dict[str, str] = {}
    for page in sorted((ROOT / "docs" / "chapters").glob("*.md")):
        for number in TAG.findall(page.read_text(encoding="utf-8")):
            if number in found:
                raise SystemExit(f"equation ({number}) is displayed twice")
            found[number] = page.name
    return found


@cache
def citations(folder: str) -> dict[str, list[str]]:
    """Number -> names of the functions and classes below `folder` whose docstrings cite it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name, docstring in docstrings(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(ROOT).as_posix()}" + (f"::{name}" if name else "")
            for group in CITED.findall(docstring):
                for number in re.findall(r"\d+\.\d+", group):
                    found.setdefault(number, []).append(place)
    return found


def docstrings(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of a module and of everything in it."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
        if docstring := ast.get_docstring(node):
            yield prefix, docstring
        for child in node.body:
            if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
                yield from docstrings(child, f"{prefix}.{child.name}" if prefix else child.name)


def page() -> str:
    """The text of docs/equations.md."""
    code, tests = citations("refscore"), citations("tests")
    lines = [
        "# Equation → function → test",
        "",
        "Made by `python docs/make_equations.py`; a test keeps it true. An equation without a function is an",
        "argument of the text, checked all the same.",
        "",
        "| equation | functions | tests |",
        "|---|---|---|",
    ]
    for number, chapter in equations().items():
        cells = (", ".join(f"`{place}`" for place in cited.get(number, [])) for cited in (code, tests))
        lines.append(f"| [({number})](chapters/{chapter}) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "equations.md").write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{len(equations())} equations\n")
