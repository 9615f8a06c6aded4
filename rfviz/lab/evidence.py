"""What one trained network has to say of the channel-sharing hypothesis (see `rfviz.pages.predictions`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rfviz.kernels.noise_dose import NoiseDose
from rfviz.kernels.stream import Written


@dataclass(frozen=True)
class Evidence:
    """What one trained network has to say, for C channels that the stem shares with the blocks of layer1.

    Parameters
    ----------
    firing_rate : Tensor, shape (C,)
        Share of neurons of the first pooling layer that fire for the evaluation images.
    tested : Tensor of bool, shape (C,)
        Which channels are tested: the inactive ones, or else the least active ones.
    likeness : Tensor, shape (C,)
        Correlation of the filter with the mean over the strongest stimuli of layer1.2; NaN where that never fires.
    dose : NoiseDose
    ablated : dict from layer to Tensor, shape (C, N)
        Change of the loss of N images when a channel is set to 0 there, nats; see `rfviz.kernels.stream.ABLATED`.
    written : dict from layer to Written
        Empty without skips.
    by_chance : dict from layer to Written
        The same of a network with random weights.
    """

    firing_rate: Tensor
    tested: Tensor
    likeness: Tensor
    dose: NoiseDose
    ablated: Mapping[str, Tensor]
    written: Mapping[str, Written]
    by_chance: Mapping[str, Written]

    @property
    def inactive(self) -> int:
        """How many channels are inactive."""
        return len(self.dose.tested) if self.dose.inactive else 0
