"""The site: what it makes of Markdown, by small functions; and, slow, all of it in a browser as a reader has it."""

import ast
import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from book import Book, Fault, plain, site_path, slug, unicode
from font import characters
from moving import MOVING
from pages import Renderer
from reference import Reference, reference_path, signature, with_lines

from tests.oracles.book import ROOT

PAGE = "docs/chapters/03-score-matching.md"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def shown(text, page=PAGE, **told):
    """The staged form of a page that says `text`: formulas as <math>tex</math>, code as <pre>."""
    book = Book()
    book.equations = {"3.4": PAGE, "1.9": book.chapters[1]}
    for name, value in told.items():
        setattr(book, name, value)
    book.text = lambda there: text if there == page else (ROOT / there).read_text(encoding="utf-8")
    renderer = Renderer(book, lambda tex, display: f"<math>{tex}</math>", lambda code, _: f"<pre>{code}</pre>")
    return renderer(page)


@pytest.mark.parametrize(
    ("path", "site"),
    [
        ("README.md", "index.html"),
        ("docs/README.md", "contents.html"),
        ("docs/notation.md", "notation.html"),
        ("docs/decisions/README.md", "decisions/index.html"),
        ("docs/figures/05-pipeline.svg", "figures/05-pipeline.svg"),
        ("refscore/noise/sde.py", "source/refscore/noise/sde.py.html"),
        ("backends/README.md", "source/backends/index.html"),
        ("tests/oracles", "source/tests/oracles/index.html"),
    ],
)
def test_every_file_has_one_place(path, site):
    assert site_path(path) == site


def test_anchors_are_githubs():
    assert slug("5.1 Data on a manifold have no score") == "51-data-on-a-manifold-have-no-score"
    assert slug("What's `new`?") == "whats-new"


def test_formulas_in_tooltips_are_unicode():
    assert plain(r"noise, $`x_t = \alpha x_0 + \sigma z`$ of [width](a.md) `h`") == "noise, x_t = αx_0 + σz of width h"
    assert unicode(r"\tfrac12 \mathbb E\|s\|^2") == "½ E‖s‖²"
    assert unicode(r"\bar\alpha_i") == "α\u0304_i"


def test_both_kinds_of_formula_are_typeset():
    page = shown("# 3. A\n\nOf $`a_b * c`$ and `code`, $5.\n\n```math\nx = y. \\tag{3.4}\n```\n")
    assert "Of <math>a_b * c</math> and <code>code</code>, $5." in page
    assert '<div class="equation" id="eq-3.4">' in page
    assert "<math>x = y.</math>" in page
    assert "tag" not in page


def test_below_a_display_stand_its_code_and_its_tests():
    places = {
        "refscore": ["refscore/laws/mixture.py::GaussianMixture", "refscore/laws/mixture.py::_hidden"],
        "tests": [f"tests/test_site.py::test_{name}" for name in ("every_file_has_one_place", "b", "c")],
    }
    page = shown("# 3. A\n\n```math\nx \\tag{3.4}\n```\n", cited=lambda folder, _: places[folder])
    code, test = re.search(r'<p class="provenance">(.*?)</p>', page)[1].split(" · ")
    assert '<a href="../reference/laws/mixture.html#GaussianMixture"><code>GaussianMixture</code></a>' in code
    assert '<a href="../source/refscore/laws/mixture.py.html"><code>_hidden</code></a>' in code
    assert re.search(r'"../source/tests/test_site.py.html#line-\d+">every file has one place</a>', test)
    assert test.endswith('<a href="../equations.html#row-3.4">1 more</a>')


def test_an_equation_named_in_text_is_a_link_and_in_code_is_not():
    page = shown("# 3. A\n\nBy (3.4) and (1.9), not (99.9); `(3.4)`, [see (3.4)](../gpu.md#b), $`f(3.4)`$.\n")
    assert (
        '<a href="#eq-3.4">(3.4)</a> and <a href="01-energies-scores-fisher.html#eq-1.9">(1.9)</a>, not (99.9)' in page
    )
    assert page.count("#eq-3.4") == 1


def test_chapters_sections_and_figures_named_in_text_are_links():
    sections = {"6.3": "docs/chapters/06-noise-at-many-scales.md#63-annealed"}
    figures = {"5.2": "docs/chapters/05-three-failures.md"}
    page = shown(
        "# 3. A\n\nChapter 5, chapter 3, section 6.3, Figure 5.2, figure 7.77.\n", sections=sections, figures=figures
    )
    assert '<a href="05-three-failures.html">Chapter 5</a>, chapter 3, ' in page
    assert '<a href="06-noise-at-many-scales.html#63-annealed">section 6.3</a>' in page
    assert '<a href="05-three-failures.html#figure-5.2">Figure 5.2</a>, figure 7.77' in page


