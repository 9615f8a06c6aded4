"""The augmentation of Szegedy et al. (2015), for a batch of images at once and on any device.

All random numbers are drawn before any pixel is read, as a row of numbers in [0, 1) per image, so that a training image
depends on nothing but that row. The part of the image to cut out is computed on the host, which may then read no more
than that part; resizing, mirroring and distortion are a few operations on the whole batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rfviz.images.data import Box

TRIES = 10
"""Crops that are drawn until one fits into the image, before the central one is taken (as in torchvision)."""

DRAWS = 2 + 2 * TRIES + 2 + 1 + 3 + 1
"""Random numbers per image: window, tries of area and aspect, position, mirror, three factors, their order."""

ASPECTS = (3 / 4, 4 / 3)
"""Smallest and largest width over height of a crop, before it is resized to a square."""

_ORDERS = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
_BRIGHTNESS, _CONTRAST = 0, 1  # and 2 is saturation
_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision's


class TrainingBatch(NamedTuple):
    """Parts of images, as read, and what the augmentation needs to know of each.

    Parameters
    ----------
    pixels : Tensor of uint8, shape (N, 3, H, W)
        Each image fills the upper left corner; the rest is padding.
    boxes : Tensor, shape (N, 4)
        The `Box` of each image within `pixels`: what is outside does not count.
    draws : Tensor, shape (N, DRAWS)
        Random numbers in [0, 1).
    labels : Tensor of int64, shape (N,)
    """

    pixels: Tensor
    boxes: Tensor
    draws: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crop area and aspect, a mirror image half of the time, photometric distortion.

    Parameters
    ----------
    crop : int
        Side of the training image, px.
    area : (float, float)
        Smallest and largest share of the image that the crop may take; the paper's is 8 to 100 %.
    distortion : float
        Brightness, contrast and saturation are each multiplied by a factor from ``[1 - distortion, 1 + distortion]``
        (never below 0), in random order (Howard, 2013, whom Szegedy et al. follow, gives no numbers: ours).
    window : int, optional
        First take a random square of this side, px: for photographs that are much larger than a training image.
    """

    crop: int
    area: tuple[float, float] = (0.08, 1.0)
    distortion: float = 0.4
    window: int | None = None

    def box(self, draws: Sequence[float], height: int, width: int) -> Box:
        """Return what is cut out of an image of `height` x `width` px for one row of random numbers."""
        top = left = 0
        if self.window is not None:
            rows, columns = min(self.window, height), min(self.window, width)
            top, left = int(draws[0] * (height - rows + 1)), int(draws[1] * (width - columns + 1))
            height, width = rows, columns
        h, w = self._size(draws[2 : 2 + 2 * TRIES], height, width)
        if h is None or w is None:  # the largest crop in the middle whose aspect is allowed
            h, w = min(height, round(width / ASPECTS[0])), min(width, round(height * ASPECTS[1]))
            return Box(top + (height - h) // 2, left + (width - w) // 2, h, w)
        down, right = draws[2 + 2 * TRIES : 4 + 2 * TRIES]
        return Box(top + int(down * (height - h + 1)), left + int(right * (width - w + 1)), h, w)

    def _size(self, draws: Sequence[float], height: int, width: int) -> tuple[int, int] | tuple[None, None]:
        low, high = (math.log(aspect) for aspect in ASPECTS)
        for i in range(0, len(draws), 2):
            area = height * width * (self.area[0] + draws[i] * (self.area[1] - self.area[0]))
            aspect = math.exp(low + draws[i + 1] * (high - low))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return h, w
        return None, None

    def __call__(self, batch: TrainingBatch) -> Tensor:
        """Return the training images `(N, 3, crop, crop)`, RGB in [0, 1], on the device of the batch."""
        mirror, *factors, order = batch.draws[:, 4 + 2 * TRIES :].unbind(1)
        return self.distort(self.resize(batch, mirror < 0.5), torch.stack(factors, 1), order)

    def resize(self, batch: TrainingBatch, mirrored: Tensor) -> Tensor:
        """Resize every box to `crop` x `crop` px, with a triangular filter that is as wide as the reduction.

        Both directions are products with matrices of weights, one pair of matrices per image.
        """
        top, left, height, width = batch.boxes.unbind(1)
        rows = resizing(top, height, self.crop, batch.pixels.shape[2])
        columns = resizing(left, width, self.crop, batch.pixels.shape[3])
        columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
        count, colours, lines, _ = batch.pixels.shape
        across = batch.pixels.float().flatten(1, 2) @ columns.transpose(1, 2)  # one product per image, of all colours
        across = across.view(count, colours, lines, self.crop).transpose(1, 2).flatten(2)
        down = (rows / 255) @ across
        return down.view(count, self.crop, colours, self.crop).transpose(1, 2)

    def distort(self, images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
        """Change brightness, contrast and saturation of images `(N, 3, H, W)`.

        Parameters
        ----------
        images : Tensor, shape (N, 3, H, W)
        factors : Tensor, shape (N, 3)
            In [0, 1): 0 is the smallest factor, 1 the largest.
        order : Tensor, shape (N,)
            In [0, 1): which of the six orders.
        """
        if self.distortion == 0:
            return images
        least = max(0.0, 1 - self.distortion)
        factors = least + factors * (1 + self.distortion - least)
        steps = _ORDERS.to(images.device, non_blocking=True)[(order * len(_ORDERS)).long()]
        images = images.clone()
        for which in steps.unbind(1):
            factor = factors.gather(1, which[:, None])[:, :, None, None]
            red, green, blue = images.split(1, 1)
            grey = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
            which = which[:, None, None, None]
            # each of the three is a mixture: with black, with the mean grey, with the grey of each pixel
            other = torch.where(which == _CONTRAST, grey.mean((2, 3), keepdim=True), grey)
            images.mul_(factor).add_(other.mul_((1 - factor) * (which != _BRIGHTNESS))).clamp_(0, 1)
        return images


def resizing(start: Tensor, extent: Tensor, size: int, pixels: int) -> Tensor:
    """Return the weights with which pixels of a line make up the pixels of a resized part of it.

    Parameters
    ----------
    start, extent : Tensor, shape (N,)
        Where the part begins and how long it is, px.
    size : int
        Pixels that it is resized to.
    pixels : int
        Pixels of the line.

    Returns
    -------
    Tensor, shape (N, size, pixels)
        Rows sum to 1. The filter is a triangle that is two pixels wide, of the line or of the result, whichever are
        larger (bilinear interpolation with antialiasing, as torchvision and Pillow do it); pixels that lie outside
        the part have no weight.
    """
    scale = (extent / size)[:, None, None]
    start, end = start[:, None, None], (start + extent)[:, None, None]
    wanted = torch.arange(size, device=start.device)[:, None] + 0.5
    given = torch.arange(pixels, device=start.device) + 0.5
    weights = 1 - (given - (start + wanted * scale)).abs() / scale.clamp(min=1)
    weights = weights.clamp(min=0) * ((given + 0.5 > start) & (given - 0.5 < end))
    return weights / weights.sum(-1, keepdim=True)
