"""Activity: how often and how strongly every channel of a layer responds."""

import torch
from torch import Tensor

from rfviz.kernels.responses.maps import OCTAVES, Maps

HISTOGRAM_EDGES = 2.0 ** torch.arange(OCTAVES.start, OCTAVES.stop + 1)
"""Edges between the logarithmic bins of the histogram: octaves from 2^-10 to 2^10."""


class Activity:
    """Maximum, mean, share of neurons that fire, and a histogram, of every channel."""

    def __init__(self) -> None:
        self.neurons = 0
        self.maximum: Tensor | None = None
        self.total: Tensor | None = None
        self.histogram: Tensor | None = None

    def update(self, maps: Maps) -> None:
        """Take finite responses."""
        maximum, sums, histogram = maps.summary
        self._add(maps.neurons, maximum.double(), sums.sum(0), histogram)

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
