"""Labelled images as every part of the package takes them.

An image is RGB in [0, 1], float32 `(3, H, W)`; whitening comes later, just before the network. Evaluation images never
depend on chance; those of training are cut out and distorted as `rfviz.training.augmentation` says.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.transforms import v2

from rfviz.errors import RfvizError, first_line


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
        """Index of each image's class; `NO_CLASS` where it has none."""

    @property
    def fingerprint(self) -> str:
        """Hash of the images and labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


NO_CLASS = -1
"""Label of an image that has no class."""


def labels_of(images: Any) -> Tensor | None:
    """Return the labels of a set of images, int64 `(N,)`; None if it has none, or some images have no class.

    Raises
    ------
    RfvizError
        If a label is no whole number.
    """
    labels = getattr(images, "labels", None)
    try:
        found = None if labels is None else torch.tensor([int(label) for label in labels])
    except (TypeError, ValueError) as error:
        raise RfvizError(f"labels must be whole numbers, indices into the classes: {first_line(error)}.") from error
    return None if found is None or (found == NO_CLASS).any() else found


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
    in_memory: ClassVar[bool] = True

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


def in_memory(images: Any) -> bool:
    """Tell whether the images of a set need no reading; sets that do not say are taken to be quick."""
    return bool(getattr(images, "in_memory", True))


class Split(NamedTuple):
    """Training and evaluation images of one source: no pixel is in both, or they are the same set and none trains."""

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
    labelled : bool
        Whether the labels are those that the networks tell apart; if not, all are `NO_CLASS`.
    """

    def __init__(
        self, source: Labelled, short_side: int | None = None, crop: int | None = None, *, labelled: bool = True
    ):
        self.source = source
        self.classes, self.labels = source.classes, source.labels if labelled else [NO_CLASS] * len(source)
        self.fingerprint = f"{source.fingerprint}-{short_side}-{crop}{'' if labelled else '-unlabelled'}"
        self.short_side, self.crop, self.labelled = short_side, crop, labelled
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
        return self.transform(image), label if self.labelled else NO_CLASS

    def unlabelled(self) -> "Evaluation":
        """Return the same images without their labels."""
        return Evaluation(self.source, self.short_side, self.crop, labelled=False)


class Box(NamedTuple):
    """A rectangle of an image, px; it may begin and end within pixels."""

    top: float
    left: float
    height: float
    width: float


class Region(NamedTuple):
    """A part of an image, as read: uint8 pixels `(3, h, w)`, and the box within them that was asked for."""

    pixels: Tensor
    box: Box


def region(source: Labelled, index: int, choose: Callable[[int, int], Box], side: int) -> Region:
    """Read a part of an image.

    Parameters
    ----------
    source : Labelled
        May have a method `region` of its own that decodes less than the whole image.
    index : int
    choose : callable
        Takes height and width of the image and returns the part as a `Box`, px.
    side : int
        The part will be resized to so many px each way: finer details need not be read.
    """
    own = getattr(source, "region", None)
    return own(index, choose, side) if own is not None else cut(source[index][0], choose)


def cut(image: Tensor, choose: Callable[[int, int], Box]) -> Region:
    """Cut the pixels that a box touches out of an image `(3, H, W)`, without a copy."""
    box = choose(*image.shape[1:])
    top, left = int(box.top), int(box.left)
    pixels = image[:, top : math.ceil(box.top + box.height), left : math.ceil(box.left + box.width)]
    return Region(pixels, Box(box.top - top, box.left - left, box.height, box.width))
