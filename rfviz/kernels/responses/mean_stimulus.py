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
        # Neurons chosen so far, (C, h, w), of maps of one size in images of one size: they become counts of pixels only
        # when they must.
        self._neurons: Tensor | None = None
        self._size = 0, 0

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
        height, width = phases.images.shape[2:]
        size = height, width
        if self._neurons is not None and (size != self._size or neurons.shape != self._neurons.shape):
            self._count()
        self._neurons = neurons if self._neurons is None else self._neurons + neurons
        self._size = size
        channels, colours, *sides = sums.shape
        self._reach(channels, colours, *corner, *sides)
        self._part(self.total, *corner, *sides).add_(sums)

    def _part(self, whole: Tensor | None, top: int, left: int, rows: int, columns: int) -> Tensor:
        assert whole is not None
        y, x = top - self.corner[0], left - self.corner[1]
        return whole[..., y : y + rows, x : x + columns]

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

    def _count(self) -> None:
        """Turn the neurons chosen so far into the number of patches that have each pixel."""
        if self._neurons is None:
            return
        assert self.count is not None
        (top, left), (rows, columns) = self.corner, self.count.shape[1:]
        # Neurons from y0 up to y1, and x0 to x1, see an existing pixel there: a difference of running sums.
        running = F.pad(self._neurons.cumsum(1).cumsum(2), (1, 0, 1, 0))
        y0, y1 = _seeing(self.field, self._neurons.shape[1], self._size[0], range(top, top + rows))
        x0, x1 = _seeing(self.field, self._neurons.shape[2], self._size[1], range(left, left + columns))
        between = running[:, y1] - running[:, y0]
        self.count += between[:, :, x1] - between[:, :, x0]
        self._neurons = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        self._count()
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
        self._count()
        assert self.total is not None and self.count is not None
        size, (top, left), (rows, columns) = self.field.size, self.corner, self.count.shape[1:]
        mean = torch.zeros(*self.total.shape[:2], size, size)
        count = torch.zeros(len(self.total), size, size, dtype=torch.int64)
        seen = self.count[:, None]
        part = (self.total / seen.clamp(min=1)).add_(MIDDLE).mul_(seen > 0)
        mean[..., top : top + rows, left : left + columns] = part
        count[..., top : top + rows, left : left + columns] = self.count
        return mean, count


def _seeing(field: ReceptiveField, neurons: int, pixels: int, rows: range) -> tuple[Tensor, Tensor]:
    """Return, per row of the field, the half-open range of neurons that find this row inside the image."""
    first_row = field.start + torch.arange(rows.start, rows.stop)  # of the image, as neuron 0 sees it
    first = (-first_row).div(field.stride, rounding_mode="floor").add_((-first_row % field.stride > 0).long())
    last = (pixels - 1 - first_row).div(field.stride, rounding_mode="floor")
    begin = first.clamp(0, neurons)
    return begin, torch.maximum(last.add_(1).clamp_(0, neurons), begin)