def test_a_picture_and_its_caption_are_one_figure():
    image = "# 3. A\n\n![alt & all](../benchmarks.png)\n\n"
    page = shown(image + "**Figure 3.1.** Look *left* at (3.4).\n\nAfter.\n")
    assert '<figure id="figure-3.1"><img src="../benchmarks.png" alt="alt &amp; all"' in page
    assert "<em>left</em> at <a" in re.search(r"<figcaption>(.*?)</figcaption>", page)[1]
    assert "<p>After.</p>" in page
    assert "figcaption" not in shown(image + "No caption.\n")


def test_a_figure_moves_below_the_still_one_of_its_name():
    still = next((ROOT / "docs" / "figures").glob("06-fields.*"))
    page = shown(f"# 3. A\n\n![a](../figures/{still.name})\n\n**Figure 6.1.** Look.\n")
    assert page.index('id="figure-6.1"') < page.index('id="moving-06-fields"')
    assert "url(../assets/moving-06-fields.png)" in page
    everywhere = "".join(Book().text(page) for page in Book().chapters.values())
    for name, moving in MOVING.items():
        assert f"figures/{name}." in everywhere
        assert len(set(moving.values)) == len(moving.values)
        assert moving.told.startswith(f"Move {moving.letter}")


def test_the_first_use_of_a_word_is_explained():
    page = shown("# 3. A\n\nTwo **nats**, 3 nats, a Law.\n", words={"nat": "unit, a law", "law": 'a "law"'})
    assert '3 <span class="gloss" tabindex="0" data-tip="nat: unit, a law">nats</span>' in page
    assert '<span class="gloss" tabindex="0" data-tip="law: a &quot;law&quot;">Law</span>' in page
    assert page.count("gloss") == 2
    assert {"law", "nat", "tangent"} <= set(Book().words)


def test_a_letter_with_two_meanings_is_not_explained():
    letters = Book().letters
    assert letters["p_\\sigma"].startswith("law of the data with noise")
    assert not {"s", "\\lambda", "c", "g"} & set(letters)


def test_headings_keep_githubs_anchors_also_the_second_of_a_name():
    page = shown("# 3. A\n\n## 3.1 On `x` and $`\\sigma`$\n\n## Same\n\n## Same\n")
    assert "## 3.1 On x and σ {#31-on-x-and-σ}" in page
    assert "## Same {#same}" in page
    assert "## Same {#same-1}" in page


@pytest.mark.parametrize("fault", ["[a](nowhere.md)", "![a](../figures/none.png)"])
def test_what_leads_nowhere_is_a_fault_of_its_page(fault):
    with pytest.raises(Fault, match=r"03-score-matching.*there is no"):
        shown(f"# 3. A\n\n{fault}\n")
    with pytest.raises(Fault) as told:
        shown(f"# 3. A\n\n{fault} {fault}\n")
    assert len(str(told.value).splitlines()) == 2  # all of a page are told at once


def test_links_to_code_lead_to_the_site():
    page = shown(
        "# 3. A\n\n[a](../../refscore/noise/sde.py), `tests/test_site.py`, [b](../README.md#x), [c](https://a.org)\n"
    )
    for way in (
        "../source/refscore/noise/sde.py.html",
        "../source/tests/test_site.py.html",
        "../contents.html#x",
        "https://a.org",
    ):
        assert f'href="{way}"' in page


def test_what_is_printed_stands_apart_from_code():
    page = shown("# 3. A\n\n```python\nprint(1)\n```\n```text\n1\n```\n\nText.\n\n```text\nfile\n```\n")
    assert page.count('<div class="output"><pre>') == 1


def test_the_reference_says_what_a_docstring_says():
    book = Book()
    reference = Reference(book, Renderer(book, str, lambda code, _: f"<pre>{code}</pre>"))
    page = reference.module("refscore/laws/mixture.py")
    assert "## GaussianMixture {#GaussianMixture}" in page
    assert "### GaussianMixture.score {#GaussianMixture.score}" in page
    assert re.search(r'<a href="../../chapters/01-[\w-]+.html#eq-(1\.\d+)">\(\1\)</a>', page)
    assert "<dt><code>weights</code> <span class='kind'>Array, shape (K,)</span></dt>" in page
    assert "_axes" not in page
    assert reference_path("refscore/laws/mixture.py", "GaussianMixture.score").endswith(
        "mixture.html#GaussianMixture.score"
    )
    assert reference_path("refscore/laws/mixture.py", "GaussianMixture._hidden") == ""
    assert reference_path("tests/test_site.py") == ""


