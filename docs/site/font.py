"""STIX Two Math, cut down to the characters that the formulas have. A telephone may have no font for mathematics."""

import re
from html import unescape
from pathlib import Path

ITALIC = {**{chr(97 + k): chr(0x1D44E + k) for k in range(26)}, **{chr(65 + k): chr(0x1D434 + k) for k in range(26)}}
GREEK = {chr(0x3B1 + k): chr(0x1D6FC + k) for k in range(25)} | {chr(0x391 + k): chr(0x1D6E2 + k) for k in range(25)}


def characters(pages: Path) -> set[str]:
    """The characters of all formulas below a folder, and the slanted ones that a browser shows for single letters."""
    found = set("0123456789()[]{}|.,;:+-−=")
    for page in pages.rglob("*.md"):
        for formula in re.findall(r"<math.*?</math>", page.read_text(encoding="utf-8"), flags=re.S):
            found |= set(unescape(re.sub(r"<[^>]*>", "", formula)))
            found |= {"√"} if "<msqrt" in formula or "<mroot" in formula else set()  # which the browser draws by itself
    slanted = ITALIC | GREEK | {"h": "ℎ", "ϵ": "𝜖", "ϕ": "𝜙", "∂": "𝜕"}
    return found | {slanted[letter] for letter in found if letter in slanted}


def write_font(pages: Path, out: Path) -> None:
    """Write the part of the font that the pages need, with its licence's names and its table for mathematics."""
    import ziamath
    from fontTools.subset import Options, Subsetter, load_font, save_font

    options = Options(layout_features=["*"], name_IDs=["*"], flavor="woff", notdef_outline=True)
    font = load_font(str(Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"), options)
    subsetter = Subsetter(options)
    subsetter.populate(text="".join(sorted(characters(pages))))
    subsetter.subset(font)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_font(font, str(out), options)
