"""From notebooks to the book: run them as a papermill batch, stage them beside the prose, build the HTML.

What is published replaces the last good version only when everything worked: a cell that fails or a warning of the
build leaves the HTML as it was.
"""

import base64
import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
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

from rfviz.book import launch
from rfviz.errors import RfvizError, unknown
from rfviz.explorer.sources import RunSource
from rfviz.kernels.controls import CONTROLS, DRAWS
from rfviz.lab.presets import EXPLORER_LAYERS, FIGURE_LAYERS
from rfviz.lab.run_higher import CONTRASTS, HIGH_LAYERS, PICTURE_LAYERS
from rfviz.lab.runs import Run
from rfviz.nets.models import ARCHITECTURES
from rfviz.storage import places
from rfviz.storage.files import HALF_WRITTEN, atomic
from rfviz.storage.lock import locked

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


def choose(only: str | None) -> dict[str, Path]:
    """Return the notebooks of the book, or the one whose name begins with `only`, such as ``"02"``.

    Raises
    ------
    RfvizError
        If no notebook is called so.
    """
    notebooks = {name: page for name, page in sources().items() if is_notebook(page)}
    if only is None:
        return notebooks
    chosen = {name: page for name, page in notebooks.items() if page.stem.startswith(only)}
    if len(chosen) != 1:
        raise unknown("notebook", only, [name.removeprefix("notebooks/") for name in notebooks])
    return chosen


def compute(replicas: Sequence[Run]) -> None:
    """Compute everything that the notebooks show of some runs, so that they only have to read it."""
    for architecture in replicas[0].preset.weights:
        replicas[0].net(architecture)  # a wrong file is refused before the other network is trained
    for run in replicas:
        for architecture in ARCHITECTURES:
            run.net(architecture)
            run.responses(architecture)
            run.maximizations(architecture)
            run.noise_effect(architecture)
    for architecture in ARCHITECTURES:
        replicas[0].sparsity(architecture)
    for run in replicas:
        measure_tuning(run)
        look_deeper(run)
    source = RunSource(replicas[0])
    for architecture in ARCHITECTURES:
        for layer in EXPLORER_LAYERS:
            source.drawn(architecture, layer)


def measure_tuning(run: Run) -> None:
    """Compute the tuning that the notebook of orientation and colour shows, with its controls."""
    for architecture in ARCHITECTURES:
        run.gabors(architecture)
        for layer in FIGURE_LAYERS:
            run.orientation(architecture, layer)
            run.colour(architecture, layer)
            run.hue(architecture, layer)
        for kind in CONTROLS:
            run.gabors(architecture, kind)
            for draw in range(DRAWS):
                for layer in FIGURE_LAYERS:
                    run.orientation(architecture, layer, kind, draw)
                    run.colour(architecture, layer, kind, draw)
                    if kind == "random weights":
                        run.hue(architecture, layer, kind, draw)


def look_deeper(run: Run) -> None:
    """Compute what the notebooks show of silent channels, of shared ones and of higher layers."""
    for architecture in ARCHITECTURES:
        run.silence(architecture)
        run.evidence(architecture)
        for layer in HIGH_LAYERS:
            for kind in (None, "random weights"):
                run.effective_fields(architecture, layer, kind)
        for layer in PICTURE_LAYERS:
            run.identification(architecture, layer)
        for contrast in CONTRASTS:
            run.identification(architecture, PICTURE_LAYERS[-1], contrast)


