"""The book's own Sphinx extension: a picture without alternative text is a warning, a page whose results are older
than the code says so, channels in pictures are links to the explorer, and the explorer's files go where the page
*Explorer* looks for them.
"""

import html
import json
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from PIL import Image
from sphinx import __display_version__ as sphinx_version
from sphinx.application import Sphinx
from sphinx.util import logging

from rfviz.book import plain
from rfviz.explorer.static import front_end
from rfviz.lab import provenance, run
from rfviz.lab.result import RESULTS
from rfviz.pages import claims
from rfviz.pages.evidence import reference
from rfviz.pages.style import LINKS, HowMade, Link, listed, page_digest

_LOG = logging.getLogger(__name__)


def changed(code: dict[str, str]) -> list[str]:
    """Return what of the code that made a page differs from the given digests, or is gone, as HTML.

    Parameters
    ----------
    code : dict from str to str
        As `rfviz.pages.style.how_made` writes it: ``"page rfviz.pages.inactive"`` or ``"result noise_effect"``, each
        with its digest.
    """
    return [_called(part) for part, digest in sorted(code.items()) if _current(part) != digest]


def _current(part: str) -> str | None:
    kind, _, name = part.partition(" ")
    if kind == "page":
        return page_digest(name)
    if kind == "claim":
        return claims.code().get(part)
    return RESULTS[name].code if kind == "result" and name in RESULTS else None


def _called(part: str) -> str:
    kind, _, name = part.partition(" ")
    if kind == "claim":
        return f"claim ({html.escape(name)})"
    called = f"<code>{html.escape(name or part)}</code>"
    return f"the result {called}" if kind == "result" else called


def mark(body: str) -> str:
    """Put a mark below the title of a page whose results come from other code, as their ``data-code`` says.

    Where several pages are one, each gets its own.
    """
    for found in reversed(list(re.finditer(r'data-code="([^"]*)"', body))):
        stale = changed(json.loads(html.unescape(found[1])))
        below = _below_title(body, found.start())
        if stale and below is not None:
            body = f"{body[:below]}{_stale(stale)}{body[below:]}"
    return body


def _below_title(body: str, place: int) -> int | None:
    """Return where the title of the page ends that a place belongs to."""
    begin = max(0, body.rfind('<span id="document-', 0, place))  # a page within the one page of the whole book
    title = re.compile(r"</h[1-6]>").search(body, begin, place)
    return title and title.end()


def _stale(parts: list[str]) -> str:
    told = f"The code of {listed(parts)} has changed since the results on this page were computed."
    told = f"{told} Make the book again to compute them with the code of today."
    return f'<div class="admonition warning stale" role="note"><p class="admonition-title">Stale</p><p>{told}</p></div>'


HEADS = re.compile(
    r"<thead>\s*<tr[^>]*>((?:\s*<th></th>)+)((?:\s*<th>[^<]+</th>)+)\s*</tr>"
    r"\s*<tr>((?:\s*<th>[^<]+</th>)+)(?:\s*<th></th>)+\s*</tr>\s*</thead>"
)
"""The head of a table as pandas writes it: the names of the columns, and below them those of the index."""


def _one_head(head: re.Match[str]) -> str:
    blank, columns, index = (part.replace("<th>", '<th scope="col">') for part in head.groups())
    return f"<thead><tr>{index}{columns}</tr></thead>" if blank.count("<th") == index.count("<th") else head[0]


TABLE = re.compile(r"<table(?![^>]*sentences).*?</table>", re.DOTALL)
"""A table of numbers."""

ENDS = re.compile(r"\([^()<>,a-z]{1,24} to [^()<>,a-z]{1,24}[,)]")
"""The ends of an interval."""


def _together(table: re.Match[str]) -> str:
    """Keep the ends of each interval in one line, where a row has so few that the table does not become too wide."""
    few = all(len(ENDS.findall(row)) <= 2 for row in table[0].split("<tr"))
    return ENDS.sub(r'<span class="rfviz-ends">\g<0></span>', table[0]) if few else table[0]


def readable(body: str) -> str:
    """Mend the tables of pandas: one head in place of two, and intervals that do not break where there is room."""
    return TABLE.sub(_together, HEADS.sub(_one_head, body))


def accessible(body: str) -> str:
    """Mend what docutils writes so that a keyboard scrolls what is wide, and readers of screens find no empty list."""
    body = re.sub(r'<figure (?=[^>]*id="table-)', '<figure tabindex="0" ', body)
    body = re.sub(
        r'(<figure[^>]*>\s*)(<img[^>]*class="[^"]*\bsheet\b[^>]*>)',
        r'\1<div class="rfviz-sheet" tabindex="0">\2</div>',
        body,
    )
    body = re.sub(
        r"(cell_output[^>]*>\s*<figure[^>]*>\s*)(<img[^>]*>)", r'\1<div class="rfviz-wide" tabindex="0">\2</div>', body
    )
    return body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


FEW = 8
"""Links in a picture, at most, that are all stops of the tabulator key."""


def linked(body: str, links: Callable[[str], Sequence[Link]], explorer: str | None) -> str:
    """Lay links to the explorer over the pictures of channels, and lead those in the text there.

    Parameters
    ----------
    body : str
    links : callable
        Returns those of a picture, given the name of its file.
    explorer : str or None
        Address of the page *Explorer* from this page; None where there is none: then nothing is a link.
    """
    if explorer is None:
        return re.sub(r'<a href="explorer\.html#[^>]*>(.*?)</a>', r"\1", body)
    body = re.sub(
        r'<img[^>]*\bsrc="([^"]*)"[^>]*>', lambda found: _overlaid(found[0], links(Path(unquote(found[1])).name)), body
    )
    return body.replace('href="explorer.html#', f'href="{explorer}#')


