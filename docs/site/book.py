"""What the book has: its files and where the site puts them, its equations, figures, sections and words."""

import importlib.util
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

ROOT = Path(__file__).resolve().parents[2]
ASSETS = (".png", ".svg", ".gif", ".npz", ".ipynb")  # copied as they are
PARTS = {
    "I. Scores": 6,
    "II. Diffusions": 13,
    "III. Networks and machines": 17,
    "IV. Further": 99,
}  # last chapter of each
WORDS = re.compile(r"\*([A-Z][\w\s-]*)\*: (.*?)(?=\s\*[A-Z][\w\s-]*\*: |\Z)", flags=re.S)


class Fault(Exception):
    """Something in the sources that the site cannot show: with --strict the build stops."""


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def site_path(path: str) -> str:
    """Where a file of the repository, or a folder of it, stands on the site."""
    if path == "README.md":
        return "index.html"
    if path == "docs/README.md":
        return "contents.html"
    inside = (
        path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path.lstrip('.')}"
    )  # the generator skips dot-folders
    if path.endswith(ASSETS):
        return inside
    if path.endswith("/README.md"):
        return inside.removesuffix("README.md") + "index.html"
    if path.endswith(".md"):
        return inside.removesuffix(".md") + ".html"
    path = path.lstrip(".")
    return f"source/{path}.html" if PurePosixPath(path).suffix or path.endswith("/run") else f"source/{path}/index.html"


