"""Small networks that are trained and looked at side by side: one process per few threads, until no core is left.

On two cores, two small networks are trained in little more than the time of one: most of what a training step does is
too small to be shared between threads, and so is most of what is measured afterwards. And because each has the threads
of its recipe, everything comes out the same whatever the number of cores (on processors of one kind).
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partialmethod
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from rfviz.errors import RfvizError
from rfviz.images.batches import available_cores
from rfviz.lab import forks
from rfviz.lab.presets import Preset
from rfviz.lab.run import Run, trained
from rfviz.training import distributed

Look = Callable[[Sequence[Run]], Any]
"""What computes results of some runs, such as what a page gathers; a function of a module, which can be named."""


class _Job(NamedTuple):
    """To train a network, or then to look at it."""

    preset: Preset
    seed: int
    folder: Path
    progress: bool
    network: str
    look: Look | None = None


def train(runs: Sequence[Run], networks: Sequence[str] | None = None, then: Sequence[Look] = ()) -> None:
    """Train networks of some runs that are not there yet, several at a time, and look at each that is ready.

    Only on a CPU, and where the recipe names a number of threads: other trainings use the whole machine, and happen
    when they are asked for. So does what fails here, and then says why.

    Parameters
    ----------
    runs : sequence of Run
    networks : sequence of str, optional
        Names of the networks; all by default.
    then : sequence of callable
        Each is called with a run of one of the networks alone (`rfviz.lab.run.Run.alone`), for the results that it
        leaves.
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
    waiting = [_Job(run.given, run.seed, run.folder, run.progress, name) for run, name in jobs]
    free, busy, processes = list[Connection](), dict[Connection, _Job](), []
    try:
        for place in range(min(places, len(jobs))):
            here, there = multiprocessing.Pipe()
            processes.append(forks.process(_work, (there, place), daemon=True))
            processes[-1].start()
            there.close()  # so that the other end is told when the process has ended
            free.append(here)
        while busy or (waiting and free):
            while waiting and free:
                worker = free.pop()
                with suppress(OSError):  # it was killed
                    worker.send(waiting[0])
                    busy[worker] = waiting.pop(0)
            ready = wait(list(busy)) if busy else []
            for worker in [each for each in busy if each in ready]:
                job = busy.pop(worker)
                with suppress(EOFError, OSError):
                    done = worker.recv()
                    free.append(worker)
                    if done and job.look is None:
                        waiting += [job._replace(look=look) for look in then]
        for worker in free:
            worker.close()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()


def _work(asked: Connection, place: int) -> None:
    """Do what is asked for, and say each time whether it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one ends it
    forks.end_with_parent()
    # a line of its own for its progress bars
    tqdm.__init__ = partialmethod(tqdm.__init__, position=place)  # type: ignore[method-assign, assignment]
    runs: dict[Any, Run] = {}
    with suppress(EOFError):  # nothing is asked for any more
        while True:
            preset, seed, folder, progress, network, look = asked.recv()
            run = runs.setdefault((folder, seed), Run(preset, seed, folder, progress=progress, workers=0))
            try:
                if look is None:
                    trained.path(run, network)
                else:
                    look([runs.setdefault((folder, seed, network), run.alone(network))])
            except (RfvizError, OSError):  # it is met again, and told, where the result is asked for
                asked.send(False)
            else:
                asked.send(True)
