"""The feature maps of one layer for a batch of images, and what several statistics want of them."""

from functools import cached_property

import torch
from torch import Tensor

from rfviz.errors import RfvizError

AT_ONCE = 4
"""Images whose maps are looked at together: small enough to stay in the cache from one operation to the next."""


class Maps:
    """Responses of one layer to a batch of images.

    Parameters
    ----------
    values : Tensor, shape (N, C, h, w)
        float32 or float64; other types are turned into float32.

    Attributes
    ----------
    flat : Tensor, shape (N, C, h * w) or (N, h * w, C)
        The same with the positions in one axis, in the order in which they lie in memory, so that nothing is copied.
    positions : {2, 1}
        Which axis of `flat` that is: 1 where channels come last in memory.
    """

    def __init__(self, values: Tensor):
        self.values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        if not self.values.is_contiguous() and self.values.is_contiguous(memory_format=torch.channels_last):
            self.flat, self.positions = self.values.permute(0, 2, 3, 1).flatten(1, 2), 1
        else:
            self.flat, self.positions = self.values.contiguous().flatten(2), 2

    @property
    def neurons(self) -> int:
        """Neurons of one channel, over all images."""
        return self.flat.shape[0] * self.flat.shape[self.positions]

    @cached_property
    def maxima(self) -> Tensor:
        """Strongest response of every image and channel, `(N, C)`."""
        return self.flat.amax(self.positions)

    @cached_property
    def sums(self) -> Tensor:
        """Sum over the positions, float64 `(N, C)`: finite where all responses are."""
        return torch.cat([part.sum(self.positions, dtype=torch.float64) for part in self.flat.split(AT_ONCE)])

    def first_maximum(self, image: Tensor, channel: Tensor) -> Tensor:
        """Return the position, in raster order, of the first of the strongest neurons of pairs (image, channel)."""
        if 4 * len(image) > self.maxima.numel():
            return self.flat.max(self.positions).indices[image, channel]
        chosen = self.flat[image, channel] if self.positions == 2 else self.flat[image, :, channel]
        return chosen.max(1).indices

    def refuse_not_finite(self, layer: str, index: Tensor) -> None:
        """Raise an RfvizError that names the first image with a response that is NaN or infinite, if there is one."""
        if self.sums.isfinite().all():
            return
        finite = self.values.isfinite().flatten(1).all(1)  # a sum of finite numbers may overflow
        if not finite.all():
            image = int(index[finite.cpu().logical_not()][0])
            raise RfvizError(
                f"image {image}: layer {layer!r} responds with NaN or infinity. Check the image, the weights and the "
                "batch-norm statistics."
            )
