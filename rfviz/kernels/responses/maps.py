"""The feature maps of one layer for a batch of images, and what several statistics want of them."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.kernels.responses.cores import ALONE, Cores

AT_ONCE = 1 << 20
"""Responses that a core looks at together: few enough to stay in its cache from one operation to the next."""

OCTAVES = range(-10, 10)
"""Exponents of the octaves between 2^-10 and 2^10 in which responses are counted."""

# Of each type: the integer type of the same width, the bits of the mantissa, and the bias of the exponent.
_LAYOUT = {torch.float32: (torch.int32, 23, 127), torch.float64: (torch.int64, 52, 1023)}

_COPIED = 1 << 19  # responses that are copied at a time
_ALL = slice(None)
_Found = TypeVar("_Found")


class Maps:
    """Responses of one layer to a batch of images.

    Parameters
    ----------
    values : Tensor, shape (N, C, h, w)
        float32 or float64; other types are turned into float32.
    rows, columns : slice
        Where the neurons are that compete for the preferred stimuli; by default everywhere.
    cores : Cores
        Who looks at them.
    """

    def __init__(self, values: Tensor, rows: slice = _ALL, columns: slice = _ALL, cores: Cores = ALONE):
        self.values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        self.competing = self.values[..., rows, columns]
        self.corner = rows.start or 0, columns.start or 0
        self._cores = cores
        # Where channels come last in memory, maps are laid flat as (N, h * w, C), otherwise as (N, C, h * w).
        self._positions = 1 if self.values.stride(1) < self.values.stride(3) else 2

    def _flat(self, values: Tensor) -> Tensor:
        return (values.permute(0, 2, 3, 1).flatten(1, 2) if self._positions == 1 else values.flatten(2)).contiguous()

    def _each(self, look: Callable[[slice], _Found]) -> list[_Found]:
        """Return what `look` finds, a few images after the other."""
        images = at_once = len(self.values)
        if not self.values.is_cuda:
            of_core = -(-images // torch.get_num_threads())
            looks = -(-of_core * self.values[0].numel() // AT_ONCE)
            at_once = -(-of_core // looks)
        at_once += at_once % 2  # see `_histogram`
        return self._cores.each(look, [slice(begin, begin + at_once) for begin in range(0, images, at_once)])

    @cached_property
    def maxima(self) -> Tensor:
        """Strongest response that competes, of every image and channel, `(N, C)`."""
        return torch.cat(self._each(lambda part: self._flat(self.competing[part]).amax(self._positions)))

    @cached_property
    def summary(self) -> tuple[Tensor, Tensor, Tensor]:
        """What all responses are, found in one look, the maxima with it.

        The maximum `(C,)`; sums over positions `(N, C)` in float64, finite where all responses are; and the histogram
        `(C, 23)` of `rfviz.kernels.responses.LayerResponses`.
        """
        maxima, maximum, sums, histogram = zip(*self._each(self._look), strict=True)
        self.maxima = torch.cat(maxima)
        return torch.stack(maximum).amax(0), torch.cat(sums), torch.stack(histogram).sum(0)

    def _look(self, part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        flat = self._flat(self.values[part])
        strongest = maxima = flat.amax(self._positions)
        if self.competing.shape != self.values.shape:
            maxima = self._flat(self.competing[part]).amax(self._positions)
        sums = flat.sum(self._positions, dtype=torch.float64)
        if strongest.max() > 2.0**OCTAVES.stop:  # rare
            flat = flat.clamp(max=2.0**OCTAVES.stop)
        return maxima, strongest.amax(0), sums, self._histogram(flat)

    def _histogram(self, flat: Tensor) -> Tensor:
        """Count responses that are 2^10 at most in octaves, `(C, 23)`: a float's exponent is its octave."""
        integer, mantissa, bias = _LAYOUT[flat.dtype]
        low, silent = bias + OCTAVES.start - 1, bias + OCTAVES.stop + 1
        # What is not positive goes above all octaves, where it can be told from the smallest numbers.
        bins = F.threshold(flat, 0, 2.0 ** (OCTAVES.stop + 1)).view(integer).bitwise_right_shift_(mantissa)
        bins = bins.clamp_(low, silent)
        number, channels = silent - low + 1, flat.shape[3 - self._positions]
        channel = torch.arange(channels, device=flat.device, dtype=integer)
        counted = len(flat) * flat.shape[self._positions]  # of a channel
        pairs = len(flat) % 2 == 0 and counted > 4 * number**2  # fewer would be less work than their table
        if pairs:  # two images at once, in the rows and the columns of a table per channel: half as much to count
            bins, others = bins.chunk(2)
            bins.add_(others, alpha=number)
            first = channel * number**2 - (number + 1) * low
        else:
            first = channel * number - low
        bins += first[:, None] if self._positions == 2 else first
        shape = (channels, number, number) if pairs else (channels, number)
        counts = torch.bincount(bins.flatten(), minlength=math.prod(shape)).view(shape)
        return (counts.sum(1) + counts.sum(2) if pairs else counts).roll(1, 1)

    def first_maximum(self, image: Tensor, channel: Tensor) -> Tensor:
        """Return where the first of the strongest of the neurons that compete is, for pairs (image, channel).

        Positions count in raster order.
        """
        order = image.argsort()  # what lies near each other is read together
        found = torch.empty_like(image)
        for some in order.split(max(1, _COPIED // self.competing[0, 0].numel())):
            found[some] = self.competing[image[some], channel[some]].flatten(1).max(1).indices
        return found

    def refuse_not_finite(self, layer: str, index: Tensor) -> None:
        """Raise an RfvizError that names the first image with a response that is NaN or infinite, if there is one."""
        _, sums, _ = self.summary
        if sums.isfinite().all():
            return
        finite = self.values.isfinite().flatten(1).all(1)  # a sum of finite numbers may overflow
        if not finite.all():
            image = int(index[finite.cpu().logical_not()][0])
            raise RfvizError(
                f"image {image}: layer {layer!r} responds with NaN or infinity. Check the image, the weights and the "
                "batch-norm statistics."
            )
