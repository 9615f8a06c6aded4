"""Small networks that are trained and looked at side by side: one process per few threads, until no core is left.

On two cores, two small networks are trained in little more than the time of one: most of what a training step does is
too small to be shared between threads, and so is most of what is measured afterwards. And because each has the threads
of its recipe, everything comes out the same whatever the number of cores (on processors of one kind).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partialmethod
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import std
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
    """To train a network, after which there is more to do, or to look at one that is there."""

    preset: Preset
    seed: int
    folder: Path
    device: torch.device
    progress: bool
    network: str
    look: Look | None = None
    then: Sequence[Look] = ()

    @property
    def of(self) -> tuple[Path, int, str]:
        """What it is done to: two at a time would wait for each other."""
        return self.folder, self.seed, self.network

    @property
    def next(self) -> list["_Job"]:
        """What there is to do when the network is there."""
        return [self._replace(look=look, then=()) for look in self.then]


def train(
    runs: Sequence[Run], networks: Sequence[str] | None = None, then: Sequence[Sequence[Look]] | None = None
) -> None:
    """Train networks of some runs that are not there yet, several at a time, and look at each that is there.

    Only on a CPU, and where the recipe names a number of threads: other trainings use the whole machine, and happen
    when they are asked for. So does what fails here, and then says why.

    Parameters
    ----------
    runs : sequence of Run
    networks : sequence of str, optional
        Names of the networks; all by default.
    then : sequence of sequences of callable, optional
        For each run, what is called with a run of one of its networks alone (`rfviz.lab.run.Run.alone`), for the
        results that it leaves. Networks whose weights were given are left to whoever asks.
    """
    waiting: list[_Job] = []
    for run, looks in zip(runs, then or [()] * len(runs), strict=True):
        for name in networks or run.given.networks:
            if not run.given.recipe(name).threads or run.device.type != "cpu" or run.stored(name) is not None:
                continue
            looks = looks if run.threads else ()
            job = _Job(run.given, run.seed, run.folder, run.device, run.progress, name, then=looks)
            waiting += [job] if run.is_to_be_trained(name) else job.next
            if waiting:  # what has to be downloaded or measured first is there before several look for it
                run.whitening(name)
    if len(waiting) < 2 or distributed.started() > 1:
        return
    threads = max(job.preset.recipe(job.network).threads or 1 for job in waiting)
    places = max(1, min(available_cores() // threads, sum(1 + len(job.then) for job in waiting)))
    free, busy, processes = list[Connection](), dict[Connection, _Job](), []
    try:
        for place in range(places):
            here, there = multiprocessing.Pipe()
            processes.append(forks.process(_work, (there, place, dict(os.environ)), daemon=True))
            processes[-1].start()
            there.close()  # so that the other end is told when the process has ended
            free.append(here)
        while busy or (waiting and free):
            while waiting and free:
                at_work = [job.of for job in busy.values()]
                job = next((job for job in waiting if job.of not in at_work), waiting[0])
                waiting.remove(job)
                worker = free.pop()
                with suppress(OSError):  # it was killed
                    worker.send(job)
                    busy[worker] = job
            ready = wait(list(busy), forks.A_WHILE) if busy else []
            for worker in [each for each in busy if each in ready]:
                job = busy.pop(worker)
                with suppress(EOFError, OSError):
                    if worker.recv():
                        waiting += job.next
                    free.append(worker)
        for worker in free:
            worker.close()
        for process in processes:
            while process.is_alive():
                process.join(forks.A_WHILE)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _work(asked: Connection, place: int, environment: Mapping[str, str]) -> None:
    """Do what is asked for, and say each time whether it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one ends it
    forks.end_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    # its progress bars have a line of their own, and no lock that processes share: who is killed would leave it behind
    std.tqdm.set_lock(threading.RLock())  # of bars of all kinds: torch makes some, too
    tqdm.__init__ = partialmethod(tqdm.__init__, position=place)  # type: ignore[method-assign, assignment]
    runs: dict[Any, Run] = {}
    with suppress(EOFError):  # nothing is asked for any more
        while True:
            job: _Job = asked.recv()
            if (job.folder, job.seed) not in runs:
                runs.clear()  # one at a time is kept in memory
                runs[job.folder, job.seed] = Run(job.preset, job.seed, job.folder, job.device, job.progress, workers=0)
            run = runs[job.folder, job.seed]
            try:
                if job.look is None:
                    trained.path(run, job.network)
                else:
                    if job.of not in runs:
                        runs[job.of] = run.alone(job.network)
                    job.look([runs[job.of]])
            except (RfvizError, OSError):  # it is met again, and told, where the result is asked for
                asked.send(False)
            else:
                asked.send(True)
