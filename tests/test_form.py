"""A chapter has the form its reader relies on: numbered figures, printed blocks, summary, advice, graded exercises."""

import re

import pytest

from tests.oracles.book import ROOT

CHAPTERS = sorted((ROOT / "docs" / "chapters").glob("*.md"))
SECTIONS = ["In five lines", "What to do", "Exercises"]
GRADES = ["### Numbers", "### Change a line and look", "### Derive"]


def lacks(number, text, solutions):
    """What the page of a chapter lacks; empty for one that has the form."""
    bare = re.sub(r"```.*?```", "", text, flags=re.S)
    shown = re.findall(r"^!\[[^]]+\]\([^)]+\)$\n\n?(.*)", bare, flags=re.M)
    wanted = [f"**Figure {number}.{i}.** " for i in range(1, len(shown) + 1)]
    yield from (
        f"below a picture: {w}and what to see" for w, s in zip(wanted, shown, strict=True) if not s.startswith(w)
    )
    if bare.count("![") != len(shown):
        yield "a picture that does not stand alone in its line"
    sections = re.findall(r"^## \d+\.\d+ (.*)", text, flags=re.M)
    yield from (
        f"a section {title!r}" for title in ("In five lines", "What to do", "Exercises") if title not in sections
    )
    grades = [line for line in text.splitlines() if line in GRADES]
    if grades != GRADES:
        yield f"exercises in three grades, {GRADES}, here {grades}"
    asked = re.findall(r"^(\d+)\. ", text.partition("Exercises\n")[2], flags=re.M)
    if asked != [str(i) for i in range(1, len(asked) + 1)]:
        yield f"exercises numbered through, here {asked}"
    answered = re.findall(r"^## (\d+)\. ", solutions, flags=re.M)
    if answered != asked:
        yield f"a solution for each of {asked}, there are {answered}"
    for block in re.finditer(r"```python\n(.*?)```\s*(```text)?", text, flags=re.S):
        if "assert" in block[1] and not block[2]:
            yield f"a printed sentence below a block that asserts: {block[1].strip().splitlines()[0]}"


def parts(page):
    number = int(page.name[:2])
    answers = ROOT / "docs" / "solutions" / page.name
    return number, page.read_text(encoding="utf-8"), answers.read_text(encoding="utf-8") if answers.exists() else ""


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_has_the_form(page):
    assert list(lacks(*parts(page))) == []


SOUND = """# 9. A page

![alt](../figures/09-a.svg)

**Figure 9.1.** Look left.

```python
assert 1
print("one is one")
```
```text
one is one
```

## 9.1 In five lines
## 9.2 What to do
## 9.3 Exercises
### Numbers
1. One.
### Change a line and look
2. Two.
### Derive
3. Three.
"""
ANSWERS = "## 1. One\n\n## 2. Two\n\n## 3. Three\n"
LOST = ["**Figure 9.1.** Look left.", "```text\none is one\n```", "## 9.2 What to do\n", "### Derive\n", "2. Two.\n"]


def test_what_is_lost_is_seen():
    assert list(lacks(9, SOUND, ANSWERS)) == []
    for piece in LOST:
        assert list(lacks(9, SOUND.replace(piece, ""), ANSWERS)), piece
    assert list(lacks(9, SOUND, ANSWERS.replace("## 3. Three\n", "")))
