r"""GitHub reads Markdown before it typesets: between dollars `\,` becomes a comma, `\\` one backslash, `_x_` emphasis.

Only two forms come through as they are written, so only these are used: a fence named math, ending in the equation's
number, and a code span between dollars inside a line.
"""

import re

import pytest
from markdown_it import MarkdownIt

from tests.oracles.book import PAGES, ROOT

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NUMBERED = re.compile(r"((?!\\tag).)*\\tag\{\d+\.\d+\}\n", flags=re.S)
INLINE = re.compile(r"\$\x01([^\x02]*)\x02\$")
REFUSED = re.compile(r"\\(operatorname|def|gdef|edef|let|(re)?newcommand|DeclareMathOperator|require|href|unicode)\b")


def faults(page):
    """What GitHub would show otherwise than it is written; empty for a sound page."""
    return [f"{told}: {where}" for told, where in _faults(MARKDOWN.parse(page))]


def _faults(tokens):
    in_table = False
    for token in tokens:
        in_table = {"table_open": True, "table_close": False}.get(token.type, in_table)
        if token.type == "fence" and token.info.strip() == "math":
            if not NUMBERED.fullmatch(token.content):
                yield "a displayed equation ends in one number, \\tag{3.12}", token.content
            yield from _in_formula(token.content)
        elif token.type in ("fence", "code_block") and r"\tag{" in token.content:
            yield "a displayed equation outside a fence named math", token.content
        elif token.type == "inline":
            text = "".join(map(_flat, token.children or []))
            prose = re.sub(r"\x01[^\x02]*\x02", "", INLINE.sub("", text))
            if "$" in prose:
                yield "a dollar outside $`...`$: Markdown reads what follows, or a table cell splits it", prose
            if re.search(r"\\[A-Za-z]", prose):
                yield "a macro outside mathematics", prose
            if re.search(r"[^\s(]\$\x01|\x02\$\w", text):
                yield "a formula that touches a word or emphasis", text
            for formula in INLINE.findall(text):
                yield from _in_formula(formula)
                if in_table and "|" in formula:
                    yield r"a bar in a table: write \lvert, \lVert or \mid", formula


def _in_formula(formula):
    if macro := REFUSED.search(formula):
        yield f"GitHub refuses {macro.group()}", formula
    bare = re.sub(r"\\[{}]", "", formula)
    left, right = (len(re.findall(rf"\\{side}\b", formula)) for side in ("left", "right"))
    if bare.count("{") != bare.count("}") or left != right:
        yield "braces or \\left and \\right that do not pair", formula


def _flat(token):
    """Text as it is, code between \\x01 and \\x02, a line break as a space, all other markup as \\x00."""
    if token.type == "code_inline":
        return f"\x01{token.content}\x02"
    breaks = {"softbreak": " ", "hardbreak": " "}
    return token.content if token.type in ("text", "text_special") else breaks.get(token.type, "\x00")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_mathematics_reaches_the_typesetter_as_written(page):
    assert faults(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (r"the norm $\|x\|$", "a dollar"),
        (r"an integral $f(x)\,dx$", "a dollar"),
        (r"the law $p_\theta * q_\theta$, and $a_\theta$", "a dollar"),
        ("$$x = y \\tag{1.1}$$", "a dollar"),
        ("$$\nx = y \\tag{1.1}\n$$", "a dollar"),
        ("\\[ x = \\sigma z \\]", "a macro"),
        ("x = \\sigma z \\tag{1.1}", "a macro"),
        ("    x = y \\tag{1.1}", "a displayed equation outside"),
        ("```\nx = y \\tag{1.1}\n```", "a displayed equation outside"),
        ("```math\nx = y\n```", "a displayed equation ends"),
        ("```math\nx = \\operatorname{tr} y \\tag{1.1}\n```", "GitHub refuses \\operatorname"),
        (r"the macro $`\def\x{1} \x`$", "GitHub refuses \\def"),
        (r"the fraction $`\frac{1}{x`$", "braces"),
        ("| a | b |\n|---|---|\n| $`p(x | y)`$ | 1 |", "a dollar"),
        ("| a | b |\n|---|---|\n| $`\\|x\\|`$ | 1 |", "a bar in a table"),
        ("the $`n`$th step", "a formula that touches"),
        ("**$`n`$ steps**", "a formula that touches"),
    ],
)
def test_what_github_would_spoil_is_found(page, told):
    assert any(fault.startswith(told) for fault in faults(page)), faults(page)


def test_what_it_typesets_is_not():
    inline = r"Of $`\|x\|^2`$ (and $`a_b * c_d * e`$), `$ pip install` costs `\alpha`."
    assert faults(f"{inline}\n\n```math\nx = \\{{y\\}} \\tag{{1.1}}\n```\n") == []
