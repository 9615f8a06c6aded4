"""The whole book as one file."""

from pathlib import Path

import pytest
from browsing import executable

from rfviz.book import html
from rfviz.errors import RfvizError
from rfviz.lab.run import Run

pytestmark = [pytest.mark.book, pytest.mark.thorough]


@pytest.mark.browser
@pytest.mark.skipif(executable() is None, reason="there is no Chromium or Chrome on the PATH")
def test_every_page_is_in_the_pdf(smoke: Run) -> None:
    pypdf = pytest.importorskip("pypdf")
    reader = pypdf.PdfReader(html.pdf(smoke))
    text = " ".join(page.extract_text() for page in reader.pages)
    for words in (
        "Abstract",
        "Methods",
        "Training ResNet34",
        "Fig. 6.",
        "Table 1.",
        "Explorer",
        "Glossary",
        "References",
    ):
        assert words in text, words
    pictures = sum(len(page.images) for page in reader.pages)
    assert pictures > 30


def test_without_a_browser_it_is_said(smoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "BROWSERS", ("no-such-browser",))
    with pytest.raises(RfvizError, match="the PDF needs Chromium or Chrome"):
        html.pdf(smoke)


def test_a_print_that_fails_leaves_the_last_one(smoke: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no display >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(html, "BROWSERS", ("broken",))
    last = smoke.folder / "book.pdf"
    last.write_bytes(b"the last good one")
    with pytest.raises(RfvizError, match="could not print the book: no display"):
        html.pdf(smoke)
    assert last.read_bytes() == b"the last good one"
    last.unlink()
