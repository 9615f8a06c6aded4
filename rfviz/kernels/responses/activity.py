"""Activity: how often and how strongly every channel of a layer responds."""

import torch
from torch import Tensor

from rfviz.kernels.responses.maps import AT_ONCE, Maps

OCTAVES = range(-10, 10)
HISTOGRAM_EDGES = 2.0 ** torch.arange(OCTAVES.start, OCTAVES.stop + 1)
"""Edges between the logarithmic bins of the histogram: octaves from 2^-10 to 2^10."""

# Of each type: the integer type of the same width, the bits of the mantissa, and the bias of the exponent.
_LAYOUT = {torch.float32: (torch.int32, 23, 127), torch.float64: (torch.int64, 52, 1023)}


class Activity:
    """Maximum, mean, share of neurons that fire, and a histogram, of every channel."""

    def __init__(self) -> None:
        self.neurons = 0
        self.maximum: Tensor | None = None
        self.total: Tensor | None = None
        self.histogram: Tensor | None = None

    def update(self, maps: Maps) -> None:
        """Take finite responses."""
        counts = torch.stack([_counts(part, maps.positions) for part in maps.flat.split(AT_ONCE)]).sum(0)
        self._add(maps.neurons, maps.maxima.amax(0).double(), maps.sums.sum(0), counts)

    def _add(self, neurons: int, maximum: Tensor, total: Tensor, histogram: Tensor) -> None:
        maximum, total, histogram = maximum.cpu(), total.cpu(), histogram.cpu()
        if self.maximum is None or self.total is None or self.histogram is None:
            self.maximum, self.total, self.histogram = maximum.clone(), total.clone(), histogram.clone()
        else:
            self.maximum = torch.maximum(self.maximum, maximum)
            # not in place: a state that was returned stays as it is, and inference tensors cannot be changed
            self.total = self.total + total
            self.histogram = self.histogram + histogram
        self.neurons += neurons

    def merge(self, other: "Activity") -> None:
        """Add what another accumulator has counted."""
        if other.maximum is not None and other.total is not None and other.histogram is not None:
            self._add(other.neurons, other.maximum, other.total, other.histogram)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        if self.maximum is None or self.total is None or self.histogram is None:
            return {}
        return {
            "neurons": torch.tensor(self.neurons),
            "maximum": self.maximum,
            "total": self.total,
            "histogram": self.histogram,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore from `state_dict()`."""
        self.__init__()  # type: ignore[misc]
        if state:
            self._add(int(state["neurons"]), state["maximum"], state["total"], state["histogram"])

    def result(self) -> dict[str, Tensor]:
        """Return `maximum`, `mean`, `positive_count` `(C,)` and `histogram` `(C, 23)`."""
        assert self.maximum is not None and self.total is not None and self.histogram is not None
        return {
            "maximum": self.maximum.clone(),  # a clone can be changed in place, which an inference tensor cannot
            "mean": self.total / self.neurons,
            "positive_count": self.histogram[:, 1:].sum(1),
            "histogram": self.histogram.clone(),
        }


def _counts(flat: Tensor, positions: int) -> Tensor:
    """Return the histogram `(C, 23)` of responses that lie as `Maps.flat` does. A float's exponent is its octave."""
    integer, mantissa, bias = _LAYOUT[flat.dtype]
    low, high = bias + OCTAVES.start - 1, bias + OCTAVES.stop
    # Negative numbers have a negative exponent here, zero and the smallest have 0: all go to the lowest bin.
    bits = flat.view(integer)
    bins = (bits >> mantissa).clamp_(low, high)
    channels, number, tables = flat.shape[3 - positions], high - low + 1, 1
    first = torch.arange(channels, device=flat.device, dtype=integer) * number - low
    if positions == 2:
        # Neighbours count in tables of their own: to add to what was just added to would mean to wait for it.
        tables = 8
        table = torch.arange(flat.shape[2], device=flat.device, dtype=integer) % tables
        first = first[:, None] + table * (channels * number)
    bins += first
    counts = torch.bincount(bins.flatten(), minlength=tables * channels * number)
    counts = counts.view(tables, channels, number).sum(0)
    # Of the lowest bin, those that are not positive: as integers, which is several times as fast as a comparison.
    positive = bits.clamp(0, 1).sum(positions, dtype=integer).sum(0)
    silent = flat.shape[0] * flat.shape[positions] - positive
    return torch.cat([silent[:, None], counts[:, :1] - silent[:, None], counts[:, 1:]], 1)
