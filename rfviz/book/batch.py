"""The notebooks of the book as a papermill batch: what they show is computed, then each is run with its parameters."""

import ast
import contextlib
import importlib.metadata
import json
import logging
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import yaml
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from sphinx_external_toc.parsing import parse_toc_yaml
from tqdm.auto import tqdm

from rfviz import explorer
from rfviz.book import kernels
from rfviz.book.process import PRELOAD
from rfviz.errors import RfvizError, unknown
from rfviz.lab import forks, results, together
from rfviz.lab.run import Run
from rfviz.pages import claims, colour, higher, inactive, landing, maximization, orientation, sharing, stimuli, training
from rfviz.storage import places
from rfviz.storage.digests import digest, file_digests
from rfviz.storage.files import atomic
from rfviz.storage.lock import locked

PAGES = (
    landing, training, stimuli, maximization, inactive, orientation, colour, sharing, higher, claims, explorer,
)  # fmt: skip
"""Modules of the pages that show something of a run: ``gather(runs)`` computes it."""

OF_EVERY_SEED = training, maximization, inactive, sharing, claims
"""Those that show something of other runs than the first."""

ALSO_SHOWN = ("rfviz/**/*.py", "book/reference/*", "book/evidence/**/*", "benchmarks/results.json")
"""Files of the repository that the notebooks are made of, besides results."""

PATIENCE = 300
"""Seconds that a cell may take once everything is computed, so that it only has to read and draw."""

AT_ONCE = 2
"""Notebooks that run at the same time."""

KERNEL = "python3"
QUIET = ["--IPKernelApp.log_level=50"]
"""For the kernels: no remarks such as that they talk to this machine over TCP."""


def sources() -> dict[str, Path]:
    """Return the pages of the book in order: name in the table of contents, and file.

    Raises
    ------
    RfvizError
        If the package was installed without the repository, which holds the pages.
    """
    root = places.repository()
    if not (root / "_toc.yml").is_file():
        raise RfvizError(
            f"the pages of the book are not in {root}: its commands need a clone of the repository. `rfviz explore`, "
            "`rfviz train` and the package itself need none."
        )
    names = parse_toc_yaml(root / "_toc.yml")
    return {name: root / "book" / f"{name}.md" for name in names}


def is_notebook(page: Path) -> bool:
    """Tell whether a page is a MyST notebook: its front matter names a kernel."""
    front = re.match(r"---\n(.*?)\n---\n", page.read_text(encoding="utf-8"), re.DOTALL)
    return front is not None and "kernelspec" in (yaml.safe_load(front[1]) or {})


def choose(only: str | None = None) -> dict[str, Path]:
    """Return the notebooks of the book, or the one whose name begins with `only`, such as ``"02"``.

    Raises
    ------
    RfvizError
        If no notebook, or more than one, is called so.
    """
    notebooks = {name: page for name, page in sources().items() if is_notebook(page)}
    if only is None:
        return notebooks
    chosen = {name: page for name, page in notebooks.items() if page.stem.startswith(only)}
    if len(chosen) != 1:
        raise unknown("notebook", only, [name.removeprefix("notebooks/") for name in notebooks])
    return chosen


def compute(replicas: Sequence[Run]) -> None:
    """Compute everything that the pages show of some runs, so that the notebooks only have to read it."""
    software.cache_clear()
    software()  # as it is now, which is what runs, and not as it may be edited meanwhile
    forks.begin(PRELOAD)
    replicas[0].check_weights()
    first = [*(page.gather for page in PAGES if page is not explorer), explorer.draw]
    together.train(replicas, then=[first, *([page.gather for page in OF_EVERY_SEED] for _ in replicas[1:])])
    for page in PAGES:
        page.gather(replicas)


def made_of(replicas: Sequence[Run]) -> str:
    """Return the hash of what the notebooks show, text and parameters aside; `compute` comes before.

    That is results, histories of training, what is told of each run, files of the repository, and all packages.
    """
    shown = []
    for run in replicas:
        found = sorted(json.dumps([*key, kept.digest]) for key, kept in run.kept.items())
        told = {name: fact for name, fact in run.provenance().items() if name not in ("commit", "date")}
        shown.append([found, told, [results.history(run, network.name) for network in run.networks]])
    return digest([shown, software()])


@cache
def software() -> str:
    """Return the hash of what makes pages of results: the files of the repository, and all packages.

    They are looked at when `compute` begins.
    """
    root = places.repository()
    files = [file for pattern in ALSO_SHOWN for file in root.glob(pattern) if file.is_file()]
    packages = sorted(f"{each.name} {each.version}" for each in importlib.metadata.distributions())
    return digest([file_digests(root, files), packages])


def execute(
    page: Path, target: Path, parameters: Mapping[str, Any], patience: int | None = None, of: str | None = None
) -> None:
    """Run one MyST notebook and write it, with its outputs, as an ``.ipynb`` file.

    Parameters
    ----------
    page : Path
        The MyST notebook.
    target : Path
        Written only if every cell ran.
    parameters : mapping
        Values for the cell that is tagged ``parameters``; those that it does not name are left out.
    patience : int, optional
        Seconds that one cell may take. Now and then a kernel's answer is lost and a cell never ends: then the notebook
        is run once more.
    of : str, optional
        What `made_of` returned: what is written gets a seal by which `is_made_of` knows it again.

    Raises
    ------
    RfvizError
        If a cell fails, or gives no answer twice; the message names the notebook and the cell.
    """
    text = page.read_text(encoding="utf-8")
    try:
        notebook = _executed(page.stem, text, parameters, patience)
    except CellTimeoutError:
        tqdm.write(f"notebook {page.stem}: a cell gave no answer for {patience} s; it is run once more.")
        try:
            notebook = _executed(page.stem, text, parameters, patience)
        except CellTimeoutError as error:
            raise RfvizError(f"notebook {page.stem}: a cell gave no answer for {patience} s, twice.") from error
    notebook.metadata.pop("papermill", None)  # holds paths of this machine
    for cell in notebook.cells:
        tags = cell.metadata.setdefault("tags", [])
        if "injected-parameters" in tags:  # the values that count are folded under their names; the defaults go
            tags.append("hide-input")
            cell.metadata["mystnb"] = {"code_prompt_show": _chip(parameters)}
        elif "parameters" in tags and parameters:
            tags[:] = ["parameters", "remove-input"]
    if of is not None:
        cells = json.loads(nbformat.writes(notebook))["cells"]  # as they will stand in the file
        notebook.metadata["made of"] = _seal(of, text, parameters, cells)
    with atomic(target) as temporary:
        nbformat.write(notebook, temporary)


