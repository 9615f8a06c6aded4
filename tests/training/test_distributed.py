"""Several processes, and what they tell each other."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from rfviz.storage.digests import tensor_digest
from rfviz.training import distributed

torch.set_num_threads(1)  # also where a child process imports this module

CHILDREN = multiprocessing.get_context("forkserver")  # forks of a process that has imported all and has no threads
CHILDREN.set_forkserver_preload(["torch.distributed", "rfviz.training.distributed", "pytest"])
PATIENCE = 120  # seconds, for what takes a few


def rank() -> int:
    return distributed.world()[0]


# -- without a group --------------------------------------------------------------------------------------------------


def test_one_process_alone():
    assert distributed.world() == (0, 1)
    assert distributed.barrier() is None
    weight = torch.rand(3, 4, requires_grad=True)
    (held,) = distributed.gather({"a": weight.T, "b": torch.tensor(3)})
    assert torch.equal(held["a"], weight.T) and held["a"].is_contiguous() and not held["a"].requires_grad
    assert held["b"].item() == 3
    assert distributed.gather({}) == [{}]
    assert distributed.first_says(True) is True and distributed.first_says(False) is False
    assert distributed.any_says([True, False]) == [True, False]


@pytest.mark.parametrize("size", [None, "1"])
def test_without_torchrun_no_group_is_made(monkeypatch, size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    with distributed.process_group():
        assert not dist.is_initialized()
        assert distributed.world() == (0, 1)
    assert not dist.is_initialized()


# -- in a group -------------------------------------------------------------------------------------------------------


def belongings(of: int) -> dict[str, Tensor]:
    """What process `of` holds: names, numbers, shapes and types differ."""
    generator = torch.Generator().manual_seed(of)
    if of == 1:
        return {}
    held = {
        "double": torch.randn(of + 1, 3, 2 * of + 1, generator=generator, dtype=torch.float64),
        "bfloat16": torch.randn(5, generator=generator).bfloat16(),
        "number": torch.tensor(10**15 + of),
        "flags": torch.rand(4, 3 + of, generator=generator) > 0.5,
        "nothing": torch.zeros(0, 3, of),
        "special": torch.tensor([torch.nan, torch.inf, -0.0]),
        f"only {of}": torch.arange(of),
    }
    held["turned"] = held["double"].mT[1:]
    held["every second"] = held["double"][:, ::2]
    return held


def gather_returns_what_every_process_holds() -> None:
    with torch.inference_mode():
        mine = belongings(rank())
    gathered, empty = distributed.gather(mine), distributed.gather({})
    processes = distributed.world()[1]
    assert empty == [{}] * processes
    assert len(gathered) == processes
    for of, held in enumerate(gathered):
        assert tensor_digest(held) == tensor_digest(belongings(of))
    large = distributed.gather({"large": torch.full((100_000 * (2 - rank() % 2),), rank())})
    assert [(len(held["large"]), int(held["large"].amax())) for held in large] == [
        (100_000 * (2 - of % 2), of) for of in range(processes)
    ]
    gathered[0]["number"] += 1  # what came is one's own


def the_first_process_decides_for_all() -> None:
    assert distributed.first_says(rank() == 0) is True
    assert distributed.first_says(rank() != 0) is False
    assert distributed.any_says([rank() == 0, rank() == 1, False]) == [True, True, False]


def a_barrier_waits(folder: Path) -> None:
    if rank() == 1:
        time.sleep(0.3)
        (folder / "here").touch()
    distributed.barrier()
    assert (folder / "here").exists()


def the_first_of_a_machine_goes_first(folder: Path) -> None:
    os.environ["LOCAL_RANK"] = str(rank())
    with distributed.first_of_machine():
        assert (folder / "unpacked").exists() == (rank() > 0)
        (folder / "unpacked").touch()


def a_group_that_exists_is_kept(processes: int) -> None:
    os.environ["WORLD_SIZE"] = str(processes)
    with distributed.process_group():
        assert distributed.world() == (rank(), processes)
    assert dist.is_initialized()  # whoever made the group ends it


def member(number: int, processes: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=number, world_size=processes)
    try:
        gather_returns_what_every_process_holds()
        the_first_process_decides_for_all()
        a_barrier_waits(folder)
        the_first_of_a_machine_goes_first(folder)
        a_group_that_exists_is_kept(processes)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_what_processes_tell_each_other(tmp_path, processes):
    members = [CHILDREN.Process(target=member, args=(number, processes, tmp_path)) for number in range(processes)]
    for each in members:
        each.start()
    for each in members:
        each.join(PATIENCE)
        each.kill()  # a process that waits for one that failed
        each.join()
    assert [each.exitcode for each in members] == [0] * processes
