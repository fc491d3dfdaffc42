"""The pages of the book."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "backends" / "README.md",
    *sorted(page for folder in ("docs", ".github") for page in (ROOT / folder).rglob("*.md")),
]