def _chip(parameters: Mapping[str, Any]) -> str:
    """Name a run in a few words: ``"Run: quick, seed 0"``."""
    named = [str(parameters.get("preset", "")), f"seed {parameters.get('seed', 0)}"]
    if (seeds := parameters.get("seeds", 1)) > 1:
        named.append(f"{seeds} networks of each kind")
    if parameters.get("overrides"):
        named.append("with changes")
    return f"Run: {', '.join(filter(None, named))}"


def defaults(page: Path) -> dict[str, Any]:
    """Return the parameters of a notebook with the values that stand there.

    Raises
    ------
    ValueError
        If one of them is no plain value.
    """
    found = papermill.inspect_notebook(_notebook(page.read_text(encoding="utf-8")))
    return {name: ast.literal_eval(each["default"]) for name, each in found.items()}


def _notebook(text: str) -> nbformat.NotebookNode:
    """Return a MyST notebook as it would stand in an ``.ipynb`` file."""
    return nbformat.reads(jupytext.writes(jupytext.reads(text, fmt="md:myst"), fmt="ipynb"), as_version=4)


def _executed(name: str, text: str, parameters: Mapping[str, Any], patience: int | None) -> nbformat.NotebookNode:
    notebook = _notebook(text)
    known = papermill.inspect_notebook(notebook)
    try:
        return papermill.execute_notebook(
            notebook, None, {name: value for name, value in parameters.items() if name in known},
            kernel_name=KERNEL, progress_bar=False, extra_arguments=QUIET, execution_timeout=patience,
            shutdown_kernel="immediate",  # there is nothing left for it to say
            kernel_manager_class=kernels.ForkedKernelManager,
        )  # fmt: skip
    except PapermillExecutionError as error:
        said = error.evalue.strip().splitlines()[-1:]
        raise RfvizError(f"notebook {name}, cell {error.exec_count}: {': '.join([error.ename, *said])}") from error
    except DeadKernelError as error:
        raise RfvizError(f"notebook {name}: its kernel was killed, perhaps for want of memory.") from error


def _seal(of: str, text: str, parameters: Mapping[str, Any], cells: list[Any]) -> str:
    return digest([of, text, dict(parameters), cells])


def is_made_of(page: Path, notebook: Path, parameters: Mapping[str, Any], of: str) -> bool:
    """Tell whether a notebook was made of the same by `execute`, from the same text, and is as it was written."""
    try:
        found = json.loads(notebook.read_text(encoding="utf-8"))
        return found["metadata"]["made of"] == _seal(of, page.read_text(encoding="utf-8"), parameters, found["cells"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # not there, damaged, or made otherwise
        return False


def run_notebooks(
    run: Run, parameters: Mapping[str, Any], only: str | None = None, of: str | None = None
) -> list[Path]:
    """Run the notebooks of the book into the run's folder and return where they are.

    Parameters
    ----------
    run : Run
    parameters : mapping
    only : str, optional
        See `choose`.
    of : str, optional
        What `made_of` returned: a notebook that is made of the same (`is_made_of`) stays.

    Raises
    ------
    RfvizError
        If a cell fails.
    """
    jobs = {page: run.folder / "book" / f"{name}.ipynb" for name, page in choose(only).items()}
    waiting = [job for job in jobs.items() if of is None or not is_made_of(*job, parameters, of)]
    if not waiting:
        return list(jobs.values())
    patience = PATIENCE if only is None else None
    forks.begin(PRELOAD)  # by this thread, where it can keep Ctrl-C from it
    with (
        locked(run.folder, "book"),
        kernels.ended(),
        _threads_per_kernel(min(AT_ONCE, len(jobs))),
        ThreadPoolExecutor(AT_ONCE) as pool,
        tqdm(total=len(waiting), desc="notebooks", unit="notebook") as bar,
    ):

        def work(page: Path, target: Path) -> None:
            execute(page, target, parameters, patience, of)
            bar.update()

        begun = []
        try:
            for job in waiting:
                begun.append(pool.submit(work, *job))
            for _ in forks.results(begun):
                pass
        except BaseException as error:
            for each in begun:
                each.cancel()
            if isinstance(error, KeyboardInterrupt):
                before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed again, it would leave kernels behind
                logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it would tell of the end of its kernels
                while not all(each.done() for each in begun):  # one more may be about to start
                    kernels.kill_all()  # they run in sessions of their own, where Ctrl-C does not reach them
                    time.sleep(0.1)
                signal.signal(signal.SIGINT, before)
            raise
    return list(jobs.values())


@contextlib.contextmanager
def _threads_per_kernel(at_once: int) -> Iterator[None]:
    """Share the cores out: threads of several kernels that wait for each other's cores slow all of them down."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or str(max(1, (os.cpu_count() or 1) // at_once))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
