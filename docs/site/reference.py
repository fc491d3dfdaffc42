"""The reference, made of the docstrings, and the sources, with lines to point at. Nothing is imported for it."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path, PurePosixPath

from book import ROOT, Book, site_path
from pages import Renderer

CITED = re.compile(r"Eqs?\. (?:\(\d+\.\d+\)(?:, | and )?)+")
SECTION = re.compile(r"^([A-Z][a-z]+(?: [A-Z][a-z]+)?)\n-{3,}\n", flags=re.M)
HEAD = "---\ntitle: {title}\nsearch:\n  exclude: true\nhide:\n  - navigation\n  - toc\n---\n\n"
LISTS = ("Parameters", "Returns", "Yields", "Raises", "Warns", "Attributes", "Other Parameters")
Definition = ast.ClassDef | ast.FunctionDef


@cache
def tree(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Qualified name -> class or function, of all that a module or class defines."""
    for child in getattr(node, "body", []):
        if isinstance(child, Definition):
            name = f"{prefix}.{child.name}" if prefix else child.name
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, name)


def line_of(path: Path, name: str) -> int:
    """The line where a name is defined; 0 for the whole file."""
    return next((node.lineno for there, node in definitions(tree(path)) if there == name), 0) if name else 0


def public(name: str) -> bool:
    """Whether no part of a name is private."""
    return not any(part.startswith("_") for part in name.split("."))


def reference_path(path: str, name: str = "") -> str:
    """Where the reference describes a name of a file of the package; empty where it does not."""
    if not path.startswith("refscore/") or not public(name or "x"):
        return ""
    inside = path.removeprefix("refscore/").removesuffix(".py")
    if inside.rpartition("/")[2] == "__init__":
        inside = inside.removesuffix("__init__") + "index"
    known = {there for there, node in definitions(tree(ROOT / path)) if ast.get_docstring(node)}
    if name and name not in known:
        return ""
    return f"reference/{inside}.html" + (f"#{name}" if name else "")


