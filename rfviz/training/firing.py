"""How often the channels of a layer fire while a network is used for something else, and a penalty on silence."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rfviz.errors import unknown
from rfviz.training import distributed


@dataclass
class Firing:
    """Neurons that fired (response > 0) in this process, counted since `watching` began.

    Parameters
    ----------
    positive : Tensor of int64, shape (C,)
    neurons : int
        Of one channel.
    """

    positive: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    neurons: int = 0

    def add(self, responses: Tensor) -> None:
        """Count the responses of a batch, `(N, C, h, w)`."""
        fired = (responses > 0).sum((0, 2, 3))
        self.positive = fired if not self.neurons else self.positive + fired
        self.neurons += responses.shape[0] * responses.shape[2] * responses.shape[3]

    def rates(self) -> list[float]:
        """Return the share of neurons that fired, per channel, over all processes."""
        mine = {"positive": self.positive, "neurons": torch.tensor([self.neurons])}
        parts = [each for each in distributed.gather(mine) if int(each["neurons"])]
        if not parts:
            return []
        positive = torch.stack([each["positive"] for each in parts]).sum(0)
        return (positive.double() / sum(int(each["neurons"]) for each in parts)).tolist()


@contextlib.contextmanager
def watching(net: nn.Module, layer: str) -> Iterator[Firing]:
    """Count which neurons of a module fire whenever `net` is called inside the block.

    Parameters
    ----------
    net : nn.Module
    layer : str
        Name of a module whose output, `(N, C, h, w)`, is a response: it ends in a ReLU, or pools what does.

    Raises
    ------
    RfvizError
        If there is no such module.
    """
    modules = dict(net.named_modules())
    if layer not in modules:
        raise unknown("layer", layer, [name for name in modules if name])
    counted = Firing()

    def count(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        counted.add(output)

    with modules[layer].register_forward_hook(count):
        yield counted


@contextlib.contextmanager
def reading(net: nn.Module, module: str) -> Iterator[list[Tensor]]:
    """Keep what a module gave last whenever `net` is called inside the block: a list of one tensor."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        kept[:] = [output.clone()]  # the ReLU behind it works in place

    with net.get_submodule(module).register_forward_hook(keep):
        yield kept


def shortfall(values: Tensor, least: float = 1.0) -> Tensor:
    """Return how far the highest value of each channel stays below `least`, summed over channels.

    Of ``bn1``, as a penalty on a training step, it keeps every channel of the stem firing for some image of the batch.

    Parameters
    ----------
    values : Tensor, shape (N, C, h, w)
        Before the ReLU.
    least : float
    """
    return (least - values.amax((0, 2, 3))).clamp(min=0).sum()
