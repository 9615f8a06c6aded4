"""The book's own extension, on small books and pages."""

import contextlib
import html
import io
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from sphinx.cmd.build import main as sphinx_build

from rfviz.book import sphinx
from rfviz.lab import code
from rfviz.lab.result import RESULTS
from rfviz.nets.network import network
from rfviz.pages import claims
from rfviz.pages.style import BookFigure, HowMade, Link, page_digest, place, show

PAGE, RESULT = "page rfviz.pages.inactive", "result noise_effect"
NOW = {PAGE: page_digest("rfviz.pages.inactive"), RESULT: RESULTS["noise_effect"].code}


def page(digests: dict[str, str]) -> str:
    return f"<h1>Title<a>#</a></h1><p>text</p>{HowMade({'seed': 0}, digests)._repr_html_()}"


def test_a_page_made_with_this_code_has_no_mark() -> None:
    body = page(NOW)
    assert sphinx.mark(body) == body
    assert sphinx.mark("<h1>Prose</h1>") == "<h1>Prose</h1>"


@pytest.mark.parametrize(
    ("part", "words"),
    [(PAGE, "<code>rfviz.pages.inactive</code>"), (RESULT, "the result <code>noise_effect</code>")],
)
def test_a_page_made_with_other_code_is_marked_below_its_title(part: str, words: str) -> None:
    marked = sphinx.mark(page({**NOW, part: "0" * 16}))
    _, after = marked.split("</h1>")
    assert after.startswith('<div class="admonition warning stale" role="note">')
    assert f"The code of {words} has changed since the results on this page were computed." in after.split("</div>")[0]


