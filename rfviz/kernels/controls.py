"""Networks that should not show what a measurement is after: the same network with random weights, or with the pixels
of its first filters shuffled. What they show all the same is chance.
"""

import copy
from typing import TypeVar

import torch
from torch import nn

from rfviz.errors import RfvizError, unknown

CONTROLS = ("random weights", "shuffled filters")

DRAWS = 2
"""Networks of each kind that stand for chance."""


Net = TypeVar("Net", bound=nn.Module)


def control(net: Net, kind: str, seed: int = 0) -> Net:
    """Return a control network of the same architecture, in evaluation mode; `net` itself is left alone.

    Parameters
    ----------
    net : nn.Module
    kind : {"random weights", "shuffled filters"}
        Weights as torch draws them and normalizations that do nothing (`rfviz.kernels.calibration` lets them know images); or
        the trained weights, with the pixels of every filter of the first convolution in random order, the same for its
        three colours.
    seed : int
        Of the weights, or of the order.

    Raises
    ------
    RfvizError
        If the kind is unknown, or the network has no convolution of RGB images.
    """
    if kind not in CONTROLS:
        raise unknown("control", kind, CONTROLS)
    other = copy.deepcopy(net).eval()
    if kind == "random weights":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in other.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()  # type: ignore[operator]
        return other
    first = next((each for each in other.modules() if isinstance(each, nn.Conv2d) and each.in_channels == 3), None)
    if first is None:
        raise RfvizError(f"{type(net).__name__} has no convolution of three colours: its filters cannot be shuffled.")
    generator = torch.Generator().manual_seed(seed)
    weight = first.weight.data
    flat = weight.flatten(2)
    for channel, pixels in enumerate(flat.clone()):
        order = torch.randperm(flat.shape[2], generator=generator).to(flat.device)
        flat[channel] = pixels[:, order]
    first.weight.data = flat.view_as(weight)
    return other