def test_each_line_of_a_source_has_an_anchor():
    assert with_lines("<pre><code>a\nb\n</code></pre>").count('id="line-') == 2
    short, long = ast.parse(f"def f(a, *, b=(1, 2)): ...\ndef f({'a' * 60}, b={'b' * 60}) -> None: ...").body
    assert signature(short) == "def f(a, *, b=(1, 2))"
    assert signature(long) == f"def f(\n    {'a' * 60},\n    b={'b' * 60},\n) -> None"


# From here on: the whole site, built strictly, in a browser.


class Links(HTMLParser):
    """All anchors of a page, and all places it leads to."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.ways = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        self.anchors |= {told[name] for name in ("id", "name") if told.get(name)}
        self.ways |= {told[name] for name in ("href", "src") if told.get(name) and tag != "link"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built by its one command."""
    for name in ("zensical", "math_core", "ziamath", "fontTools"):
        pytest.importorskip(name, reason='the site needs pip install -e ".[docs]"')
    out = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, ROOT / "docs" / "site", "--strict", "--out", out]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


@pytest.fixture(scope="module")
def address(site):
    """Where a server of this machine shows it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason='the browser is driven by pip install -e ".[docs]"')
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium with its chromedriver on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def screen(browser, width, dark=False):
    """Give the browser a screen: of a telephone below 500 pixels."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def pages(site, sources=12):
    """All pages of the site; of the sources, which are alike, a few."""
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    code = [name for name in names if name.startswith("source/")]
    return [name for name in names if name not in code] + code[:: max(1, len(code) // sources)]


READ = """
const shown = [...document.querySelectorAll('article *')].filter(e => !e.closest('pre, code, math, script, style'));
const text = shown.flatMap(e => [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data)).join(' ');
const left = text.match(/\\$`|`\\$|\\\\(tag|frac|mathbb|sigma|begin)/);
const flat = [...document.querySelectorAll('article math')]
  .filter(m => m.getBoundingClientRect().height < 2);
return {wide: Math.max(document.documentElement.scrollWidth, window.innerWidth), left: left && left[0],
  errors: document.querySelectorAll('merror').length, flat: flat.length, title: document.querySelectorAll('h1').length};
"""


@pytest.mark.slow
def test_every_link_and_anchor_of_the_site_leads_somewhere(site):
    there = {
        path.relative_to(site).as_posix(): Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }
    lost = []
    for page, links in there.items():
        if page == "404.html":
            continue  # shown at any address, so its ways are from the root
        for way in links.ways:
            parts = urlsplit(way)
            if parts.scheme or parts.netloc:
                continue
            target = (site / page).parent / unquote(parts.path) if parts.path else site / page
            name = Path(target).resolve().relative_to(site.resolve()).as_posix()
            name = "index.html" if name == "." else f"{name}/index.html" if (site / name).is_dir() else name
            if not (site / name).is_file():
                lost.append(f"{page}: {way}")
            elif parts.fragment and name in there and unquote(parts.fragment) not in there[name].anchors:
                lost.append(f"{page}: {way}: no such anchor")
    assert lost == []
    assert len(there) > 200


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere_nothing_fails_and_no_formula_is_left(site, address, browser):
    """At the width of a telephone too nothing scrolls sideways but formulas, tables and code in themselves."""
    screen(browser, 390)
    browser.get_log("browser")
    browser.get_log("performance")
    faults = []
    for page in pages(site):
        browser.get(address + page)
        browser.execute_async_script("document.fonts.ready.then(arguments[0])")
        found = browser.execute_script(READ)
        if found != {"wide": 390, "left": None, "errors": 0, "flat": 0, "title": 1}:
            faults.append((page, found))
        messages = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        faults += [(page, entry["message"]) for entry in messages]
        for entry in browser.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if not url.startswith((address, "data:", "blob:")):
                    faults.append((page, url))
    assert faults == []


@pytest.mark.slow
def test_all_pictures_are_there(site, address, browser):
    screen(browser, 1280)
    for page in pages(site, sources=1):
        if "<figure" in (site / page).read_text(encoding="utf-8"):
            browser.get(address + page)
            script = "return [...document.images].map(i => {i.loading = 'eager'; return i.decode()}) && 0"
            browser.execute_script(script)
            decoded = "Promise.all([...document.images].map(i => i.decode()))"
            wait = f"{decoded}.then(() => arguments[0](1), () => arguments[0](0))"
            assert browser.execute_async_script(wait), page


@pytest.mark.slow
def test_search_finds_tweedie_and_leads_to_it(address, browser):
    screen(browser, 1280)
    browser.get(address + "index.html")
    browser.execute_script("document.querySelector('.md-search__button').click()")
    time.sleep(1)
    pytest.importorskip("selenium.webdriver").ActionChains(browser).send_keys("Tweedie").perform()
    ways = []
    for _ in range(40):
        time.sleep(0.25)
        ways = browser.execute_script(FOUND)
        if ways:
            break
    assert any("chapters/" in way for way in ways), ways
    browser.get(next(way for way in ways if "chapters/" in way))
    assert "Tweedie" in browser.execute_script("return document.querySelector('article').innerText")


FOUND = """
const roots = [document, ...[...document.querySelectorAll('*')].map(e => e.shadowRoot).filter(Boolean)];
const links = roots.flatMap(r => [...r.querySelectorAll('a[href]')]);
return links.filter(a => /tweedie/i.test(a.textContent) || /[?&]h(ighlight)?=/.test(a.href)).map(a => a.href);
"""


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_by_day_and_by_night(address, browser, dark):
    screen(browser, 1280, dark)
    browser.get(address + "chapters/05-three-failures.html")
    script = """
    const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const fill = s => { c.fillStyle = s; c.fillRect(0, 0, 1, 1); };
    const rgb = s => { fill(s); return [...c.getImageData(0, 0, 1, 1).data].slice(0, 3); };
    const paper = rgb(getComputedStyle(document.body).backgroundColor);
    const over = s => { fill(`rgb(${paper})`); return rgb(s); };
    const of = q => over(getComputedStyle(document.querySelector(q)).color);
    const kinds = {text: 'article p', link: 'article p a', formula: 'article math', small: '.provenance'};
    return {paper, ...Object.fromEntries(Object.entries(kinds).map(([kind, q]) => [kind, of(q)]))};
    """
    colours = browser.execute_script(script)
    paper = light(colours.pop("paper"))
    assert (paper < 0.1) is dark
    for name, colour in colours.items():
        a, b = sorted((light(colour), paper))
        assert (b + 0.05) / (a + 0.05) >= 4.5, name  # WCAG 2, level AA


def light(colour):
    """Relative luminance of a colour (WCAG 2)."""
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.slow
def test_one_reads_from_chapter_to_chapter(site, address, browser):
    screen(browser, 1280)
    numbers = sorted(Book().chapters)
    browser.get(f"{address}{site_path(Book().chapters[1])}")
    for number in numbers[1:]:
        way = browser.execute_script("return document.querySelector('a.md-footer__link--next').href")
        browser.get(way)
        assert browser.execute_script("return document.querySelector('h1').innerText").startswith(f"{number}. ")
    assert browser.execute_script("return document.querySelector('a.md-footer__link--prev').href")


@pytest.mark.slow
def test_a_word_is_explained_where_it_is_pointed_at(address, browser):
    screen(browser, 390)
    browser.get(address + "chapters/02-langevin-dynamics.html")
    script = """
    const word = document.querySelector('.gloss'); word.focus();
    return getComputedStyle(word, '::after').content;
    """
    assert len(browser.execute_script(script)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", MOVING)
def test_a_slider_moves_its_figure_by_the_keyboard(site, address, browser, name):
    screen(browser, 390)
    page = next(page for page in Book().chapters.values() if f"figures/{name}." in Book().text(page))
    browser.get(address + site_path(page))
    slider = browser.find_element("css selector", f"#moving-{name} input")
    script = """
    const figure = arguments[0].closest('.moving');
    return ['output', '.frames'].map(q => [figure.querySelector(q)].map(
      e => q === 'output' ? e.textContent : getComputedStyle(e).backgroundPosition)[0]);
    """
    before = browser.execute_script(script, slider)
    slider.send_keys("\ue014")  # the arrow to the right
    after = browser.execute_script(script, slider)
    values = [f"{value:g}" for value in MOVING[name].values]
    assert values.index(after[0]) == values.index(before[0]) + 1
    assert before[1] != after[1]
    assert (site / "assets" / f"moving-{name}.png").stat().st_size < 2**20


@pytest.mark.parametrize(
    ("formula", "sign"), [("<msqrt><mi>x</mi></msqrt>", "√"), ("<mroot><mi>x</mi><mn>3</mn></mroot>", "√")]
)
def test_the_font_has_the_signs_that_a_browser_draws_by_itself(formula, sign, tmp_path):
    """A root is an element, not a character: without its sign in the font (22.2) lost its root."""
    (tmp_path / "page.md").write_text(f"<math>{formula}</math>", encoding="utf-8")
    assert sign in characters(tmp_path)
    (tmp_path / "page.md").write_text("<math><mi>x</mi></math>", encoding="utf-8")
    assert sign not in characters(tmp_path)
