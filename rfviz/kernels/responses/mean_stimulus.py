"""The mean preferred stimulus (eqs. 3 and 4 of the paper) of every channel."""

import torch
from torch import Tensor
from torch.nn import functional as F

from rfviz.kernels.responses.patch_sums import MIDDLE, Phases, summed_grid, summed_patches
from rfviz.nets.receptive_field import ReceptiveField


class MeanStimulus:
    """Averages the receptive-field patches of chosen neurons, pixel by pixel over those patches that have the pixel.

    The state is a sum and a count per pixel of the field, whatever the number of images: of the part that they have
    reached, or of all of it after `update_grid`. Sums are kept in float64.

    Parameters
    ----------
    field : ReceptiveField
        Of the layer.
    """

    def __init__(self, field: ReceptiveField):
        self.field = field
        self.total: Tensor | None = None  # (C, 3, r, c) of float64, sums of pixels minus MIDDLE
        self.count: Tensor | None = None  # (C, r, c) of int64
        self.corner = 0, 0  # row and column of the field in which both begin

    def update(self, phases: Phases, chosen: Tensor) -> None:
        """Add the patches of the neurons where `chosen` (N, C, h, w) is > 0, out of the images of `phases`."""
        sums, neurons, top, left = summed_patches(phases, chosen, self.field)
        self._add(sums.cpu(), neurons.cpu(), (top, left), phases)

    def update_grid(self, phases: Phases, shape: torch.Size, rows: slice, columns: slice) -> None:
        """Add, as those of one channel, the patches of all neurons in some rows and columns of maps (N, C, h, w)."""
        neurons = torch.zeros(1, *shape[2:], dtype=torch.int64)
        neurons[:, rows, columns] = len(phases.images)
        self._add(summed_grid(phases.total, rows, columns, self.field)[None], neurons, (0, 0), phases)

    def _add(self, sums: Tensor, neurons: Tensor, corner: tuple[int, int], phases: Phases) -> None:
        channels, colours, rows, columns = sums.shape
        self._reach(channels, colours, *corner, rows, columns)
        assert self.total is not None and self.count is not None
        top, left = corner[0] - self.corner[0], corner[1] - self.corner[1]
        part = ..., slice(top, top + rows), slice(left, left + columns)
        down, across = (
            _inside(self.field, *along)
            for along in zip(neurons.shape[1:], phases.images.shape[2:], corner, (rows, columns), strict=True)
        )
        self.total[part].add_(sums)
        self.count[part].add_((down @ neurons.double() @ across.T).long())

    @torch.inference_mode(False)  # what is made in inference mode could not be added to outside it
    def _reach(self, channels: int, colours: int, top: int, left: int, rows: int, columns: int) -> None:
        """Make room for a part of the field."""
        if self.total is None or self.count is None:
            self.corner = top, left
            self.total = torch.zeros(channels, colours, rows, columns, dtype=torch.float64)
            self.count = torch.zeros(channels, rows, columns, dtype=torch.int64)
            return
        (y, x), (height, width) = self.corner, self.count.shape[1:]
        above, before = max(0, y - top), max(0, x - left)
        below, after = max(0, top + rows - y - height), max(0, left + columns - x - width)
        if above or before or below or after:
            self.total = F.pad(self.total, (before, after, above, below))
            self.count = F.pad(self.count, (before, after, above, below))
            self.corner = y - above, x - before

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        if self.total is None or self.count is None:
            return {}
        return {"total": self.total, "count": self.count, "corner": torch.tensor(self.corner)}

    @torch.inference_mode(False)
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore from `state_dict()`."""
        self.__init__(self.field)  # type: ignore[misc]
        if state:
            self.total, self.count = state["total"].clone(), state["count"].clone()
            self.corner = tuple(state["corner"].tolist())

    def result(self) -> tuple[Tensor, Tensor]:
        """Return the mean `(C, 3, R, R)` in float32, 0 where nothing was counted, and the count `(C, R, R)`."""
        assert self.total is not None and self.count is not None
        size, (top, left), (rows, columns) = self.field.size, self.corner, self.count.shape[1:]
        mean = torch.zeros(*self.total.shape[:2], size, size)
        count = torch.zeros(len(self.total), size, size, dtype=torch.int64)
        seen = self.count[:, None]
        part = (self.total / seen.clamp(min=1)).add_(MIDDLE).mul_(seen > 0)
        mean[..., top : top + rows, left : left + columns] = part
        count[..., top : top + rows, left : left + columns] = self.count
        return mean, count


def _inside(field: ReceptiveField, neurons: int, pixels: int, begin: int, rows: int) -> Tensor:
    """Return `(rows, neurons)` of float64: 1 where a neuron finds that row of its field, from `begin` on, in the image.

    Counts that such matrices make are exact up to 2^53.
    """
    pixel = field.start + field.stride * torch.arange(neurons) + torch.arange(begin, begin + rows)[:, None]
    return ((pixel >= 0) & (pixel < pixels)).double()
