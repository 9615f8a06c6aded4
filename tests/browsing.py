"""A headless browser, a server for a folder, and what a page may not do."""

import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, Request

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

KNOWN_ERRORS: set[str] = set()
"""Errors of the theme that are known and do no harm, by their exact text: none."""


def executable() -> str | None:
    """Return the browser that is here."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing: a page that is left closes its connections in the middle."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder at the address that is given."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def failed(request: Request) -> bool:
    """Tell a request that failed from one that the page itself gave up, because it was left."""
    return request.failure != "net::ERR_ABORTED"


def watch(page: Page, home: str) -> list[str]:
    """Return a list that fills with what goes wrong on a page, and with requests to elsewhere than `home`."""
    wrong: list[str] = []
    own = (home, "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(own) or wrong.append(f"asks {request.url}"))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}") if failed(request) else None)
    page.on("response", lambda response: response.status < 400 or wrong.append(f"{response.status}: {response.url}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "console",
        lambda said: wrong.append(said.text) if said.type == "error" and said.text not in KNOWN_ERRORS else None,
    )
    return wrong
