"""Plain ``jupyter-book build book``: notebooks are run as `rfviz book` runs them, and their pages read from there.

Left to itself, myst-nb runs all notebooks at every build, one after another. Here several run at a time, with the
progress to be seen, and only those whose text, results or code has changed since they ran last.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

from rfviz.book import batch, process
from rfviz.errors import RfvizError
from rfviz.lab.run import open_run
from rfviz.storage import places

_LOG = logging.getLogger(__name__)


def parameters() -> dict[str, Any]:
    """Return the parameters of the notebooks with the values that stand there.

    Raises
    ------
    ValueError
        If two notebooks have different values, as after one was edited: then they do not show the same run.
    """
    found = dict[str, Any]()
    for name, page in batch.choose().items():
        for parameter, value in batch.defaults(page).items():
            if found.setdefault(parameter, value) != value:
                raise ValueError(f"{parameter} is {value!r} in {name} and {found[parameter]!r} before it")
    return found


def run(given: Mapping[str, Any]) -> dict[str, Path]:
    """Run the notebooks, where that has not been done, and return where each of them is by the name of its page.

    Parameters
    ----------
    given : mapping
        What `parameters` returned.

    Raises
    ------
    RfvizError
        If something cannot be computed, or a cell fails.
    """
    opened = open_run(given["preset"], given["seed"], **given["overrides"])
    channels = list(opened.channels(given["channels"]).values())  # as `rfviz book` gives them
    replicas = opened.replicas(given["seeds"])
    batch.compute(replicas)
    batch.run_notebooks(opened, {**given, "channels": channels}, of=batch.made_of(replicas))
    return {name: opened.folder / "book" / f"{name}.ipynb" for name in batch.choose()}


def executed(text: str, notebook: str) -> nbformat.NotebookNode:
    """Return the executed notebook of a page, which myst-nb then takes as it is; `text` is that of the page."""
    found = nbformat.read(notebook, as_version=4)
    found.metadata["mystnb"] = {"execution_mode": "off"}
    return found


def _run(app: Sphinx) -> None:
    if Path(app.srcdir).parent != places.repository() or app.config.nb_execution_mode != "force":
        return  # the first of the two also where there is no myst-nb
    try:
        given = parameters()
    except ValueError as error:
        _LOG.info("the notebooks do not show the same run (%s): they are run one after another", error)
        return
    process.prepare()
    try:
        notebooks = run(given)
    except RfvizError as error:
        raise ExtensionError(str(error)) from error
    app.env.mystnb_config = app.env.mystnb_config.copy(  # type: ignore[attr-defined]
        custom_formats={
            app.env.doc2path(name): (f"{__name__}.executed", {"notebook": str(file)}, False)
            for name, file in notebooks.items()
        }
    )
    app.connect("source-read", _depends)


def _depends(app: Sphinx, page: str, source: list[str]) -> None:
    reader = app.env.mystnb_config.custom_formats.get(app.env.doc2path(page))  # type: ignore[attr-defined]
    if reader is not None:
        app.env.note_dependency(reader[1]["notebook"])


def connect(app: Sphinx) -> None:
    """Let a build run the notebooks before it reads the pages; called by the book's extension."""
    app.connect("builder-inited", _run, priority=900)  # after myst-nb has read its configuration
