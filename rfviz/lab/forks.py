"""Processes that begin with everything imported.

Most of what a short piece of work takes is the import of torch and its like. Here one process does that for all: others
are forked from it, by `multiprocessing`'s server of forks. Where a system has none, they import for themselves. As with
all that `multiprocessing` starts, a script that does so must be under ``if __name__ == "__main__"``.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_begun: list[str] = []

A_WHILE = 0.5
"""Seconds that a main thread waits at a time: where the system hands Ctrl-C to another thread, it learns so when its
wait ends, and from nothing else.
"""


def begin(module: str) -> bool:
    """Let the process begin that others are forked from, so that it imports a module meanwhile.

    Called early, it also has the code of the process that calls it. Returns whether there is such a process.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    readable = script is None or Path(script).is_file()  # which "python - < script" is not
    if not (readable and "forkserver" in multiprocessing.get_all_start_methods()):
        return False
    from multiprocessing import forkserver  # not on every system

    multiprocessing.get_context("forkserver").set_forkserver_preload([module])
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None  # as the new process will have it
    try:
        forkserver.ensure_running()
    finally:
        if here:
            signal.signal(signal.SIGINT, before)
    _begun.append(module)
    return True


def process(target: Callable[..., None], arguments: tuple[Any, ...], *, daemon: bool, name: str = "") -> BaseProcess:
    """Return a process that is yet to start: a fork, if `begin` was called. A daemon can start none of its own."""
    context: Any = multiprocessing.get_context("forkserver" if _begun else "spawn")
    return context.Process(target=target, args=arguments, daemon=daemon, name=name or None)


def results(begun: Iterable[Future[Any]]) -> Iterator[Any]:
    """Wait for what threads do and return what comes of it, in order; Ctrl-C ends the wait."""
    for each in begun:
        while not each.done():
            wait_for([each], A_WHILE)
        yield each.result()


def end_with_parent() -> None:
    """Let this process, which `multiprocessing` has started, end when the one that asked for it does."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
