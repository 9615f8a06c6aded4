"""Plain ``jupyter-book build book``: notebooks are run as `rfviz book` runs them, and their pages read from there.

Left to itself, myst-nb runs all notebooks at every build, one after another. Here several run at a time, with the
progress to be seen, and only those whose text, results or code has changed since they ran last.
"""

from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

from rfviz.book import batch
from rfviz.errors import RfvizError
from rfviz.lab.run import open_run

_LOG = logging.getLogger(__name__)


def parameters(root: Path) -> dict[str, Any]:
    """Return the parameters of the notebooks below a folder with the values that stand there.

    Raises
    ------
    ValueError
        If two notebooks have different values, as after one was edited: then they do not show the same run.
    """
    found = dict[str, Any]()
    for name, page in batch.choose(root=root).items():
        for parameter, value in batch.defaults(page).items():
            if found.setdefault(parameter, value) != value:
                raise ValueError(f"{parameter} is {value!r} in {name} and {found[parameter]!r} before it")
    return found


def run(root: Path) -> dict[str, Path]:
    """Run the notebooks below a folder with the parameters that stand there, where that has not been done.

    Parameters
    ----------
    root : Path
        See `rfviz.book.batch.sources`.

    Returns
    -------
    dict from str to Path
        Where the executed notebook of each page is.

    Raises
    ------
    RfvizError
        If something cannot be computed, or a cell fails.
    ValueError
        See `parameters`.
    """
    given = parameters(root)
    opened = open_run(given["preset"], given["seed"], **given["overrides"])
    given["channels"] = list(opened.channels(given["channels"]).values())  # as `rfviz book` gives them
    replicas = opened.replicas(given["seeds"])
    batch.compute(replicas)
    batch.run_notebooks(opened, given, of=batch.made_of(replicas), root=root)
    return {name: opened.folder / "book" / f"{name}.ipynb" for name in batch.choose(root=root)}


def executed(text: str, notebook: str) -> nbformat.NotebookNode:
    """Return the executed notebook of a page, which myst-nb then takes as it is; `text` is that of the page."""
    found = nbformat.read(notebook, as_version=4)
    found.metadata["mystnb"] = {"execution_mode": "off"}
    return found


def _run(app: Sphinx) -> None:
    root = Path(app.srcdir).parent
    app.rfviz_executed = {}  # type: ignore[attr-defined]
    if app.config.nb_execution_mode != "force" or not (root / "_toc.yml").is_file():
        return
    try:
        notebooks = run(root)
    except RfvizError as error:
        raise ExtensionError(str(error)) from error
    except ValueError as error:
        _LOG.info("the notebooks do not show the same run (%s): they are run one after another", error)
        return
    readers = {
        str(Path(app.srcdir, f"{name}.md")): (f"{__name__}.executed", {"notebook": str(file)}, False)
        for name, file in notebooks.items()
    }
    app.env.mystnb_config = app.env.mystnb_config.copy(custom_formats=readers)  # type: ignore[attr-defined]
    app.rfviz_executed = notebooks  # type: ignore[attr-defined]


def _depends(app: Sphinx, page: str, source: list[str]) -> None:
    if page in app.rfviz_executed:  # type: ignore[attr-defined]
        app.env.note_dependency(str(app.rfviz_executed[page]))  # type: ignore[attr-defined]


def connect(app: Sphinx) -> None:
    """Let a build run the notebooks before it reads the pages; called by the book's extension."""
    app.connect("builder-inited", _run, priority=900)  # after myst-nb has read its configuration
    app.connect("source-read", _depends)
