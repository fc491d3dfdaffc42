"""Build the site into build/site, from the Markdown that GitHub shows.

    python docs/site --strict

The pages are staged as HTML below build/staged; Zensical puts the navigation and the search around them.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from book import ASSETS, PARTS, ROOT, Book, Fault, site_path
from font import write_font
from moving import MOVING, write_frames
from pages import Renderer, highlighter, typesetter
from reference import Reference, listed, reference_path

HERE = Path(__file__).resolve().parent
FIRST = ["docs/README.md", "docs/what-you-need.md", "docs/questions.md"]  # beside the title page
REFERENCE = ["docs/notation.md", "docs/equations.md", "docs/references.md", "docs/benchmarks.md", "docs/changelog.md"]


def main() -> int:
    """Build, and say how much; 1 where a link or a formula is at fault and --strict was given."""
    parser = argparse.ArgumentParser(prog="python docs/site", description="Build the site.")
    parser.add_argument("--strict", action="store_true", help="a link or a formula at fault is an error")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="where to (default: build/site)")
    arguments = parser.parse_args()
    staged = arguments.out.parent / f"{arguments.out.name}-staged"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(arguments.out, ignore_errors=True)
    faults = stage(Book(), staged / "docs")
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    if faults and arguments.strict:
        return 1
    config = json.dumps(settings(Book()), indent=1)
    (staged / "mkdocs.yml").write_text(config, encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "zensical", "build", "-f", "mkdocs.yml", *(["--strict"] * arguments.strict)]
    code = subprocess.run(command, cwd=staged, check=False).returncode
    if not code:
        shutil.move(staged / "site", arguments.out)
    return code


def stage(book: Book, out: Path) -> list[str]:
    """Write all pages and what they show below `out`, and return what is at fault."""
    faults: list[str] = []
    renderer = Renderer(book, typesetter(), highlighter())
    reference = Reference(book, renderer)

    def put(site: str, make, *told) -> None:
        try:
            text = make(*told)
        except Fault as fault:
            faults.extend(str(fault).splitlines())
            return
        path = out / (site.removesuffix(".html") + ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    for page in book.pages:
        put(site_path(page), renderer, page)
    for path in modules(book):
        make = reference.folder if path.endswith("__init__.py") else reference.module
        put(reference_path(path), make, path.removesuffix("/__init__.py"))
        book.wanted.add(path)
    done: set[str] = set()
    while todo := book.wanted - done:
        for path in sorted(todo):
            done.add(path)
            if (book.root / path).is_dir():
                book.wanted |= {file.relative_to(book.root).as_posix() for file in listed(book.root / path)}
                put(f"source/{path}/index.html", reference.listing, path)
            elif path.endswith(ASSETS):
                (out / site_path(path)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(book.root / path, out / site_path(path))
            elif path.endswith(".md"):
                put(site_path(path), renderer, path)
            else:
                put(site_path(path), reference.source, path)
    for name in ("book.css", "book.js"):
        (out / "assets").mkdir(exist_ok=True)
        shutil.copy(HERE / name, out / "assets" / name)
    for name in sorted(renderer.moved):
        shutil.copy(frames(name), out / "assets" / f"moving-{name}.png")
    write_font(out, out / "assets" / "mathematics.woff")
    return faults


def frames(name: str) -> Path:
    """The picture of a moving figure: as it was made before, unless what makes it has changed."""
    made_by = hashlib.sha256((HERE / "moving.py").read_bytes()).hexdigest()[:12]
    path = ROOT / "build" / "moving" / f"{name}-{made_by}.png"
    if not path.exists():
        write_frames(MOVING[name], path)
    return path


def modules(book: Book) -> list[str]:
    """All files of the package, in the order of reading that the README tells."""
    order = re.findall(r"^\| [IVX]+ \| \[`(\w+)/`\]", book.text("README.md"), flags=re.M)
    files = [path.relative_to(book.root).as_posix() for path in (book.root / "refscore").rglob("*.py")]

    def rank(path: str) -> tuple:
        folder = path.split("/")[1] if path.count("/") > 1 else ""
        return (
            order.index(folder) if folder in order else -1 if not folder else 99,
            folder,
            "__init__" not in path,
            path,
        )

    return sorted(files, key=rank)


def navigation(book: Book) -> list[dict]:
    """The tree at the side: made of what there is."""
    there = set(book.pages)

    def leaf(page: str, title: str = "") -> dict:
        return {title or book.titles[page]: site_path(page).removesuffix(".html") + ".md"}

    start = [leaf("README.md", "refscore"), *(leaf(page) for page in FIRST if page in there)]
    parts, low = [], 0
    for part, high in PARTS.items():
        chapters = [leaf(page) for number, page in sorted(book.chapters.items()) if low < number <= high]
        parts += [{part: chapters}] if chapters else []
        low = high
    loose = [page for page in book.pages if page.count("/") == 1 and page not in [*FIRST, *REFERENCE]]
    guides = sorted((leaf(page) for page in loose), key=str)
    folders: dict[str, list] = {}
    for page in book.pages:
        if page.count("/") > 1 and not page.startswith(("docs/chapters/", "docs/site/")):
            folders.setdefault(page.split("/")[1].capitalize(), []).append(leaf(page))
    python: list[dict] = []
    for path in modules(book):
        inside = path.split("/")[1:]
        page = {inside[-1].removesuffix(".py"): reference_path(path).removesuffix(".html") + ".md"}
        if len(inside) == 1:
            python += [] if inside[0] == "__init__.py" else [page]
        elif inside[-1] == "__init__.py":
            python.append({inside[0]: [reference_path(path).removesuffix(".html") + ".md"]})
        else:
            python[-1][inside[0]].append(page)
    reference = [leaf(page) for page in REFERENCE if page in there]
    reference += [{title: leaves} for title, leaves in sorted(folders.items())]
    reference.append({"Python": ["reference/index.md", *python]})
    return [{"Start": start}, *parts, {"Guides": guides}, {"Reference": reference}]


def settings(book: Book) -> dict:
    """What Zensical is told; it reads the configuration of MkDocs."""
    night = {"icon": "lucide/moon", "name": "Dark"}
    day = {"icon": "lucide/sun", "name": "Light"}
    return {
        "site_name": "refscore",
        "site_description": "Score-based generative models as a textbook that runs",
        "site_url": "",
        "docs_dir": "docs",
        "site_dir": "site",
        "use_directory_urls": False,
        "theme": {
            "name": "material",
            "font": False,
            "icon": {"logo": "lucide/book-open"},
            "features": [
                "navigation.footer", "navigation.indexes", "navigation.top", "navigation.prune",
                "content.code.copy", "search.highlight", "toc.follow",
            ],
            "palette": [
                {"media": "(prefers-color-scheme)", "toggle": {"icon": "lucide/sun-moon", "name": "As the system"}},
                {"media": "(prefers-color-scheme: light)", "scheme": "default", "toggle": night},
                {"media": "(prefers-color-scheme: dark)", "scheme": "slate", "toggle": day},
            ],
        },
        "plugins": ["search"],
        "markdown_extensions": ["attr_list", {"toc": {"permalink": "¶", "toc_depth": "2-3"}}],
        "extra_css": ["assets/book.css"],
        "extra_javascript": ["assets/book.js"],
        "extra": {"generator": False},
        "nav": navigation(book),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
