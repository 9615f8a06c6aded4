"""Activity: how often and how strongly every channel of a layer responds."""

import torch
from torch import Tensor

from rfviz.kernels.responses.maps import OCTAVES, Maps

HISTOGRAM_EDGES = 2.0 ** torch.arange(OCTAVES.start, OCTAVES.stop + 1)
"""Edges between the logarithmic bins of the histogram: octaves from 2^-10 to 2^10."""


class Activity:
    """Maximum, mean, share of neurons that fire, and a histogram, of every channel."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def update(self, maps: Maps) -> None:
        """Take finite responses."""
        maximum, sums, histogram = maps.summary
        found = {
            "neurons": torch.tensor(maps.values[:, 0].numel()),
            "maximum": maximum.double().cpu(),
            "total": sums.sum(0).cpu(),
            "histogram": histogram.cpu(),
        }
        # not in place: a state that was returned stays as it is, and inference tensors cannot be changed
        for name, before in self.state.items():
            found[name] = torch.maximum(before, found[name]) if name == "maximum" else before + found[name]
        self.state = found

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return self.state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore from `state_dict()`."""
        self.state = state

    def result(self) -> dict[str, Tensor]:
        """Return `maximum`, `mean`, `positive_count` `(C,)` and `histogram` `(C, 23)`."""
        histogram = self.state["histogram"].clone()  # a clone can be changed in place, which an inference tensor cannot
        return {
            "maximum": self.state["maximum"].clone(),
            "mean": self.state["total"] / self.state["neurons"],
            "positive_count": histogram[:, 1:].sum(1),
            "histogram": histogram,
        }
