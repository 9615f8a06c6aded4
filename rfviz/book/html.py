"""From executed notebooks to the book: they are staged beside the prose, and built to HTML or to one PDF.

What is published replaces the last good version only when everything worked: a warning of the build leaves the HTML as
it was.
"""

import base64
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml

from rfviz.book import kernels, launch
from rfviz.book.batch import choose, is_notebook, run_notebooks, software, sources
from rfviz.book.process import PRELOAD
from rfviz.errors import RfvizError
from rfviz.lab import forks, provenance
from rfviz.lab.run import Run
from rfviz.storage import places
from rfviz.storage.digests import digest, file_digests
from rfviz.storage.files import HALF_WRITTEN, atomic
from rfviz.storage.lock import locked

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Names under which the browser that prints is looked for."""

PRINTING = 300
"""Seconds that a browser may take to print."""


def check_executed(run: Run) -> None:
    """Raise RfvizError unless every notebook of the book has been run into the run's folder."""
    for name in choose():
        path = run.folder / "book" / f"{name}.ipynb"
        if not path.exists():
            raise RfvizError(f"{path} is not there: run the notebooks first, with `rfviz book -p {run.given.name}`.")


def stage(run: Run) -> Path:
    """Put prose, bibliography, table of contents and configuration beside the executed notebooks; return the folder."""
    root, folder = places.repository(), run.folder / "book"
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["execute"]["execute_notebooks"] = "off"
    config["exclude_patterns"].remove("notebooks/*.ipynb")  # here, they are what is built
    launch.configuration(config, launch.address())
    with atomic(folder / "_config.yml") as temporary:
        temporary.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    notebooks = {name: is_notebook(page) for name, page in sources().items()}
    for old in [*folder.glob("*.md"), *folder.glob("*.ipynb"), *folder.glob("notebooks/*.ipynb")]:
        if notebooks.get(old.relative_to(folder).with_suffix("").as_posix()) != (old.suffix == ".ipynb"):
            old.unlink()  # a page that the book no longer has, or has as another kind
    pages = [f"{name}.md" for name, executed in notebooks.items() if not executed]
    parts = [root / "book" / part for part in ("_static", "reference", "evidence")]
    others = [file for part in parts for file in sorted(part.rglob("*")) if file.is_file()]
    for source in [*(root / "book" / name for name in ("_toc.yml", "references.bib", *pages)), *others]:
        with atomic(folder / source.relative_to(root / "book")) as temporary:
            shutil.copyfile(source, temporary)
    with atomic(folder / "_static" / "preview.png") as temporary:
        temporary.write_bytes(_first_picture(folder / "index.ipynb"))
    return folder


def _first_picture(notebook: Path) -> bytes:
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise RfvizError(f"{notebook} shows no picture: run the notebooks again, with `rfviz book`.")


def book(run: Run, parameters: Mapping[str, Any], of: str) -> Path:
    """Run the notebooks, build the HTML, and return the page to open.

    Parameters
    ----------
    run : Run
    parameters : mapping
        Of the notebooks.
    of : str
        What `rfviz.book.batch.made_of` returned: notebooks that are made of the same are not run again.
    """
    with locked(run.folder, "book"):
        run_notebooks(run, parameters, of=of)
        return build(run)


def build(run: Run) -> Path:
    """Build the staged book with jupyter-book, warnings being errors, and return the page to open.

    Where the last build was made of the same, and its files are as it wrote them, it stays.

    Raises
    ------
    RfvizError
        If the build fails or warns; the HTML of the last good build stays.
    """
    html, sealed = run.folder / "html", run.folder / "html.seal"
    with _building(run) as (folder, temporary):
        if not html.exists() and _old(html).exists():
            _old(html).rename(html)  # the last build was killed while it changed places
        made_of = [file_digests(folder), file_digests(run.folder / "explorer"), software(), provenance.commit()]
        if not sealed.exists() or sealed.read_bytes() != digest([made_of, file_digests(html)]).encode():
            replace_folder(_built(folder, temporary, "html", run.folder / "build.log"), html)
            with atomic(sealed) as new:
                new.write_bytes(digest([made_of, file_digests(html)]).encode())
    return html / "index.html"


def pdf(run: Run) -> Path:
    """Print the staged book, all pages in one, with a headless Chromium, and return the PDF.

    Raises
    ------
    RfvizError
        If there is no Chromium or Chrome, or a build fails; the last good PDF stays.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise RfvizError("the PDF needs Chromium or Chrome, and neither is on the PATH: install one of them.")
    with _building(run) as (folder, temporary):
        whole = _built(folder, temporary, "singlehtml", run.folder / "build.log")
        with atomic(run.folder / "book.pdf") as target:
            options = ["--headless", "--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=60000"]
            if os.name == "posix" and os.geteuid() == 0:
                options.append("--no-sandbox")  # Chromium refuses to run as root with it
            command = [browser, *options, f"--user-data-dir={temporary}/profile", f"--print-to-pdf={target}"]
            page = (whole / "index.html").as_uri()
            try:
                done = subprocess.run([*command, page], capture_output=True, text=True, timeout=PRINTING)
            except subprocess.TimeoutExpired as error:
                raise RfvizError(f"{browser} has not printed the book after {PRINTING} s.") from error
            if done.returncode or not target.stat().st_size:
                raise RfvizError(f"{browser} could not print the book: {done.stderr.strip()[-300:]}")
    return run.folder / "book.pdf"


@contextlib.contextmanager
def _building(run: Run) -> Iterator[tuple[Path, Path]]:
    """Give the staged book and a folder to build in; no other process writes to either meanwhile."""
    with (
        locked(run.folder, "book"),
        tempfile.TemporaryDirectory(dir=run.folder, prefix=".book-", suffix=".part") as temporary,
    ):
        for folder in ("book", "explorer"):
            for left in (run.folder / folder).rglob(HALF_WRITTEN):
                left.unlink(missing_ok=True)
        yield stage(run), Path(temporary)


def _built(folder: Path, to: Path, builder: str, log: Path) -> Path:
    """Run jupyter-book, warnings being errors, and return the folder that it wrote."""
    arguments = ["build", str(folder), "--path-output", str(to), "--all", "-W", "--keep-going"]
    arguments += [] if builder == "html" else ["--builder", "custom", "--custom-builder", builder]
    environment = {**os.environ, "RFVIZ_RUNS": str(folder.parents[1])}  # where the explorer's files are
    if forks.begin(PRELOAD):
        code = kernels.call("jupyter_book.cli.main", arguments, environment, log)
    else:
        program = Path(sys.executable).with_name("jupyter-book")  # the one of this environment
        with log.open("wb") as file:
            code = subprocess.run([program, *arguments], stdout=file, stderr=file, env=environment).returncode
    if code:
        said = log.read_text(encoding="utf-8", errors="replace")
        raise RfvizError(f"jupyter-book failed: {_first_complaint(said)} The whole output is in {log}.")
    return to / "_build" / builder


def _first_complaint(output: str) -> str:
    lines = [line for line in output.splitlines() if re.search(r"WARNING|ERROR|Error:", line)]
    return re.sub(r"\x1b\[[0-9;]*m", "", lines[0]).strip() if lines else "it said nothing."


def replace_folder(new: Path, target: Path) -> None:
    """Put a folder in the place of another, which stays whole until the new one is there."""
    old = _old(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
