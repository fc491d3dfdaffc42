r"""One page of Markdown, as GitHub shows it, to one page of the site.

The bodies become HTML here, by the same CommonMark parser that the tests read the pages with. Headings stay Markdown:
the site's generator makes its table of contents of them.
"""

import re
from collections.abc import Callable, Iterator
from html import escape
from pathlib import PurePosixPath

from book import Book, Fault, plain, site_path, slug, unicode
from markdown_it import MarkdownIt
from markdown_it.token import Token
from moving import MOVING

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
CAPTION = re.compile(r"\*\*Figure (\d+\.\d+)\.\*\*")
PLACE = re.compile(r"((?:refscore|tests|backends|docs)/[\w/.-]+\.py)(?:::([\w.]+))?")
REFERENCE = re.compile(
    r"(?P<equation>\(\d+\.\d+\))|(?P<figure>[Ff]igures? \d+\.\d+)|(?P<section>[Ss]ections? \d+\.\d+)"
    r"|(?P<chapter>[Cc]hapters? \d+(?!\.?\d))"
)
SHOWN = 2  # places of code, and of tests, that stand below a display; the rest is one link away

Typeset = Callable[[str, bool], str]
Highlight = Callable[[str, str], str]


def typesetter() -> Typeset:
    """LaTeX -> MathML, by math-core; a formula that it does not know is a fault."""
    import math_core

    converter = math_core.LatexToMathML()

    def typeset(tex: str, display: bool) -> str:
        try:
            return converter.convert_with_local_state(tex, displaystyle=display)
        except math_core.LatexError as error:
            raise Fault(f"no formula: {tex}: {error}") from error

    return typeset


