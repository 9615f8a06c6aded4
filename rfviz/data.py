"""Labelled images as every part of the package takes them, and the augmentation of training.

An image is RGB in [0, 1], float32 `(3, H, W)`; whitening comes later, just before the network. Evaluation images never
depend on chance; a training image depends on nothing but (seed, epoch, index), so that batch size, number of workers
and an interruption change nothing.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2


class Indexed(Protocol):
    """Anything with a length and numbered items, such as a data set; an item is an image or (image, label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Labelled(Protocol):
    """A set of labelled images: `labels` are indices into `classes`, an item is `(uint8 image (3, H, W), label)`."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    def labels(self) -> Sequence[int]:
        """Index of each image's class."""

    @property
    def fingerprint(self) -> str:
        """Hash of the images and labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


@dataclass(frozen=True)
class ImagesInMemory:
    """Labelled images that are held in memory.

    Parameters
    ----------
    images : sequence of uint8 Tensor, shape (3, H, W)
    labels : sequence of int
        Index of each image's class.
    classes : sequence of str
    """

    images: Sequence[Tensor]
    labels: Sequence[int]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.labels[index]

    @property
    def fingerprint(self) -> str:
        """Hash of every pixel, label and class name."""
        digest = hashlib.sha256(repr((tuple(self.labels), tuple(self.classes))).encode())
        for image in self.images:
            digest.update(repr(tuple(image.shape)).encode())
            digest.update(image.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class Split(NamedTuple):
    """Training and evaluation images of one source; no pixel is in both."""

    train: Labelled
    evaluation: Labelled


class Evaluation(Dataset):
    """The images of a set as the analyses see them.

    Parameters
    ----------
    source : Labelled
    short_side, crop : int or None
        Resize the short side to `short_side` px, then cut the central `crop` x `crop` px; None leaves images as they
        are.
    """

    def __init__(self, source: Labelled, short_side: int | None = None, crop: int | None = None):
        self.source = source
        self.classes, self.labels = source.classes, source.labels
        self.fingerprint = f"{source.fingerprint}-{short_side}-{crop}"
        steps: list[Callable] = []
        if short_side is not None:
            steps.append(v2.Resize(short_side, antialias=True))
        if crop is not None:
            steps.append(v2.CenterCrop(crop))
        steps.append(v2.ToDtype(torch.float32, scale=True))
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.source[index]
        return self.transform(image), label


def szegedy(
    crop: int, area: tuple[float, float] = (0.08, 1.0), distortion: float = 0.4, window: int | None = None
) -> v2.Compose:
    """Build the augmentation of Szegedy et al. (2015): random crop area and aspect, a flip, photometric distortion.

    Parameters
    ----------
    crop : int
        Side of the training image, px.
    area : (float, float)
        Smallest and largest share of the image that the crop may take; the paper's is 8 to 100 %.
    distortion : float
        Brightness, contrast and saturation are each multiplied by a factor from ``[1 - distortion, 1 + distortion]``,
        in random order (Howard, 2013, whom Szegedy et al. follow, gives no numbers: ours).
    window : int, optional
        First take a random square of this side, px: for photographs that are much larger than a training image.
    """
    return v2.Compose(
        [
            *([v2.RandomCrop(window)] if window else []),
            v2.RandomResizedCrop(crop, scale=area, ratio=(3 / 4, 4 / 3), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(distortion, distortion, distortion),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def keyed_seed(*key: int) -> int:
    """Return a 64-bit seed that depends on the whole key, such as (seed, epoch, index)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


class Augmented(Dataset):
    """Training images; an index is the pair `(epoch, i)` and the image depends on nothing else but the seed.

    Parameters
    ----------
    source : Labelled
    transform : callable
        Draws from torch's global generator, as torchvision's transforms do.
    seed : int
    repeats : int
        How often an epoch visits each image of the source.
    """

    def __init__(self, source: Labelled, transform: Callable[[Tensor], Tensor], seed: int, repeats: int = 1):
        self.source, self.transform, self.seed = source, transform, seed
        self.length = len(source) * repeats

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, i = index
        image, label = self.source[i % len(self.source)]
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed every accelerator too, which fork_rng does not put back here
            torch.default_generator.manual_seed(keyed_seed(self.seed, epoch, i))
            return self.transform(image), label


class _Shuffled(Sampler):
    def __init__(self, length: int, seed: int, epoch: int):
        self.length, self.seed, self.epoch = length, seed, epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter([(self.epoch, int(i)) for i in order])


def training_batches(images: Augmented, batch_size: int, epoch: int, workers: int = 0) -> DataLoader:
    """Return the batches `(images (N, 3, crop, crop), labels (N,))` of one epoch; a short last batch is left out."""
    return DataLoader(
        images,
        batch_size,
        sampler=_Shuffled(len(images), images.seed, epoch),
        drop_last=len(images) >= batch_size,
        num_workers=workers,
    )
