"""The notebooks of the book as a papermill batch: what they show is computed, then each is run with its parameters."""

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import psutil
import yaml
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from sphinx_external_toc.parsing import parse_toc_yaml
from tqdm.auto import tqdm

from rfviz import explorer
from rfviz.errors import RfvizError, unknown
from rfviz.lab import provenance
from rfviz.lab.run import Run
from rfviz.pages import (
    claims,
    colour,
    higher,
    inactive,
    landing,
    maximization,
    orientation,
    sharing,
    stimuli,
    training,
)
from rfviz.storage import places
from rfviz.storage.digests import digest
from rfviz.storage.files import atomic
from rfviz.storage.lock import locked

PAGES = (
    landing, training, stimuli, maximization, inactive, orientation, colour, sharing, higher, claims, explorer,
)  # fmt: skip
"""Modules of the pages that show something of a run: ``gather(runs)`` computes it."""

ALSO_SHOWN = ("rfviz/**/*.py", "book/reference/*", "benchmarks/results.json")
"""Files of the repository that the notebooks are made of, besides results."""

PATIENCE = 300
"""Seconds that a cell may take once everything is computed, so that it only has to read and draw."""

AT_ONCE = 2
"""Notebooks that run at the same time."""

KERNEL = "python3"
QUIET = ["--IPKernelApp.log_level=50"]
"""For the kernels: no remarks such as that they talk to this machine over TCP."""


def sources() -> dict[str, Path]:
    """Return the pages of the book in order: name in the table of contents, and file."""
    root = places.repository()
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


def compute(replicas: Sequence[Run]) -> str:
    """Compute everything that the pages show of some runs, so that the notebooks only have to read it.

    Returns
    -------
    made_of : str
        Hash of what the notebooks are made of: results, code, files of the repository, versions of packages.
    """
    for network in replicas[0].given.weights:
        replicas[0].stored(network)  # a wrong file is refused before another network is trained
    for page in PAGES:
        page.gather(replicas)
    found = [sorted([name, kept.digest] for (name, *_), kept in run.kept.items()) for run in replicas]
    root = places.repository()
    files = [file for pattern in ALSO_SHOWN for file in sorted(root.glob(pattern))]
    code = [[str(file.relative_to(root)), hashlib.sha256(file.read_bytes()).hexdigest()] for file in files]
    environment = provenance.environment(replicas[0].device)
    return digest([found, code, {name: environment[name] for name in environment.keys() - {"commit", "date"}}])


def execute(
    page: Path,
    target: Path,
    parameters: Mapping[str, Any],
    patience: int | None = None,
    *,
    made_of: str = "",
    again: bool = False,
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
    made_of : str
        Kept in the metadata of what is written.
    again : bool
        This is the second time.

    Raises
    ------
    RfvizError
        If a cell fails, or gives no answer twice; the message names the notebook and the cell.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, executed = Path(folder, "in.ipynb"), Path(folder, "out.ipynb")
        jupytext.write(jupytext.read(page), plain)
        known = papermill.inspect_notebook(str(plain))
        try:
            papermill.execute_notebook(
                str(plain), str(executed), {name: value for name, value in parameters.items() if name in known},
                kernel_name=KERNEL, progress_bar=False, extra_arguments=QUIET, execution_timeout=patience,
                shutdown_kernel="immediate",  # there is nothing left for it to say
            )  # fmt: skip
        except CellTimeoutError as error:
            if again:
                raise RfvizError(f"notebook {page.stem}: a cell gave no answer for {patience} s, twice.") from error
            tqdm.write(f"notebook {page.stem}: a cell gave no answer for {patience} s; it is run once more.")
            execute(page, target, parameters, patience, made_of=made_of, again=True)
            return
        except PapermillExecutionError as error:
            said = error.evalue.strip().splitlines()[-1:]
            raise RfvizError(
                f"notebook {page.stem}, cell {error.exec_count}: {': '.join([error.ename, *said])}"
            ) from error
        except DeadKernelError as error:
            raise RfvizError(f"notebook {page.stem}: its kernel was killed, perhaps for want of memory.") from error
        notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("papermill", None)  # holds paths of this machine
    notebook.metadata["made_of"] = made_of
    tags = [cell.metadata.setdefault("tags", []) for cell in notebook.cells]
    injected = [each for each in tags if "injected-parameters" in each]
    for each in tags:
        if injected and "parameters" in each:  # the defaults are folded away, the values that count are shown
            injected[0] += [tag for tag in each if tag == "remove-input"]
            each.append("hide-input")
    with atomic(target) as temporary:
        nbformat.write(notebook, temporary)


def run_notebooks(
    run: Run, parameters: Mapping[str, Any], only: str | None = None, made_of: str | None = None
) -> list[Path]:
    """Run the notebooks of the book into the run's folder and return what was written.

    Parameters
    ----------
    run : Run
    parameters : mapping
    only : str, optional
        See `choose`.
    made_of : str, optional
        What `compute` returned: a notebook made of the same, text and parameters included, stays.

    Raises
    ------
    RfvizError
        If a cell fails.
    """
    chosen = choose(only)
    targets = [run.folder / "book" / f"{name}.ipynb" for name in chosen]
    texts = [page.read_text(encoding="utf-8") for page in chosen.values()]
    hashes = ["" if made_of is None else digest([made_of, text, dict(parameters)]) for text in texts]
    jobs = [
        job for job in zip(chosen.values(), targets, hashes, strict=True) if not job[2] or _made_of(job[1]) != job[2]
    ]
    if not jobs:
        return targets
    with (
        locked(run.folder, "book"),
        _threads_per_kernel(min(AT_ONCE, len(jobs))),
        ThreadPoolExecutor(AT_ONCE) as pool,
        tqdm(total=len(jobs), desc="notebooks", unit="notebook") as bar,
    ):

        def work(job: tuple[Path, Path, str]) -> None:
            page, target, of = job
            execute(page, target, parameters, PATIENCE if only is None else None, made_of=of)
            bar.update()

        begun = [pool.submit(work, job) for job in jobs]
        try:
            for each in begun:
                each.result()
        except BaseException as error:
            for each in begun:
                each.cancel()
            if isinstance(error, KeyboardInterrupt):
                logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it would tell of the end of its kernels
                while not all(each.done() for each in begun):  # one more may be about to start
                    _kill_kernels()  # which run in sessions of their own, where Ctrl-C does not reach them
                    time.sleep(0.1)
            raise
    return targets


def _made_of(notebook: Path) -> str | None:
    """Return the hash that `execute` left in a notebook; None where there is none, or no notebook."""
    try:
        return json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["made_of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kill_kernels() -> None:
    """End the kernels of this process at once; the threads that wait for their answers then end too."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended
            if any("ipykernel_launcher" in part for part in child.cmdline()):
                child.kill()


@contextlib.contextmanager
def _threads_per_kernel(kernels: int) -> Iterator[None]:
    """Share the cores out: threads of several kernels that wait for each other's cores slow all of them down."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or str(max(1, (os.cpu_count() or 1) // kernels))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