def highlighter() -> Highlight:
    """Code and its language -> HTML, by Pygments."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    def mark(code: str, language: str) -> str:
        lexer = get_lexer_by_name(language or "text", stripnl=False)
        return highlight(code, lexer, HtmlFormatter(cssclass="highlight", wrapcode=True))

    return mark


class Renderer:
    """The pages of a book, one after the other."""

    def __init__(self, book: Book, typeset: Typeset, highlight: Highlight):
        self.book, self.typeset, self.highlight = book, typeset, highlight
        self.page, self.explained, self.moved, self.faults = "", set(), set(), []

    def __call__(self, page: str) -> str:
        """The staged text of a page: headings as Markdown, all else as blocks of HTML."""
        self.page, self.explained, self.faults = page, set(), []
        text = "\n\n".join(self._pieces(MARKDOWN.parse(self.book.text(page)))) + "\n"
        if self.faults:
            raise Fault("\n".join(f"{page}: {fault}" for fault in self.faults))
        return text

    def _sound(self, make: Callable[..., str], *told: object) -> str:
        """What `make` answers; a fault is kept, so that all of a page are told at once."""
        try:
            return make(*told)
        except Fault as fault:
            self.faults.append(str(fault))
            return ""

    def inline(self, page: str, text: str) -> str:
        """A line of bare text (of a docstring), escaped, with its references as links."""
        self.page, self.explained = page, set(self.book.words)
        return self._text(text)

    def _pieces(self, tokens: list[Token]) -> Iterator[str]:
        body: list[Token] = []
        seen: dict[str, int] = {}
        at = 0
        while at < len(tokens):
            token = tokens[at]
            if token.type == "heading_open" and token.level == 0:
                yield from self._block(body)
                body = []
                heading = plain(tokens[at + 1].content)
                anchor = slug(heading)
                seen[anchor] = seen.get(anchor, -1) + 1
                anchor += f"-{seen[anchor]}" if seen[anchor] else ""
                literal = re.sub(r"([*_`<{])", r"\\\1", heading)
                yield f"{'#' * int(token.tag[1])} {literal} {{#{anchor}}}"
                if token.tag == "h1":
                    yield from self._beside()
                at += 3
            else:
                body.append(token)
                at += 1
        yield from self._block(body)

    def _beside(self) -> Iterator[str]:
        """Below the title of a chapter: its solutions and its notebook, where there are any."""
        if self.page.startswith("docs/chapters/"):
            name = self.page.removeprefix("docs/chapters/").removesuffix(".md")
            there = {"Solutions": f"docs/solutions/{name}.md", "Notebook": f"docs/notebooks/{name}.ipynb"}
            links = [
                f'<a href="{self.book.href(self.page, path)}"{" download" if path.endswith("b") else ""}>{word}</a>'
                for word, path in there.items()
                if (self.book.root / path).exists()
            ]
            if links:
                yield f'<p class="beside">{" · ".join(links)}</p>'

    def _block(self, tokens: list[Token]) -> Iterator[str]:
        if tokens:
            yield f'<div class="prose">\n{self._html(tokens)}\n</div>'

    def _html(self, tokens: list[Token]) -> str:
        out: list[Token] = []
        at = 0
        while at < len(tokens):
            token = tokens[at]
            if token.type == "fence":
                out.append(_raw(self._fence(token, after_code=at > 0 and tokens[at - 1].info.strip() == "python")))
            elif token.type == "paragraph_open" and (image := _alone(tokens[at + 1])):
                caption = tokens[at + 4] if at + 4 < len(tokens) and CAPTION.match(tokens[at + 4].content) else None
                out.append(_raw(self._figure(image, caption)))
                at += 6 if caption else 3
                continue
            elif token.type == "inline":
                token.children = list(self._inline(token.children or []))
                out.append(token)
            else:
                out.append(token)
            at += 1
        return MARKDOWN.renderer.render(out, MARKDOWN.options, {})

    def _fence(self, token: Token, after_code: bool) -> str:
        language = token.info.strip()
        if language == "math":
            return self._display(token.content)
        html = self.highlight(token.content, language)
        return f'<div class="output">{html}</div>\n' if language == "text" and after_code else html

    def _display(self, tex: str) -> str:
        number = (TAG.findall(tex) or [""])[0]
        formula = f'<div class="scroll" tabindex="0">{self._sound(self.typeset, TAG.sub("", tex).strip(), True)}</div>'
        if self.book.equations.get(number) != self.page:
            return f'<div class="equation">{formula}</div>\n'
        return (
            f'<div class="equation" id="eq-{number}">{formula}<a class="number" href="#eq-{number}">({number})</a>'
            f"{self._provenance(number)}</div>\n"
        )

    def _provenance(self, number: str) -> str:
        """The small line below a display: the code that implements it, the tests that check it."""
        kinds = []
        for word, folder in (("code", "refscore"), ("test", "tests")):
            places = self.book.cited(folder, number)
            links = [self.place(place, law=folder == "tests") for place in places[:SHOWN]]
            if len(places) > SHOWN:
                index = self.book.href(self.page, "docs/equations.md")
                links.append(f'<a href="{index}#row-{number}">{len(places) - SHOWN} more</a>')
            if links:
                kinds.append(f"{word}: {', '.join(links)}")
        return f'<p class="provenance">{" · ".join(kinds)}</p>' if kinds else ""

    def place(self, place: str, shown: str = "", law: bool = False) -> str:
        """A link to `file::name`, in the reference or else in the source; a test's name is shown as its `law`."""
        path, _, name = place.partition("::")
        if law and "test_" in name:
            return f'<a href="{self._way(path, name)}">{name.rpartition("test_")[2].replace("_", " ")}</a>'
        shown = shown or name or path.rpartition("/")[2]
        return f'<a href="{self._way(path, name)}"><code>{escape(shown)}</code></a>'

    def _way(self, path: str, name: str) -> str:
        from reference import line_of, reference_path  # which needs this module

        way = self.book.href(self.page, path)
        reference = reference_path(path, name)
        if reference:
            return f"{self._up()}{reference}"
        line = line_of(self.book.root / path, name)
        return f"{way}#line-{line}" if line else way

    def _up(self) -> str:
        return "../" * site_path(self.page).count("/")

    def _figure(self, image: Token, caption: Token | None) -> str:
        picture = self._image(image)
        name = PurePosixPath(image.attrs["src"]).stem
        moves = ""
        if name in MOVING:
            self.moved.add(name)
            moves = MOVING[name].html(name, f"{self._up()}assets/moving-{name}.png")
        if caption is None:
            return f"<figure>{picture}</figure>\n{moves}"
        number = CAPTION.match(caption.content)[1]
        text = MARKDOWN.renderer.render([_inline_token(list(self._inline(caption.children)))], MARKDOWN.options, {})
        return f'<figure id="figure-{number}">{picture}<figcaption>{text}</figcaption></figure>\n{moves}'

    def _image(self, token: Token) -> str:
        source, alt = self._sound(self.book.link, self.page, token.attrs["src"]), escape(token.content, quote=True)
        kind = ' class="drawing"' if source.endswith(".svg") else ' class="picture"'
        return f'<img src="{source}" alt="{alt}" loading="lazy"{kind}>'

    def _inline(self, tokens: list[Token]) -> Iterator[Token]:
        in_link = strong = 0
        tokens = list(_with_math(tokens))
        for token in tokens:
            if token.type == "math":
                yield _raw(self._formula(token.content))
            elif token.type == "link_open":
                in_link += 1
                token.attrs["href"] = self._sound(self.book.link, self.page, token.attrs["href"])
                yield from self._row(token, tokens)
            elif token.type == "link_close":
                in_link -= 1
                yield token
            elif token.type == "image":
                yield _raw(self._image(token))
            elif token.type == "code_inline" and not in_link and (place := PLACE.fullmatch(token.content)):
                there = (self.book.root / place[1]).exists()
                yield _raw(self.place(token.content, token.content)) if there else token
            elif token.type in ("text", "text_special") and not in_link:
                yield _raw(self._text(token.content, bare=strong > 0))
            else:
                strong += {"strong_open": 1, "strong_close": -1}.get(token.type, 0)
                yield token

    def _row(self, token: Token, tokens: list[Token]) -> Iterator[Token]:
        """A link to an equation of the index: to the display itself, and an anchor for the way here."""
        number = tokens[tokens.index(token) + 1].content.strip("()")
        if self.page == "docs/equations.md" and number in self.book.equations:
            token.attrs["href"] += f"#eq-{number}"
            token.attrs["id"] = f"row-{number}"
        yield token

    def _formula(self, tex: str) -> str:
        html = self._sound(self.typeset, tex, False)
        if len(tex) > 45:
            html = f'<span class="long">{html}</span>'
        meaning = self.book.letters.get(tex)
        if meaning and tex not in self.explained and self.page != "docs/notation.md":
            self.explained.add(tex)
            return _gloss(html, f"{unicode(tex)}: usually {meaning}")
        return html

    def _text(self, text: str, bare: bool = False) -> str:
        """Text, escaped, with links to what it names and the first use of a word explained."""
        parts, at = [], 0
        for found in REFERENCE.finditer(text):
            if way := self._target(found.lastgroup, re.search(r"\d+(\.\d+)?", found[0])[0]):
                parts += [self._words(text[at : found.start()], bare), f'<a href="{way}">{escape(found[0])}</a>']
                at = found.end()
        return "".join([*parts, self._words(text[at:], bare)])

    def _target(self, kind: str, number: str) -> str:
        book = self.book
        if kind == "chapter":
            page = book.chapters.get(int(number))
            return book.href(self.page, page) if page and page != self.page else ""
        if kind == "section":
            return self._anchored(book.sections[number]) if number in book.sections else ""
        page = (book.equations if kind == "equation" else book.figures).get(number)
        return self._anchored(f"{page}#{'eq' if kind == 'equation' else 'figure'}-{number}") if page else ""

    def _anchored(self, target: str) -> str:
        page, _, anchor = target.partition("#")
        return f"{'' if page == self.page else self.book.href(self.page, page)}#{anchor}"

    def _words(self, text: str, bare: bool) -> str:
        html = escape(text, quote=False)
        if bare or self.page == "docs/notation.md":
            return html
        for word, meaning in self.book.words.items():
            if word not in self.explained and (found := re.search(rf"\b{word}s?\b(?![^<]*>)", html, flags=re.I)):
                self.explained.add(word)
                before, after = html[: found.start()], html[found.end() :]
                html = before + _gloss(found[0], f"{word}: {meaning}") + after
        return html


def _gloss(html: str, meaning: str) -> str:
    return f'<span class="gloss" tabindex="0" data-tip="{escape(meaning, quote=True)}">{html}</span>'


def _with_math(tokens: list[Token]) -> Iterator[Token]:
    """The tokens of a line, code between dollars as one token `math`."""
    for k, token in enumerate(tokens):
        before = tokens[k - 1].content if k else ""
        after = tokens[k + 1].content if k + 1 < len(tokens) else ""
        if token.type == "code_inline" and before.endswith("$") and after.startswith("$"):
            tokens[k - 1].content = before[:-1]
            tokens[k + 1].content = after[1:]
            token.type = "math"
    yield from tokens


def _alone(token: Token) -> Token | None:
    """The image of a paragraph that has nothing else."""
    children = token.children or []
    return children[0] if len(children) == 1 and children[0].type == "image" else None


def _raw(html: str) -> Token:
    return Token("html_inline", "", 0, content=html)


def _inline_token(children: list[Token]) -> Token:
    return Token("inline", "", 0, children=children)
