"""The photographs that come with scikit-image: 14 real pictures that need no download.

Each photograph is a class of its own. Two thirds along its longer side are for training; the last third is cut into
tiles that do not overlap, for evaluation and for every analysis. No pixel is in both, and no two evaluation images
share one. (Two large photographs are reduced first, so that is said of the reduced pixels.)
"""

from functools import cache

import numpy as np
import skimage.data
import torch
from torch import Tensor

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.transforms import v2

from rfviz.errors import RfvizError
from rfviz.images.data import ImagesInMemory, Split

COLOUR = (
    "astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket",
    "stereo_motorcycle",
)  # fmt: skip
GREY = ("brick", "camera", "coins", "grass", "gravel", "moon")
CLASSES = (*COLOUR, *GREY)

LONGEST_SHORT_SIDE = 512
"""Photographs whose short side is longer are reduced to this many px, so that none dominates the others."""

TRAINING_SHARE = 2 / 3


@cache
def photograph(name: str) -> Tensor:
    """Return one photograph as uint8 `(3, H, W)`; grey ones have three equal colour channels."""
    loaded = getattr(skimage.data, name)()
    array = loaded[0] if name == "stereo_motorcycle" else loaded  # (left, right, disparity)
    image = torch.from_numpy(np.atleast_3d(array).copy()).permute(2, 0, 1)
    image = image.expand(3, -1, -1).contiguous()
    if min(image.shape[1:]) > LONGEST_SHORT_SIDE:
        image = v2.functional.resize(image, [LONGEST_SHORT_SIDE], antialias=True)
    return image


def parts(image: Tensor) -> tuple[Tensor, Tensor]:
    """Cut an image `(3, H, W)` across its longer side into the training part and the evaluation part."""
    axis = 2 if image.shape[2] >= image.shape[1] else 1
    length = image.shape[axis]
    cut = round(length * TRAINING_SHARE)
    return image.narrow(axis, 0, cut), image.narrow(axis, cut, length - cut)


def tiles(image: Tensor, size: int) -> list[Tensor]:
    """Cut an image `(3, H, W)` into as many `size` x `size` tiles as fit beside each other, spread evenly over it.

    A side shorter than `size` gives one row of tiles of that side's length.
    """
    rows, columns = (_spread(length, size) for length in image.shape[1:])
    return [image[:, top : top + size, left : left + size] for top in rows for left in columns]


def _spread(length: int, size: int) -> list[int]:
    count = max(1, length // size)
    gap = max(0, length - count * size) / count
    return [int(gap / 2 + i * (size + gap)) for i in range(count)]


def load(tile: int, classes: int = len(CLASSES)) -> Split:
    """Return training parts and evaluation tiles of the first photographs.

    Parameters
    ----------
    tile : int
        Side of an evaluation tile, px.
    classes : int
        How many of the 14 photographs to take.

    Returns
    -------
    Split
        `train` holds one large image per photograph, to draw crops from; `evaluation` holds the tiles.

    Raises
    ------
    RfvizError
        If there are not so many.
    """
    if classes > len(CLASSES):
        raise RfvizError(f"classes is {classes}: there are {len(CLASSES)} photographs.")
    train, evaluation, labels = [], [], []
    chosen = CLASSES[:classes]
    for label, name in enumerate(chosen):
        train_part, evaluation_part = parts(photograph(name))
        train.append(train_part.contiguous())
        here = [cut.contiguous() for cut in tiles(evaluation_part, tile)]
        evaluation += here
        labels += [label] * len(here)
    return Split(ImagesInMemory(train, list(range(len(chosen))), chosen), ImagesInMemory(evaluation, labels, chosen))