def test_what_a_page_does_not_show_is_not_in_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of Gabor filters marks the page that shows them, and no other."""
    shown = {page: page_digest(f"rfviz.pages.{page}") for page in ("orientation", "training")}
    edited = {**code.sources(), "rfviz.pages.orientation": code.sources()["rfviz.pages.orientation"] + "\nx = 1\n"}
    caches = (code.source_digest, code._summary, code._tree)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(code, "sources", lambda: edited)
    now = {page: page_digest(f"rfviz.pages.{page}") for page in shown}
    for cached in caches:
        cached.cache_clear()
    assert now["training"] == shown["training"] and now["orientation"] != shown["orientation"]


def test_code_that_is_gone_or_strange_counts_as_changed() -> None:
    gone = {
        "claim a": "0" * 16, "claim <z>": "0" * 16, "page rfviz.pages.no_such": "0" * 16, "result no_such": "0" * 16,
        "rfviz.responses": "0" * 16,
    }  # fmt: skip
    assert sphinx.changed(gone | claims.code("b")) == [
        "claim (&lt;z&gt;)", "claim (a)",
        "<code>rfviz.pages.no_such</code>", "the result <code>no_such</code>", "<code>rfviz.responses</code>"
    ]  # fmt: skip
    assert "<code>&lt;b&gt;</code>" in sphinx.mark(page({"page <b>": "0"}))


@pytest.mark.parametrize(
    ("module", "old", "new", "letters"),
    [
        ("rfviz.pages.claims", '"rise in', '"growth in', "a"),
        ("rfviz.pages.colour", "stats.share(0", "stats.share(1", "ej"),
        ("rfviz.pages.maximization", "LEAST = 0.7", "LEAST = 0.8", "d"),
    ],
)
def test_what_measures_a_statement_is_told_apart(
    module: str, old: str, new: str, letters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, sources = claims.code(), code.sources()
    caches = (code._tree, code._summary, code.source_digest)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(code, "sources", lambda: {**sources, module: sources[module].replace(old, new)})
    after = claims.code()
    for cached in caches:
        cached.cache_clear()
    assert sources[module] != sources[module].replace(old, new)
    assert {name for name in before if after[name] != before[name]} == {f"claim {letter}" for letter in letters}


def test_links_of_outputs_stay_within_the_one_page_of_the_whole_book() -> None:
    pages = {"claims", "notebooks/02_stimuli"}
    links = {
        "../claims.html#claim-a": "#claim-a", "claims.html": "#document-claims",
        "notebooks/02_stimuli.html": "#document-notebooks/02_stimuli", "https://example.org/claims.html": None,
        "other.html": None,
    }  # fmt: skip
    body = "".join(f'<a href="{link}">x</a>' for link in links)
    found = [each["href"] for each in BeautifulSoup(sphinx.within(body, pages), "html.parser").find_all("a")]
    assert found == [there or link for link, there in links.items()]


def test_the_digests_survive_html() -> None:
    digests = {"rfviz.a&b": '"quoted"'}
    shown = HowMade({}, digests)._repr_html_()
    quoted = shown.split('data-code="')[1].split('"')[0]
    assert json.loads(html.unescape(quoted)) == digests


def test_wide_tables_can_be_reached_and_lists_are_lists() -> None:
    body = '<figure class="align-default" id="table-1"><table></table></figure><figure id="fig-1"></figure>'
    assert sphinx.accessible(body) == body.replace("<figure class", '<figure tabindex="0" class')
    cell = '<div class="cell_output docutils">\n<figure id="fig-1">\n{}\n<figcaption><img src="b"></figcaption>'
    image, wide = '<img alt="of it" src="a">', '<div class="rfviz-wide" tabindex="0"><img alt="of it" src="a"></div>'
    assert sphinx.accessible(cell.format(image)) == cell.format(wide)
    sheet = '<figure class="align-default" id="fig-r5">\n{}\n<figcaption>Two.</figcaption></figure>'
    picture = '<img alt="a sheet" class="sheet" src="_images/a.png" />'
    assert sphinx.accessible(sheet.format(picture)) == sheet.format(
        f'<div class="rfviz-sheet" tabindex="0">{picture}</div>'
    )
    assert sphinx.accessible('<div role="list" class="citation-list">') == '<div class="citation-list">'


def test_a_table_has_one_head() -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 2)], names=["network", "layer"])
    table = pd.DataFrame({"x (%)": [1, 2], "a < b": [3, 4]}, index)
    found = BeautifulSoup(sphinx.readable(table.to_html()), "html.parser").thead
    assert [[cell.text for cell in row.find_all("th", scope="col")] for row in found.find_all("tr")] == [
        ["network", "layer", "x (%)", "a < b"]
    ]
    for other in (table.reset_index(drop=True), table.rename_axis(["network", None]), table.rename_axis("all", axis=1)):
        assert sphinx.readable(other.to_html()) == other.to_html()


def test_the_ends_of_an_interval_in_a_table_stay_in_one_line() -> None:
    table = (
        "<table><tr><td>1 (-2 to +3)</td><td>1% (-2% to +3%, n = 2 images)</td><td>(2 of 3), (a to b)</td></tr></table>"
    )
    found = BeautifulSoup(sphinx.readable(table), "html.parser")
    assert [each.text for each in found.select("span.rfviz-ends")] == ["(-2 to +3)", "(-2% to +3%,"]
    assert found.get_text() == BeautifulSoup(table, "html.parser").get_text()
    three = f"<table><tr>{'<td>1 (-2 to +3)</td>' * 3}</tr></table>"
    for other in (three, table.replace("<table", '<table class="dataframe sentences"'), "<p>1 (-2 to +3)</p>"):
        assert sphinx.readable(other) == other


IMAGE, TEXT = '<img alt="it" src="../_images/it%201.png">', '<a href="explorer.html#resnet34/maxpool/3">3</a>'


def test_links_lie_over_the_pictures_and_lead_to_the_explorer_from_every_page() -> None:
    links = [Link(0.25, 0.5, 0.1, 0.2, f"explorer.html#n/l/{i}", f'"{i}"') for i in range(2)]
    found = sphinx.linked(f"<p>{TEXT}</p>{IMAGE}", {"it 1.png": links}.__getitem__, "../explorer.html")
    page = BeautifulSoup(found, "html.parser")
    assert [each["href"] for each in page.select("a")] == [
        f"../explorer.html#{place}" for place in ("resnet34/maxpool/3", "n/l/0", "n/l/1")
    ]
    first, second = page.select(".rfviz-links > img ~ a")
    assert first["style"] == "left:25.00%;top:50.00%;width:10.00%;height:20.00%"
    assert first["title"] == '"0"' and "tabindex" not in f"{first} {second}"
    assert sphinx.linked(IMAGE, lambda name: [], "explorer.html") == IMAGE


def test_of_many_links_in_a_picture_the_tabulator_key_stops_at_the_first() -> None:
    links = [Link(0, 0, 1, 1, f"explorer.html#{i}", str(i)) for i in range(sphinx.FEW + 1)]
    few, many = (
        BeautifulSoup(sphinx.linked(IMAGE, lambda name, some=some: some, "explorer.html"), "html.parser").select("a")
        for some in (links[1:], links)
    )
    assert [each.get("tabindex") for each in few] == [None] * sphinx.FEW
    assert [each.get("tabindex") for each in many] == [None, *["-1"] * sphinx.FEW]


def test_without_an_explorer_nothing_is_a_link() -> None:
    assert sphinx.linked(f"<p>{TEXT}, {TEXT}</p>{IMAGE}", lambda name: [], None) == f"<p>3, 3</p>{IMAGE}"


@pytest.mark.parametrize(("builder", "explorer"), [("html", True), ("html", False), ("singlehtml", True)])
def test_pictures_of_a_book_are_linked(tmp_path: Path, builder: str, explorer: bool) -> None:
    figure = BookFigure(1.0)
    show(figure.subplots(), torch.ones(3, 7, 7), of=place(network("resnet34"), "maxpool", 3))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "figure.png").write_bytes(figure._repr_png_())
    (tmp_path / "sub" / "page.md").write_text(f"# Page\n\n```{{image}} figure.png\n:alt: it\n```\n\nNumber {TEXT}.\n")
    if explorer:
        (tmp_path / "explorer.md").write_text("# Explorer\n")
    contents = "sub/page\nexplorer" if explorer else "sub/page"
    text = f"# Book\n\n```{{toctree}}\n{contents}\n```\n\n```{{image}} dot.png\n:alt: dot\n```\n"
    assert build(tmp_path, text, builder) == ""
    file = "sub/page.html" if builder == "html" else "index.html"
    page = BeautifulSoup((tmp_path / "out" / file).read_text(), "html.parser")
    linked = ["../explorer.html#resnet34/maxpool/3"] * 2 if explorer and builder == "html" else []
    assert [each["href"] for each in page.select("a[href*='resnet34']")] == linked
    assert len(page.select(".rfviz-links > img")) == len(linked) / 2 and "Number " in page.get_text()


def build(folder: Path, text: str, builder: str = "html") -> str:
    """Build a book of one page, and others that are there, and return what Sphinx says."""
    (folder / "conf.py").write_text('extensions = ["myst_parser", "rfviz.book.sphinx"]\n')
    (folder / "index.md").write_text(text)
    (folder / "dot.png").write_bytes(b"")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        sphinx_build(["-q", "-b", builder, str(folder), str(folder / "out")])
    return said.getvalue()


def test_a_picture_without_alternative_text_is_a_warning(tmp_path: Path) -> None:
    said = build(tmp_path, "# A page\n\n```{image} dot.png\n```\n\n```{image} dot.png\n:alt: a dot\n```\n")
    assert said.count("has no alternative text") == 1
    assert "index.md" in said and "dot.png" in said


def test_an_explorer_without_files_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "runs"))
    source = '# A page\n\n<div class="rfviz-explorer" data-run="mine"></div>\n'
    assert "there is nothing to explore in" in build(tmp_path, source)
    (tmp_path / "runs" / "mine" / "explorer").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "explorer" / "manifest.js").write_text("here")
    assert build(tmp_path, source + "\n") == ""
    assert (tmp_path / "out" / "explorer" / "manifest.js").read_text() == "here"


def test_of_several_pages_in_one_each_has_its_own_mark() -> None:
    """As in the PDF, where only the first title is an h1."""
    new, old = NOW, {PAGE: "0" * 16}
    parts = [f'<span id="document-{i}"></span>{page(code)}' for i, code in enumerate((new, old, new))]
    marked = sphinx.mark("".join(parts).replace("h1>", "h2>").replace("h2>", "h1>", 2))
    after_titles = [part.split(">", 1)[1] for part in marked.split("<a>#</a></h")[1:]]
    assert [part.startswith('<div class="admonition warning stale"') for part in after_titles] == [False, True, False]


def test_the_mark_says_what_to_do() -> None:
    shown = HowMade({}, {PAGE: "0"})._repr_html_()
    assert "computed. Make the book again to compute them with the code of today.</p>" in sphinx.mark(
        f"<h1>Title</h1>{shown}"
    )
