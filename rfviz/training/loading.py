"""Training images, batch by batch: which ones, and which part of each; no more than that is read.

Everything random depends on (seed, epoch, step) alone, so that the number of workers, the number of
processes and an interruption change nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rfviz.errors import reraising
from rfviz.images.batches import available_cores
from rfviz.images.data import Labelled, in_memory, region
from rfviz.training.augmentation import DRAWS, Augmentation, TrainingBatch
from rfviz.training.distributed import processes_here

# The first entry of every random key: numpy treats (1, 2) and (1, 2, 0) as the same key, so each purpose has its own.
_ORDER, _DRAWS = 1, 2

AHEAD = 2
"""Micro-batches that each worker prepares ahead."""


@dataclass(frozen=True)
class Plan:
    """The order in which a training visits its images, in batches that are divided into micro-batches.

    Parameters
    ----------
    images : int
        In one epoch: the images of the set times the visits to each.
    batch_size : int
        Images per step of the optimizer, at most `images`; a short last batch of an epoch is left out.
    micro_batch : int
        Images that go through the network together.
    seed : int
    share : (int, int)
        ``(r, n)`` is process r of n: it takes the micro-batches r, r + n, r + 2n, ... of every batch.
    """

    images: int
    batch_size: int
    micro_batch: int
    seed: int
    share: tuple[int, int] = (0, 1)

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.images // self.batch_size

    @property
    def micro_batches(self) -> int:
        """Micro-batches per step, of all processes together."""
        return -(-self.batch_size // self.micro_batch)

    @property
    def parts(self) -> range:
        """The micro-batches of a step that this process takes."""
        rank, processes = self.share
        return range(rank, self.micro_batches, processes)

    def rows(self, part: int) -> slice:
        """Return the images of a micro-batch, as a slice of those of its step."""
        return slice(part * self.micro_batch, (part + 1) * self.micro_batch)

    def visits(self, epoch: int, step: int) -> np.ndarray:
        """Return the visits of a step, numbers below `images`: ``visit % len(set)`` is the image."""
        return _order(self.images, self.seed, epoch)[step * self.batch_size : (step + 1) * self.batch_size]

    def draws(self, epoch: int, step: int) -> np.ndarray:
        """Return the random numbers of a step, one row for each of its visits."""
        generator = np.random.default_rng((_DRAWS, self.seed, epoch, step))
        return generator.random((self.batch_size, DRAWS), dtype=np.float32)

    def keys(self, first: int, epochs: int) -> Iterator[tuple[int, int, int]]:
        """Yield the micro-batches of this process as (epoch, step within it, part), from step `first` on."""
        for step in range(first, epochs * self.steps):
            for part in self.parts:
                yield *divmod(step, self.steps), part


@lru_cache(maxsize=2)
def _order(images: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(images)


class MicroBatches(Dataset):
    """The micro-batches of a plan; the key (epoch, step, part) gives a `TrainingBatch`."""

    def __init__(self, images: Labelled, augmentation: Augmentation, plan: Plan):
        self.images, self.augmentation, self.plan = images, augmentation, plan

    def __getitem__(self, key: tuple[int, int, int]) -> TrainingBatch:
        epoch, step, part = key
        rows = self.plan.rows(part)
        draws = self.plan.draws(epoch, step)[rows]
        read, labels = [], []
        for visit, numbers in zip(self.plan.visits(epoch, step)[rows].tolist(), draws.tolist(), strict=True):
            index = visit % len(self.images)
            read.append(region(self.images, index, partial(self.augmentation.box, numbers), self.augmentation.crop))
            labels.append(self.images.labels[index])
        sides = [max(each.pixels.shape[axis] for each in read) for axis in (1, 2)]
        pixels = torch.zeros(len(read), 3, *sides, dtype=torch.uint8)
        for target, each in zip(pixels, read, strict=True):
            target[:, : each.pixels.shape[1], : each.pixels.shape[2]] = each.pixels
        boxes = torch.tensor([each.box for each in read], dtype=torch.float32)
        return TrainingBatch(pixels, boxes, torch.from_numpy(draws), torch.tensor(labels))


def training_batches(
    batches: MicroBatches, keys: Iterable[tuple[int, int, int]], workers: int, device: torch.device
) -> Iterator[TrainingBatch]:
    """Yield micro-batches on the device; `workers` processes prepare them ahead."""
    cuda = device.type == "cuda"
    loader = DataLoader(
        batches, batch_size=None, sampler=keys, num_workers=workers, prefetch_factor=AHEAD if workers else None,
        pin_memory=cuda, generator=torch.Generator(),  # not the global one, from which it would draw
    )  # fmt: skip
    for batch in reraising(loader):
        yield TrainingBatch(*(tensor.to(device, non_blocking=cuda) for tensor in batch))


def usual_workers(images: Any, device: torch.device) -> int:
    """Return how many processes should load images: none where they are in memory and the CPU computes as well.

    Processes of a group that share the machine (`rfviz.training.distributed`) share its cores.
    """
    cores, processes = available_cores(), processes_here()
    if device.type == "cpu":
        return 0 if in_memory(images) else max(1, cores // 2 // processes)
    return max(1, min(cores // processes, 2 if in_memory(images) else 16))
