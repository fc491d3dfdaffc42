"""Write docs/notebooks/: each chapter as a notebook, with what its blocks print; and a page that lists them.

    python docs/make_notebooks.py

The Markdown of the chapters is the source, and nothing is run here: tests/test_book.py runs the blocks of a chapter in
order, and holds what they print against the text below them. Formulas are told in dollars, which notebooks typeset.
Figures and other pages are links, relative while the repository has no address. Once pyproject.toml has one
(`Repository` in `[project.urls]`), each notebook opens by one click, and installs the package on a bare machine.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "notebooks"
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", flags=re.M | re.S)
FORMULA = re.compile(r"\$`([^`]*)`\$")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")
SETUP = """# Colab is a bare machine: install the package there. Elsewhere it is installed already.
import sys

if "google.colab" in sys.modules:
    %pip install -q git+{repository}"""

Cell = dict[str, Any]


def chapters() -> list[Path]:
    """The pages that become notebooks."""
    return sorted((ROOT / "docs" / "chapters").glob("*.md"))


def address() -> str | None:
    """Where the repository is, without a slash at the end; None while nobody has said it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = project.get("urls", {}).get("Repository")
    return found and found.rstrip("/").removesuffix(".git")


def buttons(name: str, repository: str | None) -> str:
    """Links that open a notebook by one click; empty without an address, and away from GitHub."""
    if repository is None or not repository.startswith("https://github.com/"):
        return ""
    place = repository.removeprefix("https://github.com/")
    path = f"docs/notebooks/{name}.ipynb"
    return (
        f"[Open in Colab](https://colab.research.google.com/github/{place}/blob/main/{path}) · "
        f"[Open in Binder](https://mybinder.org/v2/gh/{place}/main?urlpath=lab/tree/{path})"
    )


def prose(text: str, repository: str | None) -> str:
    """Markdown of a chapter as a notebook shows it: formulas between dollars, links as seen from its folder."""

    def seen(link: re.Match[str]) -> str:
        path = link[1] if link[1].startswith("../") else f"../chapters/{link[1]}"
        if repository is None:
            return f"]({path})"
        kind = "raw" if re.search(r"\.(png|svg)$", path) else "blob"
        inside = (FOLDER / path).resolve().relative_to(ROOT).as_posix()
        return f"]({repository}/{kind}/main/{inside})"

    return LINK.sub(seen, FORMULA.sub(r"$\1$", text))


def pieces(text: str) -> Iterator[tuple[str, str]]:
    """(what, content) of a page in its order: prose, or the language of a fence; an indented fence stands free."""
    end = 0
    for fence in FENCE.finditer(text):
        yield "prose", text[end : fence.start()]
        yield fence[2], re.sub(rf"^{fence[1]}", "", fence[3], flags=re.M).rstrip("\n")
        end = fence.end()
    yield "prose", text[end:]


def cells(text: str, repository: str | None) -> Iterator[Cell]:
    """Markdown cells, a new one at each section, and a code cell with its output for each block of Python."""
    told = ""  # Markdown that has not become a cell
    block: Cell | None = None  # the code cell that a fence of text may follow
    for what, content in pieces(text):
        if what == "prose":
            first, *later = re.split(r"^(?=## )", prose(content, repository), flags=re.M)
            told += first
            for section in later:
                yield from _markdown(told)
                told = section
        elif what == "python":
            yield from _markdown(told)
            if block:
                yield block
            told, block = "", {"cell_type": "code", "execution_count": None, "source": content, "outputs": []}
            continue
        elif what == "text" and block and not told.strip():
            block["outputs"] = [{"output_type": "stream", "name": "stdout", "text": content + "\n"}]
        else:
            told += f"$$\n{content}\n$$" if what == "math" else f"```{what}\n{content}\n```"
        if block and told.strip():
            yield block
            block = None
    if block:
        yield block
    yield from _markdown(told)


def _markdown(text: str) -> Iterator[Cell]:
    if text.strip():
        yield {"cell_type": "markdown", "source": text.strip()}


def notebook(name: str, text: str, repository: str | None) -> dict[str, Any]:
    """The chapter `name` with this Markdown as a notebook (format 4.5)."""
    source = prose(f"[{name}.md]({name}.md)", repository)
    head = f"*This notebook is made from {source} by `docs/make_notebooks.py`: change that page.*"
    found = [{"cell_type": "markdown", "source": "\n\n".join(filter(None, [buttons(name, repository), head]))}]
    if repository:
        setup = SETUP.format(repository=repository)
        tags = {"tags": ["setup"]}
        found.append({"cell_type": "code", "execution_count": None, "outputs": [], "source": setup, "metadata": tags})
    found += cells(text, repository)
    for i, cell in enumerate(found):
        cell |= {
            "id": f"cell-{i}",
            "metadata": cell.get("metadata", {}),
            "source": cell["source"].splitlines(keepends=True),
        }
        for output in cell.get("outputs", []):
            output["text"] = output["text"].splitlines(keepends=True)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": found, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def listing(repository: str | None) -> str:
    """The text of docs/notebooks/README.md."""
    lines = [
        "# Notebooks",
        "",
        "Each chapter with its blocks as cells and what they print. Made by `python docs/make_notebooks.py` from the",
        "pages in [chapters](../chapters); a test keeps them true. The cells of a notebook run in order.",
        "",
    ]
    for page in chapters():
        title = re.sub(r"^# ", "", page.read_text(encoding="utf-8").splitlines()[0])
        opens = buttons(page.stem, repository)
        lines.append(f"- [{title}]({page.stem}.ipynb)" + (f" · {opens}" if opens else ""))
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Name -> text of everything in docs/notebooks/."""
    repository = address()
    made = {"README.md": listing(repository)}
    for page in chapters():
        found = notebook(page.stem, page.read_text(encoding="utf-8"), repository)
        made[f"{page.stem}.ipynb"] = json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    made = files()
    for path in FOLDER.iterdir():
        if path.suffix in (".md", ".ipynb") and path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(made) - 1} notebooks\n")