def within(body: str, pages: Collection[str]) -> str:
    """Let links to pages, which outputs of notebooks have, lead to their places in the one page of the whole book."""

    def place(found: re.Match[str]) -> str:
        name, anchor = found[1], found[2]
        return f'href="{anchor or f"#document-{name}"}"' if name in pages else found[0]

    return re.sub(r'href="(?:\.\./)?([\w/]+)\.html(#[^"]*)?"', place, body)


def _overlaid(image: str, links: Sequence[Link]) -> str:
    """Lay links over a picture.

    Where there are many, the tabulator key stops at the first only: the explorer has a better way to the others, and
    what follows stays in reach.
    """
    if not links:
        return image
    laid = []
    for i, each in enumerate(links):
        sides = zip(("left", "top", "width", "height"), each[:4], strict=True)
        style = ";".join(f"{side}:{100 * share:.2f}%" for side, share in sides)
        skipped, label = ' tabindex="-1"' if i and len(links) > FEW else "", html.escape(each.label)
        laid.append(f'<a href="{html.escape(each.address)}" title="{label}"{skipped} style="{style}"></a>')
    return f'<div class="rfviz-links">{image}{"".join(laid)}</div>'


def links_of(file: Path) -> list[Link]:
    """Return the links of a picture: what its file says, as figures do, or those of a sheet that is kept."""
    try:
        with Image.open(file) as picture:
            said = picture.info.get(LINKS)
    except OSError:  # a drawing, or none at all
        return []
    return [Link(*each) for each in json.loads(said)] if said else reference.links(file)


PARTS = {
    "thebe": None,  # would run cells on a server elsewhere; twice in every page, and nobody uses it here
    "design": r'class="[^"]*\bsd-',
    "copybutton": r'class="[^"]*\bhighlight',
    "clipboard": r'class="[^"]*\bhighlight',
    "toggle": r'class="[^"]*\b(?:toggle|dropdown)',
}
"""What extensions put into every page, and by what a page is known that uses it."""


def _used(file: Any, body: str) -> bool:
    """Tell whether a page uses a script or a style sheet, going by its name or its text."""
    told = f"{getattr(file, 'filename', None) or ''} {getattr(file, 'attributes', {}).get('body') or ''}".lower()
    for part, sign in PARTS.items():
        if part in told:
            return sign is not None and re.search(sign, body) is not None
    return True


def _mark_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    for kind in ("css_files", "script_files"):
        context[kind] = [file for file in context[kind] if _used(file, context.get("body", ""))]
    if "body" not in context:  # the index, the search
        return
    explored = re.search(r'class="rfviz-explorer" data-run="([^"]+)"', context["body"])
    if explored:
        app.env.rfviz_explored = html.unescape(explored[1])  # type: ignore[attr-defined]
    if doctree is not None and "how-made" not in context["body"]:
        context["body"] += _how_prose_was_made()
    files = {name: Path(app.srcdir, source) for source, name in app.builder.images.items()}
    there = "explorer" in app.env.found_docs and app.builder.name != "singlehtml"
    context["body"] = linked(
        accessible(readable(mark(context["body"]))),
        lambda name: links_of(files[name]) if name in files else [],
        app.builder.get_relative_uri(page, "explorer") if there else None,
    )
    if app.builder.name == "singlehtml":
        context["body"] = within(context["body"], app.env.found_docs)


@cache
def _how_prose_was_made() -> str:
    facts = {
        "results": "none: this page is text",
        "commit": provenance.commit(),
        "Sphinx": sphinx_version,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return HowMade(facts)._repr_html_()


def _check_pictures(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for image in doctree.findall(nodes.image):
        if not str(image.get("alt", "")).strip():
            _LOG.warning("picture %s has no alternative text", image.get("uri"), location=image)


UNUSED = re.compile(r'^ *<script[^>]* src="[^"]*/(?:fontawesome|searchtools|language_data)\.js[^"]*"></script>\n', re.M)
SEARCH_ONLY = re.compile(r'^ *<script src="[^"]*searchindex\.js"></script>\n', re.M)
"""What the theme puts into every page: a second copy of its icons, of 1.5 MB, and what only the page of the search
needs."""


def _lighten(app: Sphinx, failed: Exception | None) -> None:
    if failed or app.builder.format != "html":
        return
    for page in app.outdir.rglob("*.html"):
        if page.name != "search.html":
            text = page.read_text(encoding="utf-8")
            page.write_text(SEARCH_ONLY.sub("", UNUSED.sub("", text)), encoding="utf-8")


def _copy_explorer(app: Sphinx, failed: Exception | None) -> None:
    name = getattr(app.env, "rfviz_explored", None)
    if failed or name is None or app.builder.format != "html":
        return
    source = run.root() / name / "explorer"
    if source.is_dir():
        shutil.copytree(source, app.outdir / "explorer", dirs_exist_ok=True)
        for file, content in front_end().items():
            (app.outdir / "explorer" / file).write_bytes(content)
    else:
        _LOG.warning("there is nothing to explore in %s: run the page Explorer again", source)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect everything; called by Sphinx."""
    plain.connect(app)
    app.connect("html-page-context", _mark_page)
    app.connect("doctree-resolved", _check_pictures)
    app.connect("build-finished", _copy_explorer)
    app.connect("build-finished", _lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
