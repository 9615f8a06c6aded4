"""The strongest neurons of every channel, exactly, whatever the order in which images come."""

import torch
from torch import Tensor

from rfviz.kernels.responses.maps import Maps

EMPTY = -1
"""Image and position where there are fewer neurons than places."""

# A neuron's key packs image, row and column, so that of equal responses the smaller key wins.
_IMAGE, _ROW = 1 << 32, 1 << 16
_NO_KEY = torch.iinfo(torch.int64).max


class TopStimuli:
    """Keeps the k strongest neurons of every channel; ties go to the lower image index, then to raster order.

    Parameters
    ----------
    k : int
    per_image : int, optional
        How many of its neurons an image gives at most, for each channel; by default all compete.
    """

    def __init__(self, k: int, per_image: int | None = 1):
        self.k, self.per_image = k, per_image
        self.values: Tensor | None = None  # (C, k), in order
        self.keys: Tensor | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []  # candidates (C, p), to be put in order with the next many

    def update(self, index: Tensor, maps: Maps) -> None:
        """Take the finite responses to the images with the numbers `index`, ascending `(N,)`, not seen before."""
        device, width, corner = maps.values.device, maps.competing.shape[3], maps.corner
        image = index.to(device)[:, None] * _IMAGE

        def key(position: Tensor) -> Tensor:
            return (position // width + corner[0]) * _ROW + position % width + corner[1]

        if self.per_image == 1:
            values, keys = maps.maxima.T, image.expand_as(maps.maxima).T  # the image alone says who wins a tie
            channel, which = self._better(values, keys)
            keys = keys[channel, which] + key(maps.first_maximum(which, channel))
        else:
            values = maps.competing.transpose(0, 1).flatten(2)
            keys = (image + key(torch.arange(values.shape[2], device=device))).flatten()
            values = values.flatten(1)
            allowed = None if self.per_image is None else _strongest_of_each(values, len(index), self.per_image)
            channel, which = self._better(values, keys.expand_as(values), allowed)
            keys = keys[which]
        self._wait(channel, values[channel, which], keys)

    def _better(self, values: Tensor, keys: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return channel and column of those of the candidates `(C, m)`, keys ascending, that may be among the k."""
        if allowed is not None:
            values = torch.where(allowed, values, -torch.inf)
        if self.values is None or self.keys is None:
            self.values = values.new_full((len(values), self.k), -torch.inf)
            self.keys = keys.new_full((len(values), self.k), _NO_KEY)
        self.values, self.keys = self.values.to(values.device), self.keys.to(values.device)  # a state comes on the CPU
        last, last_key = self.values[:, -1:], self.keys[:, -1:]
        better = (values > last) | ((values == last) & (keys < last_key))
        if int(better.sum(1).max()) > self.k:
            better = _strongest(values, self.k)
        if allowed is not None:
            better = better & allowed
        channel, column = better.nonzero(as_tuple=True)
        return channel, column

    def _wait(self, channel: Tensor, values: Tensor, keys: Tensor) -> None:
        """Let candidates, channels ascending, wait; many are put in order at once."""
        if not len(channel):
            return
        assert self.values is not None
        counts = channel.bincount(minlength=len(self.values))
        place = torch.arange(len(channel), device=values.device) - (counts.cumsum(0) - counts)[channel]
        shape = len(counts), int(counts.max())
        waiting = values.new_full(shape, -torch.inf), keys.new_full(shape, _NO_KEY)
        waiting[0][channel, place], waiting[1][channel, place] = values, keys
        self._waiting.append(waiting)
        if sum(part.shape[1] for part, _ in self._waiting) >= self.k:
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        assert self.values is not None and self.keys is not None
        values = torch.cat([self.values, *(waiting for waiting, _ in self._waiting)], 1)
        keys = torch.cat([self.keys, *(waiting for _, waiting in self._waiting)], 1)
        order = keys.argsort(dim=1)
        values, keys = values.gather(1, order), keys.gather(1, order)
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        self.values, self.keys, self._waiting = values.gather(1, order), keys.gather(1, order), []

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        self._settle()
        return {} if self.values is None or self.keys is None else {"values": self.values, "keys": self.keys}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore from `state_dict()`."""
        self.values, self.keys, self._waiting = state.get("values"), state.get("keys"), []

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return values `(C, k)`, images `(C, k)` and positions `(C, k, 2)`, on the CPU."""
        self._settle()
        assert self.values is not None and self.keys is not None
        values, keys = self.values.cpu().clone(), self.keys.cpu()
        images = keys.div(_IMAGE, rounding_mode="floor")
        positions = torch.stack([keys % _IMAGE // _ROW, keys % _ROW], dim=-1)
        missing = keys == _NO_KEY
        images[missing] = EMPTY
        positions[missing] = EMPTY
        return values, images, positions


def _strongest_of_each(values: Tensor, images: int, k: int) -> Tensor | None:
    """Mark the k strongest of each image among candidates `(C, images * m)`; None where that is all of them."""
    of_images = values.unflatten(1, (images, -1)).flatten(0, 1)
    return None if of_images.shape[1] <= k else _strongest(of_images, k).view_as(values)


def _strongest(values: Tensor, k: int) -> Tensor:
    """Mark the k strongest of candidates `(C, m)`, m > k; of equal ones, those that come first."""
    threshold = values.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    above, tied = values > threshold, values == threshold
    room = k - above.sum(1, keepdim=True)
    return above | (tied & (tied.cumsum(1) <= room))