class Reference:
    """The pages of the package and of the sources; a renderer turns what their docstrings cite into links."""

    def __init__(self, book: Book, renderer: Renderer):
        self.book, self.renderer = book, renderer

    def module(self, path: str) -> str:
        """The staged page of one module."""
        here = _as_page(reference_path(path))
        module = tree(self.book.root / path)
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        source = f'<p class="beside"><a href="{self.book.href(here, path)}">Source</a></p>'
        parts = [f"# {name} {{#{name}}}", source, _block(self.docstring(here, ast.get_docstring(module) or ""))]
        for there, node in definitions(module):
            if public(there) and (said := ast.get_docstring(node)):
                level = "##" if "." not in there else "###"
                way = f"{self.book.href(here, path)}#line-{node.lineno}"
                parts += [
                    f"{level} {there} {{#{there}}}",
                    _block(
                        self.renderer.highlight(signature(node), "python")
                        + f'<p class="beside"><a href="{way}">Source</a></p>'
                        + self.docstring(here, said)
                    ),
                ]
        return "\n\n".join(parts) + "\n"

    def folder(self, path: str) -> str:
        """The staged page of a folder of the package: what it is for, and its modules with their first lines."""
        here = _as_page(reference_path(f"{path}/__init__.py"))
        said = ast.get_docstring(tree(self.book.root / path / "__init__.py")) or ""
        rows = []
        for file in sorted((self.book.root / path).glob("*.py")):
            name = file.relative_to(self.book.root).as_posix()
            if file.name != "__init__.py":
                first = (ast.get_docstring(tree(file)) or "").split("\n\n")[0]
                up = "../" * site_path(here).count("/")
                text = self.renderer.inline(here, " ".join(first.split()))
                rows.append(
                    f'<dt><a href="{up}{reference_path(name)}"><code>{file.stem}</code></a></dt><dd>{text}</dd>'
                )
        title = path.replace("/", ".")
        body = self.docstring(here, said) + f"<dl>{''.join(rows)}</dl>"
        return f"# {title} {{#{title}}}\n\n{_block(body)}\n"

    def source(self, path: str) -> str:
        """The staged page of a source file."""
        language = {".py": "python", ".toml": "toml", ".yml": "yaml"}.get(PurePosixPath(path).suffix, "text")
        html = self.renderer.highlight((self.book.root / path).read_text(encoding="utf-8"), language)
        html = with_lines(CITED.sub(lambda found: self.renderer.inline(path, found[0]), html))
        return f"{HEAD.format(title=path)}# {path}\n\n{_block(html, 'source')}\n"

    def listing(self, path: str) -> str:
        """The staged page of a folder of sources."""
        rows = [
            f'<li><a href="{file.name}.html"><code>{escape(file.name)}</code></a></li>'
            for file in listed(self.book.root / path)
        ]
        return f"{HEAD.format(title=path)}# {path}/\n\n{_block('<ul>' + ''.join(rows) + '</ul>')}\n"

    def docstring(self, here: str, text: str) -> str:
        """A docstring as HTML."""
        first, *rest = SECTION.split(text)
        html = self.prose(here, first)
        for title, body in zip(rest[::2], rest[1::2], strict=True):
            inside = self.entries(here, body) if title in LISTS else self.prose(here, body)
            html += f'<p class="docstring-section">{title}</p>{inside}'
        return html

    def prose(self, here: str, text: str) -> str:
        """Paragraphs; what is indented, or a table, stays as it is written; `>>>` begins an example."""
        html = ""
        for part in re.split(r"\n\s*\n", text.strip("\n")):
            if not part.strip():
                continue
            if part.lstrip().startswith(">>>"):
                html += self.renderer.highlight(part, "pycon")
            elif re.match(r" {2,}|[|+]", part) or re.search(r"^ {2,}\S", part.partition("\n")[2], flags=re.M):
                html += f'<pre class="verbatim">{self.line(here, part, keep=True)}</pre>'
            elif re.match(r"[-*] ", part):
                items = re.split(r"^[-*] ", part, flags=re.M)[1:]
                html += f"<ul>{''.join(f'<li>{self.line(here, item)}</li>' for item in items)}</ul>"
            else:
                html += f"<p>{self.line(here, part)}</p>"
        return html

    def entries(self, here: str, text: str) -> str:
        """Parameters, or what is returned or raised: a line each, and below it what it means."""
        rows = ""
        for entry in re.split(r"\n(?=\S)", text.strip("\n")):
            head, _, said = entry.partition("\n")
            name, colon, kind = head.partition(" : ")
            shown = f"<code>{escape(name)}</code>" + (
                f" <span class='kind'>{self.line(here, kind)}</span>" if colon else ""
            )
            rows += f"<dt>{shown}</dt><dd>{self.line(here, said)}</dd>"
        return f"<dl>{rows}</dl>"

    def line(self, here: str, text: str, keep: bool = False) -> str:
        """Text with `code` and references; unless `keep`, in one line, an equation at its end set apart."""
        if keep:
            text = re.sub(r" {4,}(Eqs?\. )", r"    \1", text)
        else:
            text = re.sub(r" {3,}(Eqs?\. .*?)\.?$", r" [\1]", text.strip(), flags=re.M)
            text = " ".join(text.split())
        pieces = re.split(r"`+([^`]+)`+", text)
        return "".join(
            f"<code>{escape(piece)}</code>" if k % 2 else self.renderer.inline(here, piece)
            for k, piece in enumerate(pieces)
        )


def listed(folder: Path) -> list[Path]:
    """The files of a folder that have pages of their own when the folder is listed."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".py", ".cu", ".cuh", ".toml", ".txt"))


def signature(node: Definition) -> str:
    """How a function or class is called, one argument a line where it is long."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        plain = f"def {node.name}({ast.unparse(node.args)}){returns}"
        if len(plain) <= 100:
            return plain
        arguments = "".join(f"    {argument},\n" for argument in _arguments(node.args))
        return f"def {node.name}(\n{arguments}){returns}"
    fields = [ast.unparse(child) for child in node.body if isinstance(child, ast.AnnAssign)]
    fields = [field for field in fields if not field.startswith("_") and "init=False" not in field]
    bases = ", ".join(map(ast.unparse, node.bases))
    return f"class {node.name}" + (f"({bases})" if bases else "") + "".join(f"\n    {field}" for field in fields)


def _arguments(arguments: ast.arguments) -> list[str]:
    """The arguments one by one, as they are written."""
    inside, depth, out = ast.unparse(arguments), 0, [""]
    for letter in inside:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            out.append("")
        else:
            out[-1] += letter
    return [part.strip() for part in out]


def with_lines(html: str) -> str:
    """Highlighted code with an anchor `line-N` for each line."""
    before, code, after = re.match(r"(.*?<code>)(.*?)(</code>.*)", html, flags=re.S).groups()
    lines = code.removesuffix("\n").split("\n")
    return (
        before + "\n".join(f'<span id="line-{k}" class="line">{line}</span>' for k, line in enumerate(lines, 1)) + after
    )


def _as_page(site: str) -> str:
    """A name, as of a page of the repository, that stands on the site at `site`."""
    return "docs/" + site.removesuffix(".html") + ".md"


def _block(html: str, kind: str = "docstring") -> str:
    return f'<div class="{kind}">\n{html}\n</div>'