def plain(markdown: str) -> str:
    """Markdown as bare text, for tooltips and headings: formulas in Unicode as far as that goes."""
    text = re.sub(r"\$`([^`]*)`\$", lambda found: unicode(found[1]), markdown)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[`*]", "", text).split())


NAMES = re.findall(
    r"\w+",
    """
    alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma varsigma tau phi varphi
    chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega nabla partial ell sum int infty le ge ne in to sim
    approx propto cdot times mid langle rangle top perp dots ldots pm mapsto lvert rvert lVert rVert
    """,
)
GREEK = dict(zip(NAMES, "αβγδϵεζηθκλμνξπρσςτφφχψωΓΔΘΛΣΦΨΩ∇∂ℓ∑∫∞≤≥≠∈→∼≈∝·×∣⟨⟩ᵀ⊥……±↦||‖‖", strict=True))
MARKS = {"bar": "\u0304", "hat": "\u0302", "tilde": "\u0303", "dot": "\u0307"}


def unicode(tex: str) -> str:
    """A short formula as a line of text."""
    text = re.sub(r"\\tfrac12|\\frac12", "½", tex)
    text = re.sub(r"\\(bar|hat|tilde|dot)\s*\{?(\\?[A-Za-z]+)\}?", lambda m: unicode(m[2]) + MARKS[m[1]], text)
    text = re.sub(r"\\sqrt\{([^}]*)\}", r"√(\1)", text)
    text = re.sub(r"\\(mathbb|mathcal|mathrm|mathbf|text|texttt|big|Big|left|right)\b\s*", "", text)
    text = re.sub(r"\\([A-Za-z]+)\s?", lambda m: GREEK.get(m[1], m[1] + " "), text)
    text = re.sub(r"\^2", "²", text)
    text = re.sub(r"\\[,;! ]", " ", text).replace("\\|", "‖")
    return " ".join(re.sub(r"[{}\\]", "", text).split())


@dataclass
class Book:
    """An index of the repository below `root`, and a list of what the pages ask for besides the pages."""

    root: Path = ROOT
    wanted: set[str] = field(default_factory=set)

    @cached_property
    def pages(self) -> list[str]:
        """All Markdown that becomes pages, as paths of the repository."""
        docs = sorted(path.relative_to(self.root).as_posix() for path in (self.root / "docs").rglob("*.md"))
        return ["README.md", *docs]

    @cached_property
    def chapters(self) -> dict[int, str]:
        """Number of a chapter -> its file."""
        return {int(name.rpartition("/")[2][:2]): name for name in self.pages if name.startswith("docs/chapters/")}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Page -> its first heading."""
        return {page: plain(re.search(r"^# (.*)$", self.text(page), flags=re.M)[1]) for page in self.pages}

    @cached_property
    def _index(self):
        spec = importlib.util.spec_from_file_location("make_equations", ROOT / "docs" / "make_equations.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @cached_property
    def equations(self) -> dict[str, str]:
        """Number of an equation -> the file that displays it."""
        return {number: f"docs/chapters/{name}" for number, name in self._index.equations().items()}

    def cited(self, folder: str, number: str) -> list[str]:
        """The places below a folder, `file::name`, whose docstrings cite an equation."""
        return self._index.citations(folder).get(number, [])

    @cached_property
    def figures(self) -> dict[str, str]:
        """Number of a figure -> the file that shows it."""
        return self._found(r"^\*\*Figure (\d+\.\d+)\.\*\*")

    @cached_property
    def sections(self) -> dict[str, str]:
        """Number of a section -> file#anchor."""
        return {
            found[1]: f"{page}#{slug(found[0])}"
            for page in self.chapters.values()
            for found in ((m[0][3:], m[1]) for m in re.finditer(r"^## (\d+\.\d+) .*$", self.text(page), flags=re.M))
        }

    @cached_property
    def words(self) -> dict[str, str]:
        """Word of the notation page -> what it means."""
        text = self.text("docs/notation.md")
        found = re.search(r"^\*\*Words\.\*\* (.*?)(?:\n\n|\Z)", text, flags=re.S | re.M)
        words = WORDS.findall(found[1]) if found else []
        return {plain(word).lower(): plain(meaning).rstrip(".") for word, meaning in words}

    @cached_property
    def letters(self) -> dict[str, str]:
        """Formula of the notation page -> what it means, where the page has one meaning for it alone."""
        rows = [line.split(" | ") for line in self.text("docs/notation.md").splitlines() if line.startswith("| $`")]
        cells = [re.findall(r"\$`([^`]*)`\$", row[0]) for row in rows]
        bases = [part.partition("(")[0] for cell in cells for formula in cell for part in formula.split(", ")]
        return {
            cell[0]: plain(row[-1].strip(" |"))
            for row, cell in zip(rows, cells, strict=True)
            if row[0] == f"| $`{cell[0]}`$" and ("(" in cell[0] or bases.count(cell[0]) == 1)
        }

    def text(self, page: str) -> str:
        """What a page says."""
        return (self.root / page).read_text(encoding="utf-8")

    def link(self, page: str, target: str) -> str:
        """What a link in a page's Markdown becomes on the site; what it leads to is wanted there.

        Raises
        ------
        Fault
            When it leads nowhere.
        """
        if re.match(r"[a-z]+:", target):
            return target
        name, _, anchor = target.partition("#")
        path = normpath((PurePosixPath(page).parent / name).as_posix()) if name else page
        return self.href(page, path) + (f"#{anchor}" if anchor else "")

    def href(self, page: str, path: str) -> str:
        """The way on the site from a page of the repository to another file or folder of it."""
        return relpath(self.site(path), PurePosixPath(site_path(page)).parent)

    def site(self, path: str) -> str:
        """Where a file or folder stands on the site, which has to have it then."""
        if not (self.root / path).exists():
            raise Fault(f"there is no {path}")
        if (self.root / path).is_dir():
            if (self.root / path / "README.md").exists():
                path = f"{path}/README.md"
            else:
                self.wanted.add(path)
                return f"source/{path}/index.html"
        if path not in self.pages:
            self.wanted.add(path)
        return site_path(path)

    def _found(self, pattern: str) -> dict[str, str]:
        return {
            number: page
            for page in self.chapters.values()
            for number in re.findall(pattern, self.text(page), flags=re.M)
        }
