"""How often the channels of a layer fire while a network is used for something else, and a penalty on silence."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rfviz.errors import unknown
from rfviz.training import distributed


@contextlib.contextmanager
def firing(net: nn.Module, layer: str) -> Iterator[Callable[[], list[float]]]:
    """Count which neurons of a module fire (response > 0) whenever `net` is called inside the block.

    What it gives returns the share of neurons that fired, per channel, over all processes; nothing if `net` was not
    called.

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
    positive, neurons = torch.zeros(0, dtype=torch.int64), 0  # neurons of one channel

    def count(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal positive, neurons
        fired = (output > 0).sum((0, 2, 3))
        positive = positive + fired if neurons else fired
        neurons += output[:, 0].numel()

    def rates() -> list[float]:
        mine = {"positive": positive, "neurons": torch.tensor([neurons])}
        parts = [each for each in distributed.gather(mine) if int(each["neurons"])]
        if not parts:
            return []
        fired = torch.stack([each["positive"] for each in parts]).sum(0)
        return (fired.double() / sum(int(each["neurons"]) for each in parts)).tolist()

    with modules[layer].register_forward_hook(count):
        yield rates


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
