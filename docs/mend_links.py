"""Links to sections that were renumbered or have moved to another chapter, written anew in every page.

    python docs/mend_links.py

A link to a section is `page.md#anchor`, the anchor as GitHub makes it of the heading: 5.2 of chapter 5 is
`05-three-failures.md#52-where-there-are-no-data-nothing-is-learned`. Where it leads nowhere, and one page has a heading
of the same words under another number, that one is meant; a number in the text of the link changes with it. What
cannot be mended is printed. A heading of other words is another section: open it, and see whether it still answers.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from os.path import relpath
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)#\s]*\.md)?#([^)\s]+)\)")
FENCED = re.compile(r"^ *```.*?^ *```", flags=re.M | re.S)


def slug(heading: str) -> str:
    """The anchor of a heading: small letters, digits and hyphens; marks of punctuation and markup go."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> tuple[str, ...]:
    """All that one can link to in a page, in its order: headings, and names of its own (`<a id=...>`)."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    found: list[str] = []
    for heading, name in re.findall(r'^#+ (.*)$|<a id="([^"]+)">', text, flags=re.M):
        anchor = name or slug(heading)
        again = sum(re.fullmatch(re.escape(anchor) + r"(-\d+)?", one) is not None for one in found)
        found.append(f"{anchor}-{again}" if again else anchor)
    return tuple(found)


def links(page: Path) -> Iterator[tuple[re.Match[str], Path, str]]:
    """Each link of a page to a section: the match, the page that it leads to, and the anchor."""
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        yield link, (page.parent / link[2]).resolve() if link[2] else page, link[3]


def broken(page: Path) -> Iterator[str]:
    """What is wrong with the links of a page to sections, with what may be meant."""
    for link, target, anchor in links(page):
        if target.exists() and anchor not in anchors(target):
            meant = [f"{relpath(there, page.parent)}#{new}" for there, new in _same_words(target, anchor)]
            yield f"{link[0]} leads nowhere" + (f"; meant may be {', '.join(meant)}" if meant else "")


def _same_words(target: Path, anchor: str) -> list[tuple[Path, str]]:
    """Sections of the same words: of this page, if there are any, else of any chapter."""
    words = re.sub(r"^\d+-", "", anchor)
    found = []
    for page in [target, *sorted((ROOT / "docs" / "chapters").glob("*.md"))]:
        found += [(page, new) for new in anchors(page) if re.sub(r"^\d+-", "", new) == words]
        if found and page == target:
            break
    return found


def mended(page: Path) -> str:
    """The text of a page with those links written anew for which there is one answer."""
    text = page.read_text(encoding="utf-8")
    for link, target, anchor in list(links(page)):
        if target.exists() and anchor not in anchors(target) and len(meant := _same_words(target, anchor)) == 1:
            there, new = meant[0]
            old_number, number = re.match(r"\d*", anchor)[0], _number(there, new)
            told = re.sub(
                r"\d+\.\d+", lambda n, o=old_number, k=number: k if n[0].replace(".", "") == o else n[0], link[1]
            )
            text = text.replace(link[0], f"[{told}]({relpath(there, page.parent)}#{new})")
    return text


def _number(page: Path, anchor: str) -> str:
    """The number of a section as its heading writes it, 10.7."""
    heading = next(
        h for h in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M) if slug(h) == anchor
    )
    return heading.split(" ")[0]


if __name__ == "__main__":
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = mended(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
        for fault in broken(page):
            sys.stdout.write(f"{page.relative_to(ROOT)}: {fault}\n")