def execute(
    page: Path, target: Path, parameters: Mapping[str, Any], patience: int | None = None, *, again: bool = False
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
            execute(page, target, parameters, patience, again=True)
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
    tags = [cell.metadata.setdefault("tags", []) for cell in notebook.cells]
    injected = [each for each in tags if "injected-parameters" in each]
    for each in tags:
        if injected and "parameters" in each:  # the defaults are folded away, the values that count are shown
            injected[0] += [tag for tag in each if tag == "remove-input"]
            each.append("hide-input")
    with atomic(target) as temporary:
        nbformat.write(notebook, temporary)


def run_notebooks(run: Run, parameters: Mapping[str, Any], only: str | None = None) -> list[Path]:
    """Run the notebooks of the book into the run's folder and return what was written.

    Raises
    ------
    RfvizError
        If a cell fails.
    """
    chosen = choose(only)
    targets = [run.folder / "book" / f"{name}.ipynb" for name in chosen]
    jobs = list(zip(chosen.values(), targets, strict=True))
    with (
        locked(run.folder, "book"),
        _threads_per_kernel(min(AT_ONCE, len(jobs))),
        ThreadPoolExecutor(AT_ONCE) as pool,
        tqdm(total=len(jobs), desc="notebooks", unit="notebook") as bar,
    ):

        def work(job: tuple[Path, Path]) -> None:
            execute(*job, parameters, PATIENCE if only is None else None)
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


def check_executed(run: Run) -> None:
    """Raise RfvizError unless every notebook of the book has been run into the run's folder."""
    for name in choose(None):
        path = run.folder / "book" / f"{name}.ipynb"
        if not path.exists():
            raise RfvizError(f"{path} is not there: run the notebooks first, with `rfviz book -p {run.preset.name}`.")


def stage(run: Run) -> Path:
    """Put prose, bibliography, table of contents and configuration beside the executed notebooks; return the folder."""
    root, folder = places.repository(), run.folder / "book"
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["execute"]["execute_notebooks"] = "off"
    config["exclude_patterns"].remove("notebooks/*.ipynb")  # here, they are what is built
    launch.configuration(config, launch.address())
    with atomic(folder / "_config.yml") as temporary:
        temporary.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    for old in [*folder.glob("*.md"), *folder.glob("*.ipynb"), *folder.glob("notebooks/*.ipynb")]:
        name = old.relative_to(folder).with_suffix("").as_posix()
        if name not in sources() or is_notebook(sources()[name]) != (old.suffix == ".ipynb"):
            old.unlink()  # a page that the book no longer has, or has as another kind
    pages = [page for page in sources().values() if not is_notebook(page)]
    others = [file for part in ("_static", "reference") for file in sorted((root / "book" / part).iterdir())]
    for source in [root / "book" / "references.bib", *others, *pages]:
        with atomic(folder / source.relative_to(root / "book")) as temporary:
            shutil.copyfile(source, temporary)
    with atomic(folder / "_toc.yml") as temporary:
        shutil.copyfile(root / "_toc.yml", temporary)
    with atomic(folder / "_static" / "preview.png") as temporary:
        temporary.write_bytes(_first_picture(folder / "index.ipynb"))
    return folder


def _first_picture(notebook: Path) -> bytes:
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise RfvizError(f"{notebook} shows no picture: run the notebooks again, with `rfviz book`.")


def build_html(run: Run) -> Path:
    """Build the staged book with jupyter-book, warnings being errors, and return the page to open.

    Raises
    ------
    RfvizError
        If the build fails or warns; the HTML of the last good build stays.
    """
    html = run.folder / "html"
    with _building(run) as (folder, temporary):
        if not html.exists() and _old(html).exists():
            _old(html).rename(html)  # the last build was killed while it changed places
        replace_folder(_build(folder, temporary, "html", run.folder / "build.log"), html)
    return html / "index.html"


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


def _build(folder: Path, to: Path, builder: str, log: Path) -> Path:
    """Run jupyter-book, warnings being errors, and return the folder that it wrote."""
    program = Path(sys.executable).with_name("jupyter-book")  # the one of this environment
    command = [str(program), "build", str(folder), "--path-output", str(to), "--all", "-W", "--keep-going"]
    command += [] if builder == "html" else ["--builder", "custom", "--custom-builder", builder]
    environment = {**os.environ, "RFVIZ_RUNS": str(folder.parents[1])}  # where the explorer's files are
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    log.write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        raise RfvizError(f"jupyter-book failed: {_first_complaint(done.stdout)} The whole output is in {log}.")
    return to / "_build" / builder


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Names under which the browser that prints is looked for."""


PRINTING = 300
"""Seconds that a browser may take to print."""


def build_pdf(run: Run) -> Path:
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
        whole = _build(folder, temporary, "singlehtml", run.folder / "build.log")
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


def book(run: Run, parameters: Mapping[str, Any]) -> Path:
    """Run every notebook, build the HTML, and return the page to open; `compute` comes before."""
    with locked(run.folder, "book"):
        run_notebooks(run, parameters)
        return build_html(run)
