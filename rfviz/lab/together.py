"""Small networks that train side by side: one process each, on a few threads, until the cores are used up.

On two cores, two small networks are trained in little more than the time of one: most of what a training step does is
too small to be shared between threads. And because each has the threads of its recipe, it becomes the same network
whatever the number of cores (on processors of one kind).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rfviz.errors import RfvizError
from rfviz.images.batches import available_cores
from rfviz.lab.presets import Preset
from rfviz.lab.run import Run, trained
from rfviz.training import distributed


def train(runs: Sequence[Run], networks: Sequence[str] | None = None) -> None:
    """Train networks of some runs that are not there yet, several at a time.

    Only on a CPU, and where the recipe names a number of threads: other trainings use the whole machine, and happen
    when they are asked for. So does what fails here, and then says why.

    Parameters
    ----------
    runs : sequence of Run
    networks : sequence of str, optional
        Names of the networks; all by default.
    """
    jobs = [
        (run, name)
        for run in runs
        for name in (networks or run.given.networks)
        if run.given.recipe(name).threads and run.device.type == "cpu" and run.is_to_be_trained(name)
    ]
    if len(jobs) < 2 or distributed.started() > 1:
        return
    places = max(1, available_cores() // max(run.given.recipe(name).threads or 1 for run, name in jobs))
    for run, name in jobs:  # what has to be downloaded or measured first is there before several look for it
        run.whitening(name)
    context = multiprocessing.get_context("spawn")
    free, running = list(range(min(places, len(jobs)))), dict[Any, tuple[Any, int]]()
    try:
        while jobs or running:
            while jobs and free:
                run, name = jobs.pop(0)
                place = free.pop(0)
                process = context.Process(
                    target=_train, args=(run.given, run.seed, run.folder, run.progress, name), daemon=True
                )
                os.environ["TQDM_POSITION"] = str(place)  # each has a line of its own for its progress bar
                process.start()
                running[process.sentinel] = process, place
            for ended in wait(list(running)):
                process, place = running.pop(ended)
                process.join()
                free.append(place)
    finally:
        os.environ.pop("TQDM_POSITION", None)
        for process, _ in running.values():
            process.kill()


def _train(preset: Preset, seed: int, folder: Path, progress: bool, network: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one ends it
    end_with_parent()
    try:
        trained.path(Run(preset, seed, folder, progress=progress, workers=0), network)
    except (RfvizError, OSError) as error:  # it is met again, and told, where the network is asked for
        raise SystemExit(1) from error


def end_with_parent() -> None:
    """Let this process, which `multiprocessing` has started, end when the one that asked for it does."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
