"""Where a reader can run the book without a machine of their own; all links follow from the repository's address."""

import os
import re
import webbrowser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from rfviz.errors import RfvizError, first_line
from rfviz.storage.files import atomic
from rfviz.storage.places import git

BRANCH = "ipynb"
"""The branch with the notebooks as ``.ipynb`` files, which Binder and Colab open; the workflow *pages* writes it."""


def address() -> str | None:
    """Return the repository's address on GitHub, ``https://github.com/OWNER/NAME``, or None where it is elsewhere.

    It is taken from ``RFVIZ_REPOSITORY``, then from what GitHub's own machines set, then from the remote ``origin``.
    """
    given = os.environ.get("RFVIZ_REPOSITORY") or os.environ.get("GITHUB_REPOSITORY")
    if given and re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        return f"https://github.com/{given}"
    given = given or git("remote", "get-url", "origin") or ""
    found = re.fullmatch(r"(?:https://|ssh://git@|git@)github\.com[/:]([\w.-]+)/([\w.-]+?)(?:\.git)?/?", given)
    return f"https://github.com/{found[1]}/{found[2]}" if found else None


def site(of: str) -> str:
    """Return where GitHub Pages publishes a repository: ``https://OWNER.github.io/NAME/``."""
    owner, name = of.split("/")[-2:]
    return f"https://{owner.lower()}.github.io/{'' if name.lower() == f'{owner}.github.io'.lower() else name + '/'}"


def configuration(config: dict[str, Any], of: str | None) -> None:
    """Add to the configuration of a book what depends on the repository's address; nothing where that is not known."""
    if of is None:
        return
    config["repository"] = {"url": of, "branch": BRANCH}
    config["launch_buttons"] = {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    }
    settings = config["sphinx"]["config"]
    settings["html_baseurl"] = settings["ogp_site_url"] = site(of)


def export_notebooks(notebooks: dict[str, Path], folder: Path, of: str | None) -> list[Path]:
    """Write notebooks as ``.ipynb`` files without outputs, with a first cell that installs the package where it is not.

    Parameters
    ----------
    notebooks : dict from str to Path
        Name within the book, and MyST source.
    folder : Path
    of : str or None
        Address of the repository.

    Raises
    ------
    RfvizError
        If the address is not known: the first cell would not know what to install.
    """
    if of is None:
        given = os.environ.get("RFVIZ_REPOSITORY")
        found = f"RFVIZ_REPOSITORY is {given!r}" if given else "the repository has no address on GitHub"
        raise RfvizError(f"{found}: set RFVIZ_REPOSITORY=OWNER/NAME.")
    install = (
        "# Elsewhere than in a clone, such as on Colab: install the package first.\n"
        "import importlib.util\n\n"
        f'if importlib.util.find_spec("rfviz") is None:\n    %pip install --quiet "git+{of}"'
    )
    written = []
    for name, source in notebooks.items():
        notebook = jupytext.read(source)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(install, id="install"))
        written.append(folder / f"{name}.ipynb")
        with atomic(written[-1]) as temporary:
            nbformat.write(notebook, temporary)
    return written


def serve(folder: Path, port: int = 8000) -> None:
    """Show the files of a folder at an address of this machine, and in its browser, until it is interrupted.

    Raises
    ------
    RfvizError
        If the port is taken.
    """
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise RfvizError(
            f"port {port} cannot be opened ({first_line(error)}): open the page from its folder."
        ) from error
    with server:
        webbrowser.open(f"http://localhost:{port}/")
        server.serve_forever()
