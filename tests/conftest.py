"""Fixtures that several test modules share: small real photographs and small networks.

What takes long to import is imported by the fixtures: the process that only hands out the tests needs none of it.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    import torch
    from playwright.sync_api import Browser

    from rfviz.images.data import Evaluation
    from rfviz.kernels.responses.cores import Cores
    from rfviz.lab.run import Run
    from rfviz.nets import models

# In the background of a shell (`make test &`) Ctrl-C is ignored, and would be by what the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time: whether the suite passes must not depend on luck. RFVIZ_SOAK=1 looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("soak", derandomize=False, deadline=None, max_examples=1000)
settings.load_profile("soak" if os.environ.get("RFVIZ_SOAK") else "fixed")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare a process that runs tests."""
    if config.getoption("numprocesses", None):
        return  # this one only hands them out
    import torch

    from rfviz import _torchvision_ops  # noqa: F401  # before the first import of torchvision

    torch.set_num_threads(1)  # the tests run in several processes


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of the searches for garbage from now on."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files, so that no process is left alone with one of them at the end.

    The first makes the book of `smoke_runs`; the others that need it come when it is there.
    """
    readers = list(dict.fromkeys(item.path for item in items if "smoke_runs" in getattr(item, "fixturenames", ())))

    def place(item: pytest.Item) -> int:
        if item.path in readers:
            return 0 if item.path == readers[0] else 2
        return 1 if item.get_closest_marker("faults") or item.path.parent.name == "lab" else 3

    items.sort(key=place)


@pytest.fixture(scope="module")
def two_cores() -> Iterator[Cores]:
    """Two threads that share pieces of work, beside this one in which torch has one."""
    import torch

    from rfviz.kernels.responses.cores import Cores

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with Cores() as cores:
        torch.set_num_threads(1)
        yield cores
    torch.set_num_threads(before)


PARAMETERS = {"preset": "smoke", "seed": 0, "seeds": 1, "channels": None, "overrides": {}}
"""Of the notebooks of `smoke_runs`."""


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of runs that holds one finished book of the preset `smoke`, made once for all processes of the tests."""
    from rfviz.book import batch, html
    from rfviz.lab.run import open_run

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "smoke runs"
    with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFVIZ_RUNS", str(folder))
        run = open_run("smoke")
        if not (run.folder / "as made").exists():
            run.progress = False
            batch.compute([run])
            html.book(run, PARAMETERS, batch.made_of([run]))
            # some tests run notebooks again, with other parameters
            shutil.copytree(run.folder / "book" / "notebooks", run.folder / "as made" / "notebooks")
    return folder


@pytest.fixture(scope="session")
def opened_smoke(smoke_runs: Path) -> Run:
    """The run of that book, opened once for all tests of a process: ask it for nothing that is not in the book."""
    from rfviz.lab.run import open_run

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFVIZ_RUNS", str(smoke_runs))
        run = open_run("smoke")
    run.progress = False
    return run


@pytest.fixture
def smoke(opened_smoke: Run, smoke_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of that book, in the folder of runs of whatever the test calls."""
    monkeypatch.setenv("RFVIZ_RUNS", str(smoke_runs))
    return opened_smoke


@pytest.fixture
def rfviz(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; return exit code, standard output and the last line of standard error."""
    from rfviz.book import cli

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rfviz", *words])
        monkeypatch.setattr(cli.process, "prepare", lambda: None)  # of this process and its environment, others test
        code, before = 0, signal.getsignal(signal.SIGINT)
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            signal.signal(signal.SIGINT, before)  # a command that was interrupted ignores it from then on
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        return code, captured.out, lines[-1] if lines else ""

    return call


@pytest.fixture(scope="session")
def tiles() -> Evaluation:
    """Real photographs: 64-px tiles of four of them, with labels."""
    from rfviz.images import photographs
    from rfviz.images.data import Evaluation

    return Evaluation(photographs.load(64, classes=4).evaluation)


@pytest.fixture(scope="session")
def some_tiles(tiles: Evaluation) -> torch.Tensor:
    """Twelve of the tiles, spread over the photographs: (12, 3, 64, 64)."""
    import torch

    step = len(tiles) // 12
    return torch.stack([tiles[i * step][0] for i in range(12)])


def of_width_six(name: str, seed: int) -> models.ResidualNet:
    """Return a network with random weights and batch-norm statistics, 4 classes."""
    import torch
    from reference import settled

    from rfviz.nets import models

    torch.manual_seed(seed)
    return settled(models.build(name, 6, 4))


@pytest.fixture
def resnet() -> models.ResidualNet:
    """A ResNet34 of width 6 with random weights and batch-norm statistics, 4 classes."""
    return of_width_six("resnet34", 0)


@pytest.fixture
def plainnet() -> models.ResidualNet:
    """A PlainNet34 of width 6 with random weights and batch-norm statistics, 4 classes."""
    return of_width_six("plainnet34", 1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    import browsing
    from playwright.sync_api import sync_playwright

    program = browsing.executable()
    if program is None:
        pytest.skip("there is no Chromium or Chrome on the PATH")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()
